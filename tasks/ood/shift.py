"""What a shift of distribution costs: the score of each `shift:` split, and their mean, beside the clean test split's.

Mean over shifts and relative drop as in ImageNet-C (Hendrycks and Dietterich 2019), without its severities.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...backbones.errors import BadInput
from ..datasets import Dataset, Split
from ..measure import Measure
from ..predictions import Predictions
from ..task import Metric, Scores, percent
from .splits import apart, group_of_each, split_of_each

ScoreOf = Callable[[Predictions, Split], Callable[[np.ndarray], float]]
"""Predictions of a split → its score in percent at the weights (n,) of its images."""


def shift_scores(metric: str, own: bool = False) -> dict[str, Metric]:
    """The scores of a task that reports this one, in percent, under shift: `METRIC:NAME` of each shift, and
    `clean_METRIC:NAME` where a shift may have a clean counterpart of its `own`."""
    drop = Metric("%", -100.0, 100.0, higher_is_better=False)
    means = {f"shift_{metric}": percent, f"clean_{metric}": percent, "relative_drop": drop}
    return Scores(**means, **{f"{metric}:*": percent}, **({f"clean_{metric}:*": percent} if own else {}))


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


@dataclass(frozen=True)
class Shift:
    """One shift at some weights of the examples: its score, that of its clean counterpart, whether anything of it was
    seen, and whether the counterpart is its own and not the clean test split."""

    name: str
    value: float
    clean: float
    seen: bool = True
    own: bool = False


def under_shift(metric: str, clean: float, shifts: Sequence[Shift]) -> dict[str, float]:
    """The scores, of percentages; where a resample has nothing of a shift, that one does not count in the means.

    The relative drop is of the means over shifts, each beside its own counterpart.
    """
    counted = [shift for shift in shifts if shift.seen]
    shifted = float(np.mean([shift.value for shift in counted])) if counted else 0.0
    before = float(np.mean([shift.clean for shift in counted])) if counted else clean
    # The drop of what is always wrong is none; a gain beyond 100 % of the clean score is cut off.
    drop = 100 * (before - shifted) / before if before > 0 else 0.0
    found = {f"shift_{metric}": shifted, f"clean_{metric}": float(clean), "relative_drop": max(drop, -100.0)}
    found |= {f"{metric}:{shift.name}": float(shift.value) for shift in shifts}
    return found | {f"clean_{metric}:{shift.name}": float(shift.clean) for shift in shifts if shift.own}


def short(split: str) -> str:
    """What a shift is called in scores: `blur` of `shift:blur`."""
    return split.partition(":")[2]


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
    names = list(splits)

    def scores(weights: np.ndarray) -> dict[str, float]:
        values = [score(each) for score, each in zip(of_split, np.split(weights, edges), strict=True)]
        clean, seen = values[0], np.bincount(split, weights, len(values)) > 0
        shifts = [
            Shift(short(name), *what) for name, *what in zip(names, values, [clean] * len(values), seen, strict=True)
        ]
        return under_shift(metric, clean, shifts[1:])

    return Measure(len(split), scores, group_of_each(data, list(splits)))
