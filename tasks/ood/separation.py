"""How well numbers tell known examples from unknown ones, at any weights of the examples: sorted once."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

KEPT = 0.95  # of the known, where FPR95 looks


class Told(NamedTuple):
    """(d,) each, in 0..1: AUROC; average precision with the known, and with the unknown, as positives; FPR95.

    FPR95: the share of the unknown that pass as known when the threshold lets at least 95 % of the known pass.
    Without any known or any unknown weight nothing can be told: 0.5, 0, 0, and 1.
    """

    auroc: np.ndarray
    aupr_in: np.ndarray
    aupr_out: np.ndarray
    fpr95: np.ndarray


class Separation:
    """Scores (d, n) of d detectors, higher for known; `known` (n,) bool; `of` (n,): places in the vector of weights."""

    def __init__(self, scores: np.ndarray, known: np.ndarray, of: np.ndarray):
        k, u = scores[:, known], scores[:, ~known]
        by_k, by_u = np.argsort(k, axis=1, kind="stable"), np.argsort(u, axis=1, kind="stable")  # least known first
        self._known, self._unknown = of[known][by_k], of[~known][by_u]
        k, u = np.take_along_axis(k, by_k, axis=1), np.take_along_axis(u, by_u, axis=1)
        # How many of either side score below, or at most as high as, each: equal scores stand or fall together.
        self._known_below, self._known_upto = _each(k, u, "left"), _each(k, u, "right")
        self._unknown_below, self._unknown_upto = _each(u, k, "left"), _each(u, u, "right")
        self._first = _each(k, k, "left")

    def __call__(self, weights: np.ndarray) -> Told:
        """All of `Told` at weights (N,) of all examples."""
        of_known, of_unknown = weights[self._known], weights[self._unknown]
        known, unknown = _cumulated(of_known), _cumulated(of_unknown)
        all_known, all_unknown = known[0, -1], unknown[0, -1]
        if not (all_known and all_unknown):
            return Told(*(np.full(len(known), nothing) for nothing in (0.5, 0.0, 0.0, 1.0)))
        # Average precision: thresholds from the surest of the positives, at each tie as a whole.
        passed, intruders = all_known - _at(known, self._first), all_unknown - _at(unknown, self._unknown_below)
        caught, lost = _at(unknown, self._unknown_upto), _at(known, self._known_upto)
        within, without = (a / np.maximum(a + b, 1e-12) for a, b in ((passed, intruders), (caught, lost)))
        # The lowest known score that cannot be rejected without losing more than 5 % of the known.
        last = (known[:, 1:] <= (1 - KEPT) * all_known * (1 + 1e-12)).sum(axis=1, keepdims=True)
        return Told(
            self._auroc(known, of_unknown),
            (of_known * within).sum(axis=1) / all_known,
            (of_unknown * without).sum(axis=1) / all_unknown,
            1 - _at(unknown, _at(self._unknown_below, last))[:, 0] / all_unknown,
        )

    def auroc(self, weights: np.ndarray) -> np.ndarray:
        """(d,) probability that a known example scores above an unknown one; a tie counts half, 0.5 without either."""
        known, of_unknown = _cumulated(weights[self._known]), weights[self._unknown]
        there = known[0, -1] and of_unknown[0].any()
        return self._auroc(known, of_unknown) if there else np.full(len(known), 0.5)

    def _auroc(self, known: np.ndarray, of_unknown: np.ndarray) -> np.ndarray:
        below = (_at(known, self._known_below) + _at(known, self._known_upto)) / 2
        return 1 - (of_unknown * below).sum(axis=1) / (known[0, -1] * of_unknown[0].sum())


def _each(of: np.ndarray, sought: np.ndarray, side: str) -> np.ndarray:
    """Row by row, how many of the sorted entries of `of` lie left of each of `sought`."""
    find: Callable = np.searchsorted
    return np.stack([find(row, values, side) for row, values in zip(of, sought, strict=True)])


def _at(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, places, axis=1)


def _cumulated(weights: np.ndarray) -> np.ndarray:
    """(d, n + 1) sums of the first 0, 1, …, n weights (d, n)."""
    return np.concatenate([np.zeros((len(weights), 1)), np.cumsum(weights, axis=1)], axis=1)
