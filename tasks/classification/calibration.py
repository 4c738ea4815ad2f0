"""Calibration of a linear probe's probabilities, before and after temperature scaling (Guo et al. 2017).

The probe has `linear-probe`'s strength, and is fitted on training images alone, so that it has not seen the validation
images: of these the temperature is that of least negative log likelihood. ECE: 15 bins of equal width; adaptive ECE: 15
of equally many images (Nguyen and O'Connor 2015), equal confidences all in one.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from ..logistic import Path
from ..measure import Measure
from ..pictures import COLOURS, canvas
from ..predictions import Predictions
from ..task import Metric, Needs, Outcome, Scores, Task, percent_error
from .accuracy import ACCURACY, BINS, accuracy, ranked
from .linear_probe import LinearProbeRecipe, chosen_probe, labelled

SCALED = "scaled_"  # begins the columns and scores after temperature scaling
COLDEST, HOTTEST = 1e-4, 1e4
MEASURES: dict[str, Metric] = {
    "ece": ACCURACY["ece"],
    "adaptive_ece": percent_error,
    "nll": ACCURACY["nll"],
    "brier": ACCURACY["brier"],
}


class Calibration(Task):
    name, family, version = "calibration", "classification", 1
    needs = Needs(data="classification")
    scores = Scores(**MEASURES, **{SCALED + name: metric for name, metric in MEASURES.items()})
    Recipe = LinearProbeRecipe

    def run(self, backbone, data, recipe, context):
        _, chosen = chosen_probe(backbone, data, recipe, context)
        train, (x, y) = (labelled(context.embeddings(backbone, data[name]), data[name]) for name in ("train", "val"))
        (probe,) = Path([train], len(data.classes)).probes([chosen["c"]], recipe.iterations)
        temperature = best_temperature(probe.logits(x), y)
        test = data["test"]
        logits = probe.logits(context.embeddings(backbone, test))
        scaled = ranked((logits / temperature).softmax(dim=1), test)
        predictions = ranked(logits.softmax(dim=1), test)
        predictions |= {SCALED + name: column for name, column in scaled.items() if name != "id"}
        return Outcome(predictions, chosen | {"temperature": temperature})

    def measure(self, predictions, data):
        test = data["test"]
        parts = {"": predictions, SCALED: after_scaling(predictions)}
        usual = {which: accuracy(part, test).scores for which, part in parts.items()}
        adaptive = {which: adaptive_ece(*confidence(part, test)) for which, part in parts.items()}

        def scores(weights: np.ndarray) -> dict[str, float]:
            found = {}
            for which in parts:
                all_of = usual[which](weights) | {"adaptive_ece": adaptive[which](weights)}
                found |= {which + name: value for name, value in all_of.items()}
            return {name: found[name] for name in self.scores if name in found}

        return Measure(len(test), scores, test.groups)

    def picture(self, predictions, data):
        figure, panels = canvas(1, 2, (4.4, 4.2))
        parts = {"As it is": predictions, "Temperature scaled": after_scaling(predictions)}
        for axes, (title, part) in zip(panels, parts.items(), strict=True):
            reliability(*confidence(part, data["test"]), axes)
            ece = accuracy(part, data["test"]).scores(np.ones(len(data["test"])))["ece"]
            axes.set(title=f"{title}: ECE {ece:.1f} %")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        return figure


def after_scaling(predictions: Predictions) -> Predictions:
    """The columns after temperature scaling, as `ranked` names them."""
    scaled = {name.removeprefix(SCALED): column for name, column in predictions.items() if name.startswith(SCALED)}
    return {"id": predictions["id"]} | scaled


def confidence(predictions: Predictions, split) -> tuple[np.ndarray, np.ndarray]:
    """(n,) top probabilities, and whether each is right, as floats."""
    right = predictions["classes"][:, 0] == np.asarray(split.targets)
    return predictions["probabilities"][:, 0].astype(float), right.astype(float)


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """The divisor, 1e-4 to 1e4, of logits (n, C) at which labels (n,) are likeliest; 1 where it makes no difference."""
    own = logits.gather(1, labels[:, None])[:, 0]
    if not (logits != own[:, None]).any():
        return 1.0

    def nll(log_temperature: float) -> float:
        factor = np.exp(-log_temperature)
        return float((torch.logsumexp(factor * logits, dim=1) - factor * own).mean())

    # Convex in 1 / temperature, so there is one valley in its logarithm too.
    found = minimize_scalar(nll, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def adaptive_ece(top: np.ndarray, right: np.ndarray) -> Callable[[np.ndarray], float]:
    """Calibration error in percent, at any weights (n,), over bins of equal weight, of top probabilities (n,)."""
    group = np.unique(top, return_inverse=True)[1]
    gap = top - right

    def error(weights: np.ndarray) -> float:
        mass, gaps = np.bincount(group, weights), np.bincount(group, weights * gap)
        middle = (np.cumsum(mass) - mass / 2) / mass.sum()
        bins = np.minimum((BINS * middle).astype(int), BINS - 1)
        return float(100 * np.abs(np.bincount(bins, gaps)).sum() / mass.sum())

    return error


def reliability(top: np.ndarray, right: np.ndarray, axes) -> None:
    """Draws accuracy by confidence in bins of equal width, and how many images each bin has."""
    bins = np.clip(np.ceil(top * BINS).astype(int) - 1, 0, BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    there = np.flatnonzero(count)
    share, accurate = 100 * count[there] / len(top), 100 * np.bincount(bins, right, BINS)[there] / count[there]
    places, width = 100 * (there + 0.5) / BINS, 100 / BINS
    axes.bar(places, accurate, 0.94 * width, color=COLOURS[0], alpha=0.75, label="right at this confidence")
    axes.bar(places, share, 0.4 * width, color="0.25", label="have this confidence")
    axes.plot([0, 100], [0, 100], color=COLOURS[1], linestyle="--", linewidth=1.2, label="calibrated")
    axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="confidence in %", ylabel="of the images in %", aspect="equal")
