"""Skip ratio: how much of a representation residual connections pass on, against what they add (Raghu et al. 2021).

The norm of the skip over the norm of the branch, token by token, of each attention, convolution or mlp that a block
adds to what came in; class token and places apart.
"""

import numpy as np
import torch

from ...backbones.residual import Residual
from ..measure import Measure
from ..pictures import COLOURS, canvas
from ..task import Metric, Needs, Outcome, Scores, Task
from .batches import AnalysisRecipe, drawn, finite, passed
from .profile import Profile, gathered

MOST = 1000.0  # what a branch counts that adds nothing: at birth, some networks' branches are silent
ratio = Metric("skip / branch", 0.0, MOST)
PARTS = ("block", "depth", "branch", "kind", "token")
STYLES = {"attention": ("o", "-"), "convolution": ("^", "-"), "mlp": ("s", "--")}


class SkipRatio(Task):
    """`mean` is of all branches and places, `first_half` and `second_half` of the blocks; `cls…` of the class token."""

    name, family, version = "skip-ratio", "analysis", 1
    needs = Needs(data="classification", splits=("test",), layers=True)
    scores = Scores(
        mean=ratio,
        first_half=ratio,
        second_half=ratio,
        cls=ratio,
        cls_first_half=ratio,
        cls_second_half=ratio,
    )
    Recipe = AnalysisRecipe

    def run(self, backbone, data, recipe, context):
        batches, found = drawn(data["test"], recipe, context.seed), []
        for _, images in passed(backbone, data["test"], batches, context, "residual connections"):
            parts = {}
            for block, residuals in backbone.residuals(images, ratios).items():
                depth = backbone.blocks.index(block) + 1
                for branch, (kind, tokens) in enumerate(residuals):
                    for token, values in tokens.items():
                        parts[block, depth, branch, kind, token] = finite(backbone, block, values).cpu().numpy()
            found.append(parts)
        return Outcome(gathered(found, PARTS, "ratio").rows(data["test"], np.concatenate(batches)))

    def measure(self, predictions, data):
        profile = Profile.of(predictions, data, PARTS)
        values, depth, token = profile.values["ratio"].astype(float), profile.parts["depth"], profile.parts["token"]
        late = depth > np.median(np.unique(depth))
        shown = {
            f"{prefix}{name}".strip("_"): rows
            for prefix, of in (("", token == "place"), ("cls_", token == "cls"))
            for name, rows in (("", of), ("first_half", of & ~late), ("second_half", of & late))
            if rows.any()
        }
        shown = {name or "mean": rows for name, rows in shown.items()}

        def scores(weights: np.ndarray) -> dict[str, float]:
            parts = values @ weights / weights.sum()
            return {name: float(parts[rows].mean()) for name, rows in shown.items()}

        return Measure(profile.images, scores, profile.groups)

    def picture(self, predictions, data):
        """The ratio by depth, a line for each kind of branch, of places and of the class token."""
        profile = Profile.of(predictions, data, PARTS)
        ratios, parts = profile.values["ratio"].mean(axis=1), profile.parts
        tokens = [
            (token, name) for token, name in (("place", "places"), ("cls", "class token")) if token in parts["token"]
        ]
        figure, (axes,) = canvas(1, 1, (6.4, 4.0))
        for colour, (token, name) in zip(COLOURS, tokens, strict=False):
            for kind, (marker, line) in STYLES.items():
                of = (parts["token"] == token) & (parts["kind"] == kind)
                if of.any():
                    depths = np.unique(parts["depth"][of])
                    means = [ratios[of & (parts["depth"] == depth)].mean() for depth in depths]
                    label = f"{kind}, {name}"
                    axes.plot(depths, means, color=colour, marker=marker, linestyle=line, markersize=4, label=label)
        axes.axhline(1, color="0.7", linewidth=0.8, zorder=0)
        axes.set_yscale("log", subs=[2, 5])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.set(
            title=f"What residual connections pass on ({profile.images} images)",
            xlabel="block, from the first to the last",
            ylabel="norm of skip / norm of branch",
        )
        blocks = np.unique(parts["depth"])
        axes.set_xticks(blocks[:: -(-len(blocks) // 12)])
        axes.legend()
        return figure


def ratios(residual: Residual) -> tuple[str, dict[str, torch.Tensor]]:
    """The kind of a branch, and (B,) skip over branch: mean over places, and of the class token where there is one."""
    skip, branch = (side.norm(dim=-1) for side in (residual.skip, residual.branch))
    tiny = torch.finfo(skip.dtype).tiny  # where both are silent the ratio is one
    each = ((skip + tiny) / (branch + tiny)).clamp(max=MOST)
    cls = {"cls": each[:, 0]} if residual.cls else {}
    return residual.kind, {"place": each[:, residual.prefix :].mean(dim=1)} | cls
