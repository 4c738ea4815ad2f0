"""Semantic segmentation scores: pixels of predicted masks counted per image and class, summed, then divided.

Every pixel of the label counts, at the label's own resolution, but those of 255; a pixel on a boundary counts like any
other unless the data set labels boundaries 255, as PASCAL VOC and trimaps do.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ...backbones.errors import BadInput
from ..datasets import IGNORE, Split
from ..predictions import Predictions


@dataclass(frozen=True, eq=False)
class Counts:
    """Pixels (n, C) by image and class, ignored ones apart: `both` right, `truth` in the label, `found` predicted."""

    both: np.ndarray
    truth: np.ndarray
    found: np.ndarray

    def scores(self, weights: np.ndarray) -> dict[str, float]:
        """miou over the classes that occur in truth or prediction, pixel accuracy, mean accuracy over classes, percent.

        Weights (n,) count an image that many times; a resample without a labelled pixel scores 0.
        """
        both, truth, found = weights @ self.both, weights @ self.truth, weights @ self.found
        union = truth + found - both
        return {
            "miou": 100 * _mean_ratio(both, union),
            "pixel_accuracy": 100 * _mean_ratio(both.sum(keepdims=True), truth.sum(keepdims=True)),
            "mean_accuracy": 100 * _mean_ratio(both, truth),
        }


def count(predictions: Predictions, split: Split, classes: int) -> Counts:
    """Counts of stored masks against a split's own labels. Raises BadInput naming the row that is wrong."""
    pngs = predictions.get("mask")
    if pngs is None or len(pngs) != len(split):
        raise BadInput(f"predictions: 'mask' holds one PNG for each of the {len(split)} images")
    truths = (np.asarray(split.targets[row]) for row in range(len(split)))
    return counted(((truth, _mask(row, pngs[row], truth, classes)) for row, truth in enumerate(truths)), classes)


def counted(pairs: Iterable[tuple[np.ndarray, np.ndarray]], classes: int) -> Counts:
    """Counts of labels and masks (H, W) of one image after the other; pixels labelled 255 count nowhere."""
    found = []
    for truth, mask in pairs:
        scored = truth != IGNORE
        truth, mask = truth[scored], mask[scored]
        found.append([np.bincount(labels, minlength=classes) for labels in (truth[truth == mask], truth, mask)])
    return Counts(*np.array(found, np.int64).reshape(-1, 3, classes).transpose(1, 0, 2))


def validation_miou(masks: Iterable[np.ndarray], val: Split, classes: int) -> dict[str, float]:
    """`val_miou` in percent of the mask (H, W) of each validation image: a line of the curve."""
    labels = (np.asarray(val.targets[row]) for row in range(len(val)))
    counts = counted(zip(labels, masks, strict=True), classes)
    return {"val_miou": counts.scores(np.ones(len(val)))["miou"]}


def as_png(mask: np.ndarray) -> bytes:
    """An (H, W) uint8 mask as PNG."""
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


def from_png(png: bytes, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8. Raises ValueError unless it is a grey PNG of this size."""
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            if image.mode != "L" or image.size != size[::-1]:
                raise ValueError(f"a grey PNG of {size} (H, W) is needed, got {image.mode} of {image.size[::-1]}")
            return np.asarray(image)
    except (OSError, SyntaxError, TypeError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a PNG: {error}") from None


def _mask(row: int, png: bytes, truth: np.ndarray, classes: int) -> np.ndarray:
    try:
        mask = from_png(png, (truth.shape[0], truth.shape[1]))
    except ValueError as error:
        raise BadInput(f"predictions: row {row}: 'mask': {error}") from None
    if mask.max(initial=0) >= classes:
        raise BadInput(f"predictions: row {row}: 'mask': class {mask.max()}; classes go from 0 to {classes - 1}")
    return mask


def _mean_ratio(part: np.ndarray, whole: np.ndarray) -> float:
    occurs = whole > 0
    return float((part[occurs] / whole[occurs]).mean()) if occurs.any() else 0.0
