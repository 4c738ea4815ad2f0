"""Accuracy of ranked class predictions: how classification tasks store what they predict, and score it."""

import numpy as np
from torch import Tensor

from ...backbones.errors import BadInput
from ..datasets import Split
from ..measure import Measure
from ..predictions import Predictions
from ..task import Scores, percent

ACCURACY = Scores(top1=percent, top5=percent, mean_per_class=percent)
KEPT = 5  # best classes an image in the predictions


def ranked(probabilities: Tensor, split: Split) -> Predictions:
    """Columns `id`, `classes` (n, k) best first and `probabilities` (n, k), from (n, C); lower class first."""
    best, classes = probabilities.sort(dim=1, descending=True, stable=True)
    return {
        "id": names(split),
        "classes": classes[:, :KEPT].numpy().astype(np.int32),
        "probabilities": best[:, :KEPT].numpy().astype(np.float32),
    }


def accuracy(predictions: Predictions, split: Split) -> Measure:
    """Top-1, top-5 and mean per-class accuracy (over classes that occur) of `ranked` predictions, in percent."""
    check_ids(predictions["id"], split)
    labels = np.asarray(split.targets)
    hits = predictions["classes"] == labels[:, None]
    right, among = hits[:, 0].astype(float), hits.any(axis=1).astype(float)
    _, classes = np.unique(labels, return_inverse=True)

    def scores(weights: np.ndarray) -> dict[str, float]:
        total = weights.sum()
        seen = np.bincount(classes, weights)
        per_class = np.bincount(classes, weights * right)[seen > 0] / seen[seen > 0]
        return {
            "top1": 100 * float(weights @ right / total),
            "top5": 100 * float(weights @ among / total),
            "mean_per_class": 100 * float(per_class.mean()),
        }

    return Measure(len(split), scores, split.groups)


def top1(probabilities: Tensor, labels: Tensor) -> float:
    """Share of rows (n, C) whose largest entry is at the label, in 0..1."""
    return float((probabilities.argmax(dim=1) == labels).double().mean())


def names(split: Split) -> np.ndarray:
    """An id an image: the split's own, or its position."""
    return np.array(split.ids if len(split.ids) else [str(i) for i in range(len(split))], dtype=object)


def check_ids(ids: np.ndarray, split: Split) -> None:
    """Raises BadInput unless predictions are of the images of this split, in its order."""
    expected = names(split)
    if len(ids) != len(expected):
        raise BadInput(
            f"predictions are for {len(ids)} images, the split has {len(expected)}; is it the same data set?"
        )
    if (wrong := np.flatnonzero(ids != expected)).size:
        row = wrong[0]
        raise BadInput(f"predictions row {row} is for image {ids[row]!r}, the split has {expected[row]!r} there")
