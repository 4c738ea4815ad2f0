"""What a shift of distribution costs: the mean score over all `shift:` splits, beside that of the clean test split.

Mean over shifts and relative drop as in ImageNet-C (Hendrycks and Dietterich 2019), without its severities.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ...backbones.errors import BadInput
from ..datasets import Dataset, Split
from ..measure import Measure
from ..predictions import Predictions
from ..task import Metric, Scores, percent
from .splits import apart, group_of_each, split_of_each

ScoreOf = Callable[[Predictions, Split], Callable[[np.ndarray], float]]
"""Predictions of a split → its score in percent at the weights (n,) of its images."""


def shift_scores(metric: str) -> dict[str, Metric]:
    """The scores of a task that reports this one, in percent, under shift."""
    drop = Metric("%", -100.0, 100.0, higher_is_better=False)
    return Scores(**{f"shift_{metric}": percent, f"clean_{metric}": percent, "relative_drop": drop})


def reported(data: Dataset) -> list[str]:
    """The clean test split, then every shifted one."""
    return ["test", *(name for name in data.split_names if name.startswith("shift:"))]


def reported_splits(data: Dataset) -> dict[str, Split]:
    """Those by name. Where the ids of one are text, those of all are: a column holds either text or numbers."""
    splits = {name: data[name] for name in reported(data)}
    if not any(isinstance(id, str) for split in splits.values() for id in split.ids):
        return splits
    ids = {name: split.ids if len(split.ids) else range(len(split)) for name, split in splits.items()}
    return {name: replace(split, ids=[str(id) for id in ids[name]]) for name, split in splits.items()}


def under_shift(metric: str, values: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    """The scores, of percentages (s,) by split, the clean one first; where a resample has `seen` (s,) nothing of a
    shift, that one does not count."""
    clean, shifted = values[0], values[1:][seen[1:] > 0].mean() if seen[1:].any() else 0.0
    # The drop of what is always wrong is none; a gain beyond 100 % of the clean score is cut off.
    drop = 100 * (clean - shifted) / clean if clean > 0 else 0.0
    return {
        f"shift_{metric}": float(shifted),
        f"clean_{metric}": float(clean),
        "relative_drop": float(max(drop, -100)),
    }


def measured(metric: str, predictions: Predictions, data: Dataset, score_of: ScoreOf) -> Measure:
    """The measure of `together` predictions over the images of all `reported` splits, one split after the other.

    Raises BadInput naming the split, and what `score_of` says of it.
    """
    splits, of_split = reported_splits(data), []
    for name, part in apart(predictions, list(splits)).items():
        try:
            of_split.append(score_of(part, splits[name]))
        except BadInput as error:
            raise BadInput(f"split {name}: {error}") from None
    split = split_of_each(data, list(splits))
    edges = np.flatnonzero(np.diff(split)) + 1

    def scores(weights: np.ndarray) -> dict[str, float]:
        values = [score(each) for score, each in zip(of_split, np.split(weights, edges), strict=True)]
        return under_shift(metric, np.array(values), np.bincount(split, weights))

    return Measure(len(split), scores, group_of_each(data, list(splits)))
