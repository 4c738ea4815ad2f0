"""Scores with intervals: a metric is a function of example weights, the bootstrap is it at random weights."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Measure:
    """`scores(weights)` for weights (n,) ≥ 0, one an example; all ones gives the scores that are reported.

    `groups` (n,) names examples that stand or fall together (several pictures of one thing): they are resampled as one.
    """

    examples: int
    scores: Callable[[np.ndarray], dict[str, float]]
    groups: np.ndarray | None = None
    replicates: int = 1000


@dataclass(frozen=True)
class Estimate:
    """A score with its 95 % percentile bootstrap interval, in the unit of its metric."""

    value: float
    low: float
    high: float


def estimate(measure: Measure, seed: int = 0) -> dict[str, Estimate]:
    """Every score with its interval. Deterministic for a seed. Raises ValueError without examples."""
    if measure.examples == 0:
        raise ValueError("no examples to score")
    value = measure.scores(np.ones(measure.examples))
    drawn = replicate(measure, seed)
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    # A percentile interval of a skewed statistic may miss the value itself: never show such a one.
    return {
        name: Estimate(float(v), float(min(low[i], v)), float(max(high[i], v)))
        for i, (name, v) in enumerate(value.items())
    }


def replicate(measure: Measure, seed: int = 0) -> np.ndarray:
    """(replicates, scores): the scores at bootstrap weights; the same seed draws the same examples for any backbone."""
    rng = np.random.default_rng(seed)
    groups = measure.groups
    groups = np.arange(measure.examples) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(groups.max()) + 1
    rows = []
    for _ in range(measure.replicates):
        drawn = np.bincount(rng.integers(0, count, count), minlength=count)
        rows.append(list(measure.scores(drawn[groups].astype(float)).values()))
    return np.array(rows)
