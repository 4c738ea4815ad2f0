"""Linear probe: L2-regularised multinomial logistic regression on frozen embeddings.

The protocol of Kornblith et al. (2019) and CLIP (Radford et al. 2021), over the 45 strengths of DINOv2 (Oquab et al.
2023): the strength is chosen on validation data, the probe is then fitted again on training and validation data.
"""

from collections.abc import Callable

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from ..datasets import Split
from ..design import Part, Probe
from ..logistic import Path
from ..task import Needs, Outcome, Task, TaskRecipe
from .accuracy import ACCURACY, accuracy, ranked, top1

STRENGTHS = tuple(10 ** (-6 + 11 * step / 44) for step in range(45))


class LinearProbeRecipe(TaskRecipe):
    """`c`: inverse strengths of the penalty to choose from, as scikit-learn's C; `iterations` of L-BFGS at most."""

    c: tuple[PositiveFloat, ...] = Field(default=STRENGTHS, min_length=1)
    iterations: int = Field(default=500, ge=1)


class LinearProbe(Task):
    name, family, version = "linear-probe", "classification", 2
    needs = Needs(data="classification")
    scores = ACCURACY
    Recipe = LinearProbeRecipe

    def run(self, backbone, data, recipe, context):
        probe, chosen = chosen_probe(backbone, data, recipe, context)
        test = data["test"]
        return Outcome(ranked(probe.probabilities(context.embeddings(backbone, test)), test), chosen)

    def measure(self, predictions, data):
        return accuracy(predictions, data["test"])


def chosen_probe(backbone, data, recipe: LinearProbeRecipe, context) -> tuple[Probe, dict]:
    """The probe at the strength that validation data chose, fitted on train and val; and what was chosen."""
    train, val = (labelled(context.embeddings(backbone, data[name]), data[name]) for name in ("train", "val"))
    probe, c, highest = best_probe(train, val, len(data.classes), top1, recipe, context)
    return probe, {"c": c, "val_top1": 100 * highest}


def best_probe(
    train: Part, val: Part, outputs: int, score: Callable[[Tensor, Tensor], float], recipe: LinearProbeRecipe, context
) -> tuple[Probe, float, float]:
    """The probe, fitted on both parts, at the strength that scores highest on `val`; that strength, and the score.

    `score` is of logits (n, outputs) and targets.
    """
    strengths, best, highest, probe = sorted(recipe.c), 0.0, -1.0, None
    probes = Path([train], outputs).probes(strengths, recipe.iterations)
    for step, (c, tried) in enumerate(zip(strengths, probes, strict=True)):
        if (found := score(tried.logits(val[0]), val[1])) > highest:  # of equals, the strongest penalty
            best, highest, probe = c, found, tried
        context.progress("fitting the probe", step + 1, len(strengths) + 1)
    (probe,) = Path([train, val], outputs).probes([best], recipe.iterations, start=probe)
    context.progress("fitting the probe", len(strengths) + 1, len(strengths) + 1)
    return probe, best, highest


def labelled(features: Tensor, split: Split) -> tuple[Tensor, Tensor]:
    """Features and labels of the examples that have one of the classes; not copied where all have."""
    labels = torch.as_tensor(split.targets)
    keep = labels >= 0
    return (features, labels) if keep.all() else (features[keep], labels[keep])
