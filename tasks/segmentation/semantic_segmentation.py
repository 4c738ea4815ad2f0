"""Semantic segmentation: a linear classifier on frozen feature maps of all levels (as in DINOv2, arXiv 2304.07193)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ...backbones import Letterbox
from ..context import Context
from ..datasets import IGNORE, Split
from ..dense import DenseRecipe, batch_of, input_size, train_head
from ..measure import Measure
from ..task import Needs, Outcome, Scores, Task, percent
from .confusion import as_png, count
from .linear_head import LinearHead, upsample


class SemanticSegmentation(Task):
    """Mean IoU of the pixels' classes in each image's own resolution; the weights of the last epoch are reported."""

    name, family, version = "semantic-segmentation", "segmentation", 1
    needs = Needs(data="segmentation", splits=("train", "test"), maps=True)
    scores = Scores(miou=percent, pixel_accuracy=percent, mean_accuracy=percent)
    Recipe = DenseRecipe

    def run(self, backbone, data, recipe, context):
        size = input_size(backbone, recipe.size)
        letterbox = Letterbox.of(backbone.input, size)
        train, test = data["train"], data["test"]
        labels = [labels_in(np.asarray(mask), letterbox) for mask in train.targets]
        head = fit(context.maps(backbone, train, size), labels, len(data.classes), recipe, context)
        masks = predict(head, context.maps(backbone, test, size), test, letterbox, recipe.batch, context)
        column = np.empty(len(masks), dtype=object)
        column[:] = [as_png(mask) for mask in masks]
        return Outcome({"image": np.arange(len(masks), dtype=np.int32), "mask": column})

    def measure(self, predictions, data):
        test = data["test"]
        counts = count(predictions, test, len(data.classes))
        return Measure(len(test), counts.scores, groups=test.groups)


def fit(
    maps: Sequence[Tensor], labels: Sequence[Tensor], classes: int, recipe: DenseRecipe, context: Context
) -> LinearHead:
    """The head after the last epoch, by cross-entropy at label resolution. RuntimeError when the loss is no number."""

    def loss_of(rows: Tensor) -> Tensor:
        target = torch.stack([labels[i] for i in rows.tolist()]).to(context.device).long()
        scores = upsample(head(batch_of(maps, rows, context)), target.shape[1:])
        # Summed and divided by hand: a batch that is all ignored has no mean.
        loss = F.cross_entropy(scores, target, ignore_index=IGNORE, reduction="sum")
        return loss / (target != IGNORE).sum().clamp(min=1)

    with torch.random.fork_rng():
        torch.manual_seed(context.seed)
        head = LinearHead([m.shape[1] for m in maps], classes).to(context.device)
    train_head(head, len(labels), loss_of, recipe, context)
    return head


@torch.no_grad()
def predict(
    head: LinearHead, maps: Sequence[Tensor], split: Split, letterbox: Letterbox, batch: int, context: Context
) -> list[np.ndarray]:
    """(H, W) uint8 classes of each image, in its own pixels."""
    found: list[np.ndarray] = []
    for rows in torch.arange(len(split)).split(batch):
        scores = upsample(head(batch_of(maps, rows, context)), (letterbox.size, letterbox.size))
        for index, one in zip(rows.tolist(), scores, strict=True):
            height, width = split.targets[index].shape
            inner = letterbox.inner(width, height)
            whole = upsample(one[None, :, : inner[1], : inner[0]], (height, width))
            found.append(whole[0].argmax(0).to(torch.uint8).cpu().numpy())
        context.progress("segmenting", len(found), len(split))
    return found


def labels_in(mask: np.ndarray, letterbox: Letterbox) -> Tensor:
    """(side, side) uint8: a mask as the letterboxed image shows it, the padding ignored."""
    height, width = mask.shape
    inner = letterbox.inner(width, height)
    if inner != (width, height):
        mask = np.asarray(Image.fromarray(mask).resize(inner, Image.Resampling.NEAREST))
    padding = ((0, letterbox.size - inner[1]), (0, letterbox.size - inner[0]))
    return torch.from_numpy(np.pad(mask, padding, constant_values=IGNORE))
