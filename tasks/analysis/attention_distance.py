"""Mean attention distance: how far from its own place each head of a transformer looks (Dosovitskiy et al. 2021).

As Raghu et al. (2021): the distance in pixels between the places of query and key, weighted by attention and averaged
over queries and images; class token and registers are left out, as queries and as keys. Where attention stays within
windows (Swin), so does the distance.
"""

import numpy as np
import torch
from torch import Tensor

from ...backbones.attending import AttentionMap
from ..measure import Measure
from ..pictures import COLOURS, canvas, shaded
from ..task import Metric, Needs, Outcome, Scores, Task, percent
from .batches import AnalysisRecipe, drawn, finite, passed
from .profile import DEPTHS, Profile, by_depth, gathered

pixels = Metric("px", 0.0, 1e5)
PARTS = ("block", "depth", "head", "side", "uniform")


class AttentionDistance(Task):
    """`mean` is of all heads, in pixels of the backbone's input; `share` that in percent of the image's diagonal;
    `depth_…` of the heads of the block so deep in percent; `spread` between the nearest and the farthest head of a
    block, mean over blocks."""

    name, family, version = "attention-distance", "analysis", 1
    needs = Needs(data="classification", splits=("test",), layers=True)
    scores = Scores(mean=pixels, share=percent, **{f"depth_{d}": pixels for d in DEPTHS}, spread=pixels)
    Recipe = AnalysisRecipe

    def run(self, backbone, data, recipe, context):
        batches, found = drawn(data["test"], recipe, context.seed), []
        for _, images in passed(backbone, data["test"], batches, context, "attention"):
            heads = {}
            for block, (distances, uniform) in backbone.attention(images, mean_distance).items():
                depth, side = backbone.blocks.index(block) + 1, images.shape[-1]
                for head, of_images in enumerate(finite(backbone, block, distances).T.cpu().numpy()):
                    heads[block, depth, head, side, uniform] = of_images
            found.append(heads)
        return Outcome(gathered(found, PARTS, "distance").rows(data["test"], np.concatenate(batches)))

    def measure(self, predictions, data):
        profile = Profile.of(predictions, data, PARTS)
        distance, depth = profile.values["distance"].astype(float), profile.parts["depth"]
        diagonal = np.sqrt(2) * float(profile.parts["side"][0])

        def scores(weights: np.ndarray) -> dict[str, float]:
            heads = distance @ weights / weights.sum()
            mean = float(heads.mean())
            ranges = [np.ptp(heads[depth == block]) for block in np.unique(depth)]
            found = {"mean": mean, "share": 100 * mean / diagonal} | by_depth(depth, heads)
            return found | {"spread": float(np.mean(ranges))}

        return Measure(profile.images, scores, profile.groups)

    def picture(self, predictions, data):
        """The heads of each block by depth, and sorted from the one that looks nearest to the farthest."""
        profile = Profile.of(predictions, data, PARTS)
        heads, depth = profile.values["distance"].mean(axis=1), profile.parts["depth"]
        blocks = np.unique(depth)
        figure, (by_block, by_head) = canvas(1, 2, (4.8, 3.8))
        uniform = [profile.parts["uniform"][depth == block][0] for block in blocks]
        means = [heads[depth == block].mean() for block in blocks]
        by_block.plot(blocks, uniform, color="0.6", linestyle="--", label="if all places counted alike")
        by_block.plot(blocks, means, color=COLOURS[0], label="mean of the heads")
        by_block.scatter(depth, heads, s=14, color=COLOURS[1], linewidth=0, label="one head", zorder=3)
        by_block.set(xlabel="block, from the first to the last", ylabel="mean attention distance (px)")
        by_block.set_xticks(blocks[:: -(-len(blocks) // 12)])
        by_block.legend(loc="lower right")
        shown = blocks[np.unique(np.linspace(0, len(blocks) - 1, 6).round().astype(int))]
        for shade, block in zip(np.linspace(0.1, 0.85, len(shown)), shown, strict=True):
            found = np.sort(heads[depth == block])
            by_head.plot(
                np.arange(len(found)) + 1, found, "o-", markersize=3, color=shaded(shade), label=f"block {block}"
            )
        by_head.set(xlabel="heads of a block, sorted", ylabel="mean attention distance (px)")
        most = int(np.bincount(depth).max())
        by_head.set_xticks(np.arange(1, most + 1, -(-most // 12)))
        by_head.legend(loc="lower right")
        for axes in (by_block, by_head):
            axes.set_ylim(0, 1.08 * max(*heads, *uniform))
        figure.suptitle(f"How far each head looks ({profile.images} images of {profile.parts['side'][0]} px)")
        return figure


def mean_distance(attention: AttentionMap) -> tuple[Tensor, float]:
    """(B, heads) pixels between query and key, weighted by attention and averaged over queries; and what that is where
    attention is the same everywhere."""
    rows, columns = attention.grid
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    places = attention.stride * torch.stack([y.flatten(), x.flatten()], dim=1).to(attention.weights)
    apart = torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist")
    over_places = attention.weights[..., attention.prefix :, attention.prefix :]
    return (over_places * apart).sum(dim=-1).mean(dim=(1, -1)), float(apart.mean())
