"""The engine `mmseg`: its segmenters trained on its own runner, frozen backbones or with them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...backbones import Backbone, Letterbox
from ...backbones.transform import as_pil, as_tensor
from ..context import Context
from ..datasets import Dataset, Split
from ..extraction import pixels_of
from ..segmentation.confusion import validation_miou
from ..segmentation.recipe import SegmenterRecipe
from ..segmentation.training import resized, scenes_of
from ..training.choice import best_training
from ..training.loop import Trained
from ..training.scenes import Target
from . import models
from .gate import openmmlab
from .runner import train_on_runner


def segmenter(
    backbone: Backbone, data: Dataset, recipe: SegmenterRecipe, context: Context
) -> tuple[Callable[[Split], list[np.ndarray]], dict[str, Any]]:
    """What segments by the weights of the last epoch, and what validation data chose.

    The curve has mIoU on them, in percent. Raises BadInput, Diverged, NotApplicable, Unavailable.
    """
    val, classes = data["val"], len(data.classes)
    scenes = scenes_of(backbone, data["train"], recipe, context)
    config = partial(models.segmenter, backbone, classes, scenes.letterbox.size, recipe)
    segment = partial(segment_all, scenes.letterbox, recipe, context)

    def score(model: Any) -> dict[str, float]:
        return validation_miou(segment(model, val), val, classes)

    def at(rate: float) -> Trained:
        made_of = [val.fingerprint, classes]
        return train_on_runner(backbone, config, scenes, pack, rate, context, score, made_of)

    done, chosen = best_training(recipe.learning_rate, at, "val_miou")
    return partial(segment, done.trainee.model), chosen


def pack(target: Target, side: int) -> Any:
    """A training target as mmseg takes it."""
    return _sample((side, side), (side, side), target["mask"].long()[None])


@torch.no_grad()
def segment_all(
    letterbox: Letterbox, recipe: SegmenterRecipe, context: Context, model: Any, split: Split
) -> list[np.ndarray]:
    """(H, W) uint8 classes of each image of a split, in the image's own pixels."""
    found: list[np.ndarray] = []
    for row in range(len(split)):
        height, width = np.asarray(split.targets[row]).shape
        pixels = _pixels(split, row, (height, width), letterbox, recipe)
        sample = _sample((pixels.shape[1], pixels.shape[2]), (height, width))
        # mmseg pads an image itself, or slides over it, and puts classes into the image's own pixels.
        [seen] = model.test_step({"inputs": [pixels], "data_samples": [sample]})
        found.append(seen.pred_sem_seg.data[0].to(torch.uint8).cpu().numpy())
        context.images += 1
        context.progress("segmenting", len(found), len(split))
    return found


def _pixels(split: Split, row: int, size: tuple[int, int], letterbox: Letterbox, recipe: SegmenterRecipe) -> Tensor:
    """(3, h, w) uint8: the whole image with its longer side of the letterbox's size, to slide over its shorter side."""
    if recipe.inference == "slide":
        return as_tensor(resized(as_pil(split.images[row]), letterbox))
    width, height = letterbox.inner(size[1], size[0])
    return pixels_of(split.images, row, letterbox)[:, :height, :width]


def _sample(seen: tuple[int, int], own: tuple[int, int], label: Tensor | None = None) -> Any:
    """What mmseg is told of a picture: its size (H, W) as it is seen and its own, and classes (1, H, W)."""
    metainfo = {"img_shape": seen, "pad_shape": seen, "ori_shape": own}
    sample = openmmlab("mmseg.structures").SegDataSample(metainfo=metainfo)
    if label is not None:
        sample.gt_sem_seg = openmmlab("mmengine.structures").PixelData(data=label)
    return sample
