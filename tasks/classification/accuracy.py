"""Accuracy and calibration of class probabilities: how classification tasks store what they predict, and score it.

Calibration error: Naeini et al. 2015, over equal-width bins of the top probability as Guo et al. 2017. Brier score: the
sum over classes (Brier 1950), so it lies in 0…2. The log of a probability is cut off where float32's precision ends.
"""

import numpy as np
from torch import Tensor

from ...backbones.errors import BadInput
from ..datasets import Split
from ..measure import Measure
from ..predictions import Predictions
from ..task import Metric, Scores, percent, percent_error

ACCURACY = Scores(
    top1=percent,
    top5=percent,
    mean_per_class=percent,
    real_top1=percent,
    ece=percent_error,
    nll=Metric("nats", 0.0, 100.0, higher_is_better=False),
    brier=Metric("", 0.0, 2.0, higher_is_better=False),
)
KEPT = 5  # best classes an image in the predictions
BINS = 15
LEAST = float(np.finfo(np.float32).eps)
ROUNDING = 1e-5


def ranked(probabilities: Tensor, split: Split) -> Predictions:
    """Columns of (n, C) probabilities of the images of a split, all that `accuracy` needs.

    `id`; `classes` (n, k) best first, of equals the lower class, and their `probabilities` (n, k);
    `label_probability` (n,) of the image's own class, 0 where it has none; `square_sum` (n,) over all classes.
    """
    best, classes = probabilities.sort(dim=1, descending=True, stable=True)
    labels, of = np.asarray(split.targets), probabilities.numpy()
    own = np.where(labels >= 0, np.take_along_axis(of, np.maximum(labels, 0)[:, None], axis=1)[:, 0], 0)
    return {
        "id": names(split),
        "classes": classes[:, :KEPT].numpy().astype(np.int32),
        "probabilities": best[:, :KEPT].numpy().astype(np.float32),
        "label_probability": own.astype(np.float32),
        "square_sum": np.square(of).sum(axis=1).astype(np.float32),
    }


def accuracy(predictions: Predictions, split: Split) -> Measure:
    """Scores of `ranked` predictions. Raises BadInput for those of other images, or that contradict themselves.

    Top-1, top-5, mean per-class accuracy (over classes that occur) and calibration error in percent; negative log
    likelihood and Brier score, of the images that have one of the classes. Where the split tells which classes are
    accepted, top-1 against these (ReaL, Beyer et al. 2020), of the images that have any.
    """
    check_ids(predictions["id"], split)
    check_probabilities(predictions, split)
    labels = np.asarray(split.targets)
    hits = predictions["classes"] == labels[:, None]
    right, known = hits[:, 0].astype(float), (labels >= 0).astype(float)
    top = predictions["probabilities"][:, 0].astype(float)
    bins = np.clip(np.ceil(top * BINS).astype(int) - 1, 0, BINS - 1)
    own, squares = predictions["label_probability"].astype(float), predictions["square_sum"].astype(float)
    each = {  # of an image, and which images count
        "top1": (100 * right, np.ones(len(split))),
        "top5": (100.0 * hits.any(axis=1), np.ones(len(split))),
        "nll": (-np.log(np.maximum(own, LEAST)), known),
        "brier": (squares - 2 * own + 1, known),
    }
    if split.accepted is not None:
        accepted = [
            100.0 * (best in right) for best, right in zip(predictions["classes"][:, 0], split.accepted, strict=True)
        ]
        each["real_top1"] = np.array(accepted), np.array([len(right) > 0 for right in split.accepted], float)
    each = {name: (values * counts, counts) for name, (values, counts) in each.items() if counts.any()}
    sums, counts = np.stack([s for s, _ in each.values()]), np.stack([c for _, c in each.values()])
    classes, confidence = np.unique(labels, return_inverse=True)[1], top - right

    def scores(weights: np.ndarray) -> dict[str, float]:
        seen = np.bincount(classes, weights)
        per_class = np.bincount(classes, weights * right)[seen > 0] / seen[seen > 0]
        gaps = np.abs(np.bincount(bins, weights * confidence, BINS))
        # A replicate that draws no image of those that count: nothing can be told, which scores nothing.
        means = (sums @ weights) / np.maximum(counts @ weights, 1e-12)
        found = dict(zip(each, means.tolist(), strict=True))
        found |= {"mean_per_class": 100 * float(per_class.mean()), "ece": 100 * float(gaps.sum() / weights.sum())}
        return {name: found[name] for name in ACCURACY if name in found}

    return Measure(
        len(split), scores, split.groups, right=hits[:, 0], answers=predictions["classes"][:, 0], labels=labels
    )


def check_probabilities(predictions: Predictions, split: Split) -> None:
    """Raises BadInput where stored probabilities cannot be those of one distribution over the classes."""
    kept, own, squares = (predictions[n].astype(float) for n in ("probabilities", "label_probability", "square_sum"))
    labels = np.asarray(split.targets)
    hits = predictions["classes"] == labels[:, None]
    rest, least = np.maximum(1 - kept.sum(axis=1), 0), kept[:, -1]
    among = (kept * hits).sum(axis=1)
    beyond = squares - np.square(kept).sum(axis=1)  # Σ p² of the classes that are not kept: each ≤ least, sum rest
    sound = {
        "probabilities": np.isfinite(kept).all(axis=1)
        & (kept >= 0).all(axis=1)
        & (kept.sum(axis=1) <= 1 + ROUNDING)
        & (np.diff(kept, axis=1) <= 0).all(axis=1),
        "label_probability": np.where(
            hits.any(axis=1),
            np.abs(own - among) <= ROUNDING,
            (own >= 0) & (own <= np.minimum(rest, least) + ROUNDING) & ((labels >= 0) | (own == 0)),
        ),
        "square_sum": (beyond >= np.where(hits.any(axis=1), 0, own**2) - ROUNDING)
        & (beyond <= rest * least + ROUNDING),
    }
    for column, fine in sound.items():
        if (wrong := np.flatnonzero(~fine)).size:
            raise BadInput(
                f"predictions row {wrong[0]}: {column} cannot be that of one distribution over the classes; "
                "run the task again"
            )


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
