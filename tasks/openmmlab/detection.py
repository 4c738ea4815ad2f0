"""The engine `mmdet`: its detectors trained on its own runner, frozen backbones or with them."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from ...backbones import Backbone, Letterbox
from ..context import Context
from ..datasets import Dataset, Split, rle
from ..detection.frame import scenes_of
from ..detection.recipe import DetectorRecipe
from ..detection.regions import Detections, image_size
from ..detection.scoring import validation_ap
from ..extraction import pixels_of
from ..training.choice import best_training
from ..training.loop import Trained
from ..training.scenes import Target
from . import models
from .gate import openmmlab
from .runner import train_on_runner


def detector(
    backbone: Backbone, data: Dataset, recipe: DetectorRecipe, context: Context, *, masks: bool
) -> tuple[Callable[[Split], list[Detections]], dict[str, Any]]:
    """What finds the objects of any split, trained at the rate that validation data chose, and what was chosen.

    Raises Diverged, NotApplicable, Unavailable.
    """
    scenes = scenes_of(backbone, data["train"], recipe, context, masks)
    letterbox = scenes.letterbox
    config = partial(models.detector, backbone, len(data.classes), letterbox.size, recipe, masks=masks)
    find = partial(detect, letterbox, recipe.micro_batch or recipe.batch, context)

    def score(model: Any) -> dict[str, float]:
        return validation_ap(find(model, data["val"]), data, masks)

    def at(rate: float) -> Trained:
        made_of = [data["val"].fingerprint, data.classes, masks]
        return train_on_runner(backbone, config, scenes, pack, rate, context, score, made_of)

    done, chosen = best_training(recipe.learning_rate, at, "val_ap")
    return partial(find, done.trainee.model), chosen


def pack(target: Target, side: int) -> Any:
    """A training target as mmdet takes it."""
    instances = openmmlab("mmengine.structures").InstanceData(bboxes=target["boxes"], labels=target["labels"])
    if "masks" in target:
        instances.masks = openmmlab("mmdet.structures.mask").BitmapMasks(target["masks"].numpy(), side, side)
    metainfo = {"img_shape": (side, side), "ori_shape": (side, side), "scale_factor": (1.0, 1.0)}
    sample = openmmlab("mmdet.structures").DetDataSample(metainfo=metainfo)
    sample.gt_instances = instances
    return sample


@torch.no_grad()
def detect(letterbox: Letterbox, batch: int, context: Context, model: Any, split: Split) -> list[Detections]:
    """What a model finds in each image of a split, in the image's own pixels."""
    DetDataSample = openmmlab("mmdet.structures").DetDataSample
    found: list[Detections] = []
    for rows in torch.arange(len(split)).split(batch):
        inputs, samples, sizes = [], [], [image_size(split, row, split.targets[row]) for row in rows.tolist()]
        for row, (height, width) in zip(rows.tolist(), sizes, strict=True):
            w, h = letterbox.inner(width, height)
            # mmdet pads an image itself, cuts boxes at its edges, and puts all into the image's own pixels.
            inputs.append(pixels_of(split.images, row, letterbox)[:, :h, :w])
            told = {"img_shape": (h, w), "ori_shape": (height, width), "scale_factor": (w / width, h / height)}
            samples.append(DetDataSample(metainfo=told))
        context.images += len(inputs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "To copy construct", UserWarning)  # mmdet's, of its own masks
            results = model.test_step({"inputs": inputs, "data_samples": samples})
        found += [_detections(one.pred_instances, size) for one, size in zip(results, sizes, strict=True)]
        context.progress("detecting", len(found), len(split))
    return found


def _detections(found: Any, size: tuple[int, int]) -> Detections:
    found = found[(found.bboxes[:, 2:] > found.bboxes[:, :2]).all(dim=1)]
    masks = rle.encode(found.masks.cpu().numpy()) if "masks" in found else None
    boxes, labels, scores = (found[name].cpu().numpy() for name in ("bboxes", "labels", "scores"))
    return Detections(boxes, labels, scores, size, masks)
