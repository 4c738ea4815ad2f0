"""Semantic segmentation on our own training loop: a head on feature maps, with the backbone or without."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...backbones import Backbone, Letterbox
from ...backbones.transform import FILTERS, as_pil, as_tensor
from ..context import Context
from ..datasets import IGNORE, Dataset, Split
from ..training.choice import best_training
from ..training.dense import DenseModel, maps_by_batch, train_dense
from ..training.dense_recipe import input_size
from ..training.loop import Trained
from ..training.processes import rest_is_for_first
from ..training.scenes import Scenes, Target
from .confusion import validation_miou
from .heads import segmenter_of
from .linear_head import upsample
from .recipe import SegmenterRecipe
from .sliding import slide

Segment = Callable[[Split], list[np.ndarray]]
"""(H, W) uint8 classes of each image of a split, in the image's own pixels."""


def segmenter(
    backbone: Backbone, data: Dataset, recipe: SegmenterRecipe, context: Context
) -> tuple[Segment, dict[str, Any]]:
    """What segments by the weights of the last epoch, and what validation data chose.

    The curve has mIoU on them, in percent. Raises BadInput, Diverged, NotApplicable, Unavailable.
    """
    val, classes = data["val"], len(data.classes)
    scenes = scenes_of(backbone, data["train"], recipe, context)
    make_head = partial(segmenter_of, recipe, scenes.letterbox.size, classes)

    def masks_by(model: DenseModel, split: Split) -> Iterator[np.ndarray]:
        if recipe.inference == "slide":
            return in_windows(model, split, recipe, classes, context)
        return at_once(model, backbone, split, recipe, context)

    def score(model: DenseModel) -> dict[str, float]:
        return validation_miou(masks_by(model, val), val, classes)

    def at(rate: float) -> Trained:
        made_of = [val.fingerprint, classes, version("transformers")]
        return train_dense(backbone, make_head, scenes, rate, context, score, made_of)

    done, chosen = best_training(recipe.learning_rate, at, "val_miou")
    rest_is_for_first()
    model = done.trainee.model

    def segment(split: Split) -> list[np.ndarray]:
        found: list[np.ndarray] = []
        for mask in masks_by(model, split):
            found.append(mask)
            context.progress("segmenting", len(found), len(split))
        return found

    return segment, chosen


def scenes_of(backbone: Backbone, split: Split, recipe: SegmenterRecipe, context: Context) -> Scenes:
    """The images of a split to be trained on, with their masks."""
    letterbox = Letterbox.of(backbone.input, input_size(backbone, recipe.size), backbone.loading.decoder)
    return Scenes(split, letterbox, recipe, partial(label, split), partial(letterboxed, split, letterbox), context.seed)


def label(split: Split, row: int) -> Target:
    """The mask of an image in its own pixels."""
    return {"mask": torch.tensor(np.asarray(split.targets[row]))}


def letterboxed(split: Split, letterbox: Letterbox, row: int) -> Target:
    """The mask as the letterboxed image shows it: the nearest pixel's class, the padding ignored."""
    mask = np.asarray(split.targets[row])
    height, width = mask.shape
    inner = letterbox.inner(width, height)
    if inner != (width, height):
        mask = np.asarray(Image.fromarray(mask).resize(inner, Image.Resampling.NEAREST))
    padding = ((0, letterbox.size - inner[1]), (0, letterbox.size - inner[0]))
    return {"mask": torch.from_numpy(np.pad(mask, padding, constant_values=IGNORE))}


@torch.no_grad()
def at_once(
    model: DenseModel, backbone: Backbone, split: Split, recipe: SegmenterRecipe, context: Context
) -> Iterator[np.ndarray]:
    """(H, W) uint8 classes of each image of a split, letterboxed as in training."""
    letterbox = model.letterbox
    for rows, maps in maps_by_batch(model, backbone, split, context):
        # A backbone's own batches may be large for a head that makes wide maps: as many at once as in training.
        parts = zip(*(m.split(recipe.micro_batch or recipe.batch) for m in maps), strict=True)
        scores = (one for part in parts for one in model.head(part))
        for row, one in zip(rows, scores, strict=True):
            height, width = split.targets[row].shape
            inner = letterbox.inner(width, height)
            seen = upsample(one[None], (letterbox.size, letterbox.size))
            yield _classes(seen[..., : inner[1], : inner[0]], height, width)


@torch.no_grad()
def in_windows(
    model: DenseModel, split: Split, recipe: SegmenterRecipe, classes: int, context: Context
) -> Iterator[np.ndarray]:
    """(H, W) uint8 classes of each image of a split, its shorter side of `size` pixels, by windows of size x size."""
    size = model.letterbox.size

    def scores_of(windows: Tensor) -> Tensor:
        context.images += len(windows)
        return upsample(model.head(model.maps_of(windows, context.device)), (size, size))

    for row in range(len(split)):
        height, width = split.targets[row].shape
        pixels = as_tensor(resized(as_pil(split.images[row]), model.letterbox)).to(context.device)
        batch = recipe.micro_batch or recipe.batch
        scores = slide(scores_of, pixels, classes, size, recipe.step(size), batch)
        yield _classes(scores[None], height, width)


def resized(image: Image.Image, letterbox: Letterbox) -> Image.Image:
    """An image with its shorter side of the letterbox's size, enlarged or shrunk by the letterbox's filter."""
    sides = [max(letterbox.size, round(side * letterbox.size / min(image.size))) for side in image.size]
    return image if sides == list(image.size) else image.resize((sides[0], sides[1]), FILTERS[letterbox.interpolation])


def _classes(scores: Tensor, height: int, width: int) -> np.ndarray:
    """The best class of each pixel of an image of this size; scores (1, classes, h, w)."""
    return upsample(scores, (height, width))[0].argmax(0).to(torch.uint8).cpu().numpy()
