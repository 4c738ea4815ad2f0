"""Selective classification: what a linear probe's error is where it may abstain from what it is least sure of.

Images are answered by falling maximum softmax probability; the risk-coverage curve and its area as Geifman and El-Yaniv
2017, the excess over the best order of the same answers as Geifman et al. 2019. Equal confidences come in random
order: scores are its expectation. Thresholds are read off the curve itself: they describe it, and promise nothing.
"""

import numpy as np
from scipy.special import digamma

from ..measure import Measure
from ..pictures import COLOURS, canvas
from ..task import Needs, Outcome, Scores, Task, percent, percent_error
from .accuracy import check_ids, check_probabilities, ranked
from .calibration import confidence
from .linear_probe import LinearProbeRecipe, chosen_probe

ERRORS, COVERAGES = (1, 5), (80, 90)  # percent


class Selective(Task):
    """Area under the risk-coverage curve, coverage where at most so much is wrong, accuracy at a coverage."""

    name, family, version = "selective", "classification", 1
    needs = Needs(data="classification")
    scores = Scores(
        aurc=percent_error,
        excess_aurc=percent_error,
        **{f"coverage_at_error_{error}": percent for error in ERRORS},
        **{f"accuracy_at_coverage_{coverage}": percent for coverage in COVERAGES},
    )
    Recipe = LinearProbeRecipe

    def run(self, backbone, data, recipe, context):
        probe, chosen = chosen_probe(backbone, data, recipe, context)
        test = data["test"]
        return Outcome(ranked(probe.probabilities(context.embeddings(backbone, test)), test), chosen)

    def measure(self, predictions, data):
        test = data["test"]
        check_ids(predictions["id"], test)
        check_probabilities(predictions, test)
        answers = Answers(*confidence(predictions, test))

        def scores(weights: np.ndarray) -> dict[str, float]:
            curve = answers.at(weights)
            area = curve.area()
            found = {"aurc": area, "excess_aurc": max(area - curve.least_area(), 0.0)}
            found |= {f"coverage_at_error_{error}": curve.coverage(error / 100) for error in ERRORS}
            found |= {f"accuracy_at_coverage_{share}": 1 - curve.risk(share / 100) for share in COVERAGES}
            return {name: 100 * value for name, value in found.items()}

        return Measure(len(test), scores, test.groups)

    def picture(self, predictions, data):
        curve = Answers(*confidence(predictions, data["test"])).at(np.ones(len(data["test"])))
        shares = np.linspace(0.02, 1, 197)
        figure, (axes,) = canvas(size=(5.6, 3.8))
        risks = [100 * curve.risk(share) for share in shares]
        best = np.maximum(0, 1 - (1 - curve.risk(1.0)) / shares)
        axes.fill_between(100 * shares, 100 * best, risks, color=COLOURS[0], alpha=0.12, linewidth=0)
        axes.plot(100 * shares, risks, color=COLOURS[0], label=f"by confidence, area {100 * curve.area():.2f} %")
        label = f"best order, area {100 * curve.least_area():.2f} %"
        axes.plot(100 * shares, 100 * best, color=COLOURS[2], linestyle="--", label=label)
        axes.axhline(100 * curve.risk(1.0), color="0.6", linestyle=":", label="in random order")
        axes.set(xlim=(0, 100), ylim=(0, None), xlabel="coverage: answered images in %", ylabel="wrong answers in %")
        axes.set(title="Risk by coverage")
        axes.legend(loc="best")
        return figure


class Answers:
    """Confidences (n,) and whether each answer is right (n,), the surest first; equal ones together."""

    def __init__(self, top: np.ndarray, right: np.ndarray):
        self._group = np.unique(-top, return_inverse=True)[1]
        self._wrong = 1.0 - right

    def at(self, weights: np.ndarray) -> "Curve":
        """The curve at weights (n,) of the images: a weight of two is two images."""
        return Curve(np.bincount(self._group, weights), np.bincount(self._group, weights * self._wrong))


class Curve:
    """Images, and errors among them, of each distinct confidence, the highest first. Shares are in 0..1."""

    def __init__(self, images: np.ndarray, errors: np.ndarray):
        self.images, self.errors = images, errors
        self.answered, self.wrong = (np.concatenate([[0.0], np.cumsum(of)]) for of in (images, errors))

    def risk(self, coverage: float) -> float:
        """Share of wrong answers among the surest, that many of all."""
        answered = coverage * self.answered[-1]
        return float(np.interp(answered, self.answered, self.wrong) / answered)

    def coverage(self, risk: float) -> float:
        """The largest share that some threshold lets through with at most this share of it wrong; 0 where none does."""
        fine = self.wrong <= risk * self.answered * (1 + 1e-12)
        return float(self.answered[fine].max() / self.answered[-1])

    def area(self) -> float:
        """The mean risk over coverages of 1, 2, … of the images."""
        # The j-th of m equally sure images, e of them wrong, after N with E wrong: (E + e j / m) / (N + j), summed.
        before, wrong = self.answered[:-1], self.wrong[:-1]
        rate = np.divide(self.errors, self.images, out=np.zeros_like(self.images), where=self.images > 0)
        parts = self.errors + (wrong - rate * before) * harmonic(before, self.answered[1:])
        return float(parts.sum() / self.answered[-1])

    def least_area(self) -> float:
        """The area if all that is wrong came last."""
        right = self.answered[-1] - self.wrong[-1]
        return float((self.wrong[-1] - right * harmonic(right, self.answered[-1])) / self.answered[-1])


def harmonic(after, upto):
    """1 / (after + 1) + … + 1 / upto."""
    return digamma(upto + 1) - digamma(after + 1)
