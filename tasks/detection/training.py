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
from ..training.choice import best_rate
from ..training.dense import DenseModel, maps_by_batch, train_dense
from ..training.dense_recipe import input_size
from ..training.loop import Trained
from ..training.plan import departures
from ..training.processes import rest_is_for_first
from ..training.scenes import Scenes
from .average_precision import summary
from .frame import boxed_target, boxes_in, detections_out, whole_target
from .heads import heads_of
from .pyramid import Levels
from .recipe import DetectorRecipe
from .regions import Detections, as_predictions, image_size
from .scoring import box_matches, mask_matches

MANY = 5000  # images: enough to tell how large objects are


def detector(
    backbone: Backbone, data: Dataset, recipe: DetectorRecipe, context: Context, *, masks: bool
) -> tuple[Callable[[Split], list[Detections]], dict[str, Any]]:
    """What finds the objects of any split, trained at the rate that validation data chose, and what was chosen.

    Raises Diverged, NotApplicable, Unavailable.
    """
    train, val = data["train"], data["val"]
    size = input_size(backbone, recipe.size)
    letterbox = Letterbox.of(backbone.input, size, backbone.loading.decoder)
    levels = Levels.of(boxes_seen(train, letterbox), recipe.cells)
    make = partial(heads_of, recipe, levels, len(data.classes), size, masks)
    whole, boxed = partial(whole_target, train, masks), partial(boxed_target, train, letterbox, masks)
    scenes = Scenes(train, letterbox, recipe, whole, boxed, context.seed)

    def score(model: DenseModel) -> dict[str, float]:
        found = as_predictions(detect(model, backbone, context, val), val, data.category_ids)
        matches = (mask_matches if masks else box_matches)(found, val, data)
        return {"val_ap": summary(matches, np.ones(len(val)))["ap"]}

    def at(rate: float) -> Trained:
        made_of = [val.fingerprint, data.classes, masks, torchvision.__version__]
        return train_dense(backbone, make, scenes, rate, context, score, made_of)

    best, chosen = best_rate(recipe.learning_rate, at, "val_ap", compare=False)
    done = at(best)  # or read back
    rest_is_for_first()
    return partial(detect, done.trainee.model, backbone, context), chosen | departures(done)


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
