"""Whether observers get the same images wrong, and in the same way, beyond what their accuracies make likely.

Error consistency: Cohen's kappa of right and wrong (Geirhos et al. 2020). Distances between distributions of errors,
over classes and over pairs of classes: Tuli et al. 2021.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import rel_entr

from ..datasets.trials import NOT_ASKED

FARTHEST = float(np.sqrt(np.log(2)))  # between distributions that share nothing


@dataclass(frozen=True, eq=False)
class Panel:
    """What observers answered to the same images: `answers` (O, n) of `classes`, -1 no answer (which is wrong), -2 not
    asked; `labels` (n,). All below is at weights (n,) of the images; NaN where nothing can be told."""

    answers: np.ndarray
    labels: np.ndarray
    classes: int

    def kappas(self, weights: np.ndarray) -> np.ndarray:
        """(O, O) error consistency of every two on the images both were asked about; 1 where they never differ."""
        asked, right = self._asked * weights, self._right * weights
        common, both = asked @ self._asked.T, right @ self._right.T
        own = right @ self._asked.T  # of what both were asked, the row's observer has so much right
        differing = own + own.T - 2 * both
        with np.errstate(divide="ignore", invalid="ignore"):
            share = own / common
            expected = share * share.T + (1 - share) * (1 - share.T)
            kappa = 1 - differing / common / (1 - expected)
        return np.where(common > 0, np.where(differing <= 1e-12 * common, 1.0, kappa), np.nan)

    def accuracies(self, weights: np.ndarray) -> np.ndarray:
        """(O,) share that is right of what each was asked."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return (self._right @ weights) / (self._asked @ weights)

    def class_errors(self, weights: np.ndarray) -> np.ndarray:
        """(O, C) weight of the errors at each class."""
        return self._counted(weights, *self._errors, self.classes)

    def confusions(self, weights: np.ndarray) -> np.ndarray:
        """(O, K) weight of each wrong answer at each class, of the K pairs of the two that occur at all."""
        return self._counted(weights, *self._confusions)

    def _counted(
        self, weights: np.ndarray, observer: np.ndarray, image: np.ndarray, cell: np.ndarray, cells: int
    ) -> np.ndarray:
        count = len(self.answers)
        return np.bincount(observer * cells + cell, weights[image], count * cells).reshape(count, cells)

    @cached_property
    def _asked(self) -> np.ndarray:
        return (self.answers != NOT_ASKED).astype(float)

    @cached_property
    def _right(self) -> np.ndarray:
        return ((self.answers == self.labels) & (self.labels >= 0)).astype(float)

    @cached_property
    def _errors(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Observer, image and class of each error."""
        observer, image = np.nonzero((self._asked > self._right) & (self.labels >= 0))
        return observer, image, self.labels[image]

    @cached_property
    def _confusions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Observer and image of each error with an answer, which of the pairs of class and answer it is, how many."""
        observer, image, label = self._errors
        answer = self.answers[observer, image]
        given = answer >= 0
        pairs, pair = np.unique(label[given] * self.classes + answer[given], return_inverse=True)
        return observer[given], image[given], pair, len(pairs)


def js_distances(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """(…) square roots of the Jensen-Shannon divergence (nats) of weights p, q (…, C); NaN where one has no weight."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p, q = (x / x.sum(axis=-1, keepdims=True) for x in (p, q))
        middle = (p + q) / 2
        divergence = (rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=-1) / 2
    return np.sqrt(np.maximum(divergence, 0))


def mean(values: np.ndarray) -> float:
    """Of what can be told; NaN where nothing can."""
    told = values[np.isfinite(values)]
    return float(told.mean()) if told.size else float("nan")


def between(kappas: np.ndarray) -> float:
    """The mean of (O, O) kappas over pairs of two observers."""
    return mean(kappas[np.triu_indices(len(kappas), 1)])


def defined(tell: Callable[[np.ndarray], dict[str, float]], examples: int) -> Callable[[np.ndarray], dict[str, float]]:
    """Only those of the scores that can be told of all examples at once. A resample may draw none of those that decide
    one: it then says nothing against its value."""
    whole = {name: value for name, value in tell(np.ones(examples)).items() if np.isfinite(value)}

    def scores(weights: np.ndarray) -> dict[str, float]:
        found = tell(weights)
        return {name: float(found[name] if np.isfinite(found[name]) else value) for name, value in whole.items()}

    return scores
