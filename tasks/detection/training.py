"""The engine `torchvision`: detection heads trained on a backbone's feature maps, frozen or with the backbone."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torchvision

from ...backbones import Backbone, Letterbox
from ..context import Context
from ..datasets import Dataset, Split
from ..training.choice import best_training
from ..training.dense import DenseModel, maps_by_batch, train_dense
from ..training.loop import Trained
from ..training.processes import rest_is_for_first
from .frame import boxes_in, detections_out, scenes_of
from .heads import heads_of
from .pyramid import Levels
from .recipe import DetectorRecipe
from .regions import Detections, image_size
from .scoring import validation_ap

MANY = 5000  # images: enough to tell how large objects are


def detector(
    backbone: Backbone, data: Dataset, recipe: DetectorRecipe, context: Context, *, masks: bool
) -> tuple[Callable[[Split], list[Detections]], dict[str, Any]]:
    """What finds the objects of any split, trained at the rate that validation data chose, and what was chosen.

    Raises Diverged, NotApplicable, Unavailable.
    """
    scenes = scenes_of(backbone, data["train"], recipe, context, masks)
    levels = Levels.of(boxes_seen(scenes.split, scenes.letterbox), recipe.cells)
    make = partial(heads_of, recipe, levels, len(data.classes), scenes.letterbox.size, masks)

    def score(model: DenseModel) -> dict[str, float]:
        return validation_ap(detect(model, backbone, context, data["val"]), data, masks)

    def at(rate: float) -> Trained:
        made_of = [data["val"].fingerprint, data.classes, masks, torchvision.__version__]
        return train_dense(backbone, make, scenes, rate, context, score, made_of)

    done, chosen = best_training(recipe.learning_rate, at, "val_ap")
    rest_is_for_first()
    return partial(detect, done.trainee.model, backbone, context), chosen


@torch.no_grad()
def detect(model: DenseModel, backbone: Backbone, context: Context, split: Split) -> list[Detections]:
    """What a model finds in each image of a split, in the image's own pixels."""
    found: list[Detections] = []
    for rows, maps in maps_by_batch(model, backbone, split, context):
        for row, one in zip(rows, model.head.detect(maps), strict=True):
            found.append(detections_out(one, image_size(split, row, split.targets[row]), model.letterbox))
        context.progress("detecting", len(found), len(split))
    return found


def boxes_seen(split: Split, letterbox: Letterbox) -> np.ndarray:
    """(n, 4) boxes of the images of a split, or of many of them, in letterboxed pixels."""
    rows = np.unique(np.linspace(0, len(split) - 1, min(len(split), MANY)).astype(int)).tolist()
    targets = [(row, split.targets[row]) for row in rows]
    return np.concatenate([boxes_in(objects, image_size(split, row, objects), letterbox) for row, objects in targets])
