"""Scores with intervals: a metric is a function of example weights, the bootstrap is it at random weights."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Measure:
    """`scores(weights)` for weights (n,) ≥ 0, one an example; all ones gives the scores that are reported.

    `groups` (n,) names examples that stand or fall together (several pictures of one thing): they are resampled as one.
    `trials` (n,) names the repetition an example belongs to, where all was done several times over (few-shot draws):
    resampled as wholes too, crossed with the groups, so that an interval holds luck in both.
    `answers`, `labels` (n,): the class that was answered and the right one, where examples have one each; what two
    backbones get wrong alike is told by these.
    `right` (n,) bool, where the headline is the share of examples that are: a paired test may count them.
    """

    examples: int
    scores: Callable[[np.ndarray], dict[str, float]]
    groups: np.ndarray | None = None
    trials: np.ndarray | None = None
    right: np.ndarray | None = None
    answers: np.ndarray | None = None
    labels: np.ndarray | None = None
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
    """(replicates, scores): the scores at bootstrap weights; the same seed draws the same examples for any backbone.

    With trials it is the pigeonhole bootstrap (Owen 2007): groups and trials are drawn apart, their weights multiplied.
    """
    rng = np.random.default_rng(seed)
    count, group = _positions(measure.groups, measure.examples)
    trials, trial = (1, None) if measure.trials is None else _positions(measure.trials, measure.examples)
    rows = []
    for _ in range(measure.replicates):
        weights = _drawn(rng, count, count)[group]
        if trial is not None:
            # Of a handful, one less is drawn than there are: that makes the variance unbiased (Rao and Wu 1988).
            weights = weights * _drawn(rng, trials, max(1, trials - 1))[trial]
        rows.append(list(measure.scores(weights).values()))
    return np.array(rows)


def _positions(names: np.ndarray | None, examples: int) -> tuple[int, np.ndarray | slice]:
    """How many different names there are, and which of them each example has; without names each has its own."""
    if names is None:
        return examples, slice(None)
    different, positions = np.unique(names, return_inverse=True)
    return len(different), positions


def _drawn(rng: np.random.Generator, count: int, draws: int) -> np.ndarray:
    """(count,) how often each of `count` came up in `draws` draws with replacement."""
    return np.bincount(rng.integers(0, count, draws), minlength=count).astype(float)
