"""Minibatches of test images for analyses that look inside a network: drawn by the seed, the same for any backbone."""

from collections.abc import Iterator

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ...backbones import Backbone
from ...backbones.errors import BadInput, NotApplicable
from ..context import Context
from ..datasets import Split
from ..task import TaskRecipe


class AnalysisRecipe(TaskRecipe):
    """`images`: test images that are looked at, or all where there are fewer; `minibatch`: how many at a time."""

    images: int = Field(default=256, ge=1)
    minibatch: int = Field(default=16, ge=1)


def drawn(split: Split, recipe: AnalysisRecipe, seed: int, least: int = 1) -> list[np.ndarray]:
    """Positions of the images of each minibatch that has `least`. Raises NotApplicable where none has."""
    images = np.random.default_rng(seed).permutation(len(split))[: recipe.images]
    batches = [images[start : start + recipe.minibatch] for start in range(0, len(images), recipe.minibatch)]
    if not (large := [rows for rows in batches if len(rows) >= least]):
        raise NotApplicable(f"{split.name or 'the split'} has {len(images)} images; at least {least} are needed")
    return large


def passed(
    backbone: Backbone, split: Split, batches: list[np.ndarray], context: Context, what: str
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """(positions, images ready for the backbone on the device) of each minibatch, while progress is shown."""
    backbone.to(context.device).eval()
    for done, rows in enumerate(batches):
        pixels = torch.stack([backbone.transform.pixels(split.images[int(i)]) for i in rows])
        yield rows, backbone.transform.normalise(pixels.to(context.device))
        context.images += len(rows)
        context.progress(f"{what} of {backbone.name}", done + 1, len(batches))


def finite(backbone: Backbone, layer: str, values: Tensor) -> Tensor:
    """The values. Raises BadInput where one is not a finite number."""
    if not values.isfinite().all():
        told = "is not finite; its weights, or the mean and std on its card, are wrong"
        raise BadInput(f"{backbone.name}: the output of {layer!r} {told}")
    return values
