"""Effective receptive field: which pixels a block's feature at the centre depends on (Luo et al. 2016).

As Raghu et al. (2021): the absolute gradient of the feature by the image, of each block, averaged over channels and
images. Its radius is the root mean square distance of the gradient from its centre of mass.
"""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ...backbones import Backbone
from ...backbones.errors import NotApplicable
from ..measure import Measure
from ..pictures import canvas
from ..task import Needs, Outcome, Scores, Task, percent
from .attention_distance import pixels
from .batches import AnalysisRecipe, drawn, finite, passed
from .profile import DEPTHS, Profile, by_depth, gathered

CELLS = 64  # each way, of a stored map: pixels, or means over squares of a larger image
MOST_SHOWN = 12
PARTS = ("block", "depth", "side")


class ReceptiveFieldRecipe(AnalysisRecipe):
    """`channels`: of each block's output, evenly spaced, or all where there are fewer."""

    images: int = Field(default=32, ge=1)
    minibatch: int = Field(default=8, ge=1)
    channels: int = Field(default=8, ge=1)


class ReceptiveField(Task):
    """`radius` is the last block's, in pixels of the backbone's input; `share` that in percent of the image's diagonal;
    `depth_…` of the block so deep in percent."""

    name, family, version = "receptive-field", "analysis", 1
    needs = Needs(data="classification", splits=("test",), layers=True)
    scores = Scores(radius=pixels, share=percent, **{f"depth_{d}": pixels for d in DEPTHS})
    Recipe = ReceptiveFieldRecipe

    def run(self, backbone, data, recipe, context):
        batches, found = drawn(data["test"], recipe, context.seed), []
        for _, images in passed(backbone, data["test"], batches, context, "gradients"):
            fields = gradients(backbone, images, recipe.channels)
            depths = {block: depth + 1 for depth, block in enumerate(backbone.blocks)}
            found.append({(b, depths[b], images.shape[-1]): field.cpu().numpy() for b, field in fields.items()})
        return Outcome(gathered(found, PARTS, "gradient").rows(data["test"], np.concatenate(batches)))

    def measure(self, predictions, data):
        profile = Profile.of(predictions, data, PARTS)
        side, depth = float(profile.parts["side"][0]), profile.parts["depth"]
        moments = moments_of(profile.values["gradient"])  # linear, so that images can be summed

        def scores(weights: np.ndarray) -> dict[str, float]:
            radius = side * radii(np.einsum("unm,n->um", moments, weights))
            last = float(radius[depth.argmax()])
            return {"radius": last, "share": 100 * last / (np.sqrt(2) * side)} | by_depth(depth, radius)

        return Measure(profile.images, scores, profile.groups)

    def picture(self, predictions, data):
        """The mean field of blocks from the first to the last, each as bright as its own largest gradient."""
        profile = Profile.of(predictions, data, PARTS)
        fields, depth = profile.values["gradient"].mean(axis=1), profile.parts["depth"]
        radius, order = profile.parts["side"] * radii(moments_of(fields)), depth.argsort()
        if len(order) > MOST_SHOWN:
            order = order[np.linspace(0, len(order) - 1, MOST_SHOWN).round().astype(int)]
        columns = min(len(order), 6)
        figure, axes = canvas(-(-len(order) // columns), columns, (1.8, 2.1))
        cells = round(fields.shape[1] ** 0.5)
        for place in axes:
            place.axis("off")
        for place, part in zip(axes, order, strict=False):
            field = fields[part].reshape(cells, cells)
            # The square root shows the faint surroundings too.
            place.imshow(np.sqrt(field / max(field.max(), np.finfo(float).tiny)), cmap="magma", vmin=0, vmax=1)
            place.set_title(f"block {depth[part]}\nradius {radius[part]:.1f} px", fontsize=8)
        figure.suptitle(f"Effective receptive field ({profile.images} images of {profile.parts['side'][0]} px)")
        return figure


def gradients(backbone: Backbone, images: Tensor, channels: int) -> dict[str, Tensor]:
    """{"block": (B, cells²) mean over channels of |∂ feature at the centre / ∂ pixel|}, mean over colours, in cells."""
    cells = min(CELLS, images.shape[-1])
    with torch.inference_mode(False), torch.enable_grad():
        images = images.clone().requires_grad_()
        found = {}
        for block, map in backbone.layer_tokens(images).items():
            centre = map[:, :, map.shape[2] // 2, map.shape[3] // 2].sum(dim=0)
            if not centre.requires_grad:
                raise NotApplicable(f"{backbone.name}: no gradient flows from {block!r} to the image")
            count = min(channels, len(centre))
            field = torch.zeros_like(images[:, 0])
            for channel in torch.linspace(0, len(centre) - 1, count).round().long():
                (gradient,) = torch.autograd.grad(centre[channel], images, retain_graph=True)
                field += gradient.abs().mean(dim=1) / count
            found[block] = adaptive_avg_pool2d(finite(backbone, block, field), cells).flatten(1)
    return found


def moments_of(fields: np.ndarray) -> np.ndarray:
    """(…, 4) of flat maps (…, cells²): their mass, and their moments y, x and y² + x², in sides of the image."""
    cells = round(fields.shape[-1] ** 0.5)
    place = (np.arange(cells) + 0.5) / cells
    y, x = np.meshgrid(place, place, indexing="ij")
    return fields.astype(float) @ np.stack([np.ones_like(y), y, x, y**2 + x**2], axis=-1).reshape(-1, 4)


def radii(moments: np.ndarray) -> np.ndarray:
    """(…) root mean square distance from the centre of mass, of `moments` (…, 4); 0 where there is no mass."""
    mass, y, x, square = np.moveaxis(moments, -1, 0)
    mass = np.where(mass > 0, mass, 1)
    return np.sqrt(np.maximum(square / mass - (y / mass) ** 2 - (x / mass) ** 2, 0))
