"""How well one number tells known examples from unknown ones, at any weights of the examples: sorted once."""

import numpy as np


class Separation:
    """Scores (n,), higher for known; `known` (n,) bool; `of` (n,): where each stands in the vector of weights."""

    def __init__(self, scores: np.ndarray, known: np.ndarray, of: np.ndarray):
        order = np.argsort(scores, kind="stable")  # the least known first
        self._known, self._of = known[order], of[order]
        _, self._starts = np.unique(scores[order], return_index=True)  # equal scores stand or fall together

    def __call__(self, weights: np.ndarray) -> tuple[float, float, float]:
        """AUROC, AUPR of the unknown, and FPR95, in 0..1.

        FPR95: the share of the unknown that pass as known when the threshold lets at least 95 % of the known pass.
        Without any known or any unknown weight nothing can be told: AUROC 0.5, AUPR 0, FPR95 1.
        """
        known, unknown = self._cumulated(weights)
        if not (known[-1] and unknown[-1]):
            return 0.5, 0.0, 1.0
        # Average precision: thresholds from the least known upwards, at each tie as a whole.
        found = np.diff(unknown, prepend=0.0)
        precision = unknown / np.maximum(unknown + known, 1e-12)
        # The highest threshold that rejects at most 5 % of the known rejects unknown[last] of the unknown.
        rejected = np.flatnonzero(known <= 0.05 * known[-1] * (1 + 1e-12))
        passed = 1 - (unknown[rejected[-1]] / unknown[-1] if len(rejected) else 0.0)
        return _auroc(known, unknown), float(found @ precision / unknown[-1]), float(passed)

    def auroc(self, weights: np.ndarray) -> float:
        """Probability that a known example scores above an unknown one, a tie counting half; 0.5 without either."""
        known, unknown = self._cumulated(weights)
        return _auroc(known, unknown) if known[-1] and unknown[-1] else 0.5

    def _cumulated(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight of the known, and of the unknown, at or below each distinct score."""
        ordered = weights[self._of]
        known = np.add.reduceat(ordered * self._known, self._starts)
        return np.cumsum(known), np.cumsum(np.add.reduceat(ordered, self._starts) - known)


def _auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    below = unknown - np.diff(unknown, prepend=0.0) / 2
    return float(np.diff(known, prepend=0.0) @ below / (known[-1] * unknown[-1]))
