"""Train detection heads on banked feature maps, and run them."""

import numpy as np
import torch

from ...backbones import Backbone, Letterbox
from ..context import Context
from ..datasets import Split
from ..dense import batch_of, input_size, train_head
from .frame import boxes_in, detections_out, image_sizes, targets_in
from .heads import DetectorRecipe, Heads
from .pyramid import Levels
from .regions import Detections


def train(
    backbone: Backbone, split: Split, classes: int, recipe: DetectorRecipe, context: Context, *, masks: bool
) -> Heads:
    """Heads after the last epoch; nothing is selected. Raises RuntimeError when the loss is no longer a number."""
    size = input_size(backbone, recipe.size)
    letterbox = Letterbox.of(backbone.input, size)
    maps = context.maps(backbone, split, size)
    sizes = image_sizes(split)
    boxes = [boxes_in(objects, hw, letterbox) for objects, hw in zip(split.targets, sizes, strict=True)]
    shapes = [(m.shape[1], m.shape[3]) for m in maps]

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        targets = [targets_in(split.targets[i], sizes[i], letterbox, masks) for i in rows.tolist()]
        targets = [{name: tensor.to(context.device) for name, tensor in t.items()} for t in targets]
        return torch.stack(list(heads.losses(batch_of(maps, rows, context), targets).values())).sum()

    with torch.random.fork_rng():
        torch.manual_seed(context.seed)  # initial weights, and the regions that torchvision samples
        heads = Heads(shapes, size, Levels.of(np.concatenate(boxes)), classes, recipe, masks).to(context.device)
        train_head(heads, len(split), loss_of, recipe, context)
    return heads


@torch.no_grad()
def detect(
    heads: Heads, backbone: Backbone, split: Split, recipe: DetectorRecipe, context: Context
) -> list[Detections]:
    """What the heads find in each image of a split, in the image's own pixels."""
    letterbox = Letterbox.of(backbone.input, heads.size)
    maps = context.maps(backbone, split, heads.size)
    sizes = image_sizes(split)
    found: list[Detections] = []
    for rows in torch.arange(len(split)).split(recipe.batch):
        for index, one in zip(rows.tolist(), heads.detect(batch_of(maps, rows, context)), strict=True):
            found.append(detections_out(one, sizes[index], letterbox))
        context.progress("detecting", len(found), len(split))
    return found
