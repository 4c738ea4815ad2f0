"""Linear probe: L2-regularised multinomial logistic regression on frozen embeddings.

The protocol of Kornblith et al. (2019) and CLIP (Radford et al. 2021): the strength is chosen on validation data, the
probe is then fitted again on training and validation data together.
"""

from dataclasses import dataclass

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..datasets import Split
from ..task import Needs, Outcome, Task, TaskRecipe
from ..threads import one_thread
from .accuracy import ACCURACY, accuracy, ranked, top1


class LinearProbeRecipe(TaskRecipe):
    """`c`: inverse strengths of the penalty to choose from, as scikit-learn's C; `iterations` of L-BFGS at most."""

    c: tuple[PositiveFloat, ...] = Field(default=(1e-4, 1e-3, 1e-2, 1e-1, 1.0), min_length=1)
    iterations: int = Field(default=500, ge=1)


class LinearProbe(Task):
    name, family, version = "linear-probe", "classification", 1
    needs = Needs(data="classification")
    scores = ACCURACY
    Recipe = LinearProbeRecipe

    def run(self, backbone, data, recipe, context):
        probe, chosen = chosen_probe(backbone, data, recipe, context)
        test = data["test"]
        return Outcome(ranked(probe.probabilities(context.embeddings(backbone, test)), test), chosen)

    def measure(self, predictions, data):
        return accuracy(predictions, data["test"])


@dataclass(frozen=True)
class Probe:
    """A fitted probe: features (n, D) are standardised by `mean` and `scale`, then `weight` (C, D) and `bias` (C,)."""

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """(n, C) float64 of features (n, D)."""
        with one_thread():
            return (features.double() - self.mean) / self.scale @ self.weight.T + self.bias

    def probabilities(self, features: Tensor) -> Tensor:
        """(n, C) float64 of features (n, D)."""
        return self.logits(features).softmax(dim=1)


def chosen_probe(backbone, data, recipe: LinearProbeRecipe, context) -> tuple[Probe, dict]:
    """The probe at the strength that validation data chose, fitted on train and val; and what was chosen."""
    x, y = labelled(context.embeddings(backbone, data["train"]), data["train"])
    x_val, y_val = labelled(context.embeddings(backbone, data["val"]), data["val"])
    strengths, tried = sorted(recipe.c), {}
    train = Fit(x, y, len(data.classes))
    for step, c in enumerate(strengths):
        tried[c] = top1(train.probe(c, recipe.iterations).logits(x_val), y_val)
        context.progress("fitting the probe", step + 1, len(strengths) + 1)
    best = max(strengths, key=lambda c: tried[c])  # of equals, the strongest penalty
    both = Fit(torch.cat([x, x_val]), torch.cat([y, y_val]), len(data.classes))
    probe = both.probe(best, recipe.iterations)
    context.progress("fitting the probe", len(strengths) + 1, len(strengths) + 1)
    return probe, {"c": best, "val_top1": 100 * tried[best]}


def labelled(features: Tensor, split: Split) -> tuple[Tensor, Tensor]:
    """Features and labels of the examples that have one of the classes."""
    labels = torch.as_tensor(split.targets)
    return features[labels >= 0], labels[labels >= 0]


class Fit:
    """Features x (n, D) with labels y (n,), made ready for probes of any strength; float64, on one thread.

    Standardised, then turned to their principal axes, where the curvature of the objective is bounded by a diagonal
    (Böhning 1992): scaled by it, L-BFGS takes tens of steps where it would take hundreds.
    """

    def __init__(self, x: Tensor, y: Tensor, classes: int):
        with one_thread():
            x = x.double()
            self.mean, spread = x.mean(0), x.std(0, correction=0)
            # A feature that is constant but for rounding tells nothing.
            self.scale = torch.where(spread > 1e-7 * self.mean.abs(), spread, torch.inf)
            x = (x - self.mean) / self.scale
            self.variances, self.axes = torch.linalg.eigh(x.T @ x / len(x))
            self.x, self.y, self.classes = x @ self.axes, y, classes

    def probe(self, c: float, iterations: int) -> Probe:
        """The probe that minimises c · Σ cross-entropy + ½‖weight‖²: scikit-learn's objective on these features."""
        penalty = 1 / (c * len(self.x))
        with one_thread():
            step = (self.variances.clamp(min=0) / 2 + penalty).rsqrt()
            x = self.x * step
            weight = torch.zeros(self.classes, x.shape[1], dtype=torch.double, requires_grad=True)
            bias = torch.zeros(self.classes, dtype=torch.double, requires_grad=True)
            optimiser = torch.optim.LBFGS(
                [weight, bias],
                max_iter=iterations,
                tolerance_grad=1e-6,
                tolerance_change=1e-9,
                line_search_fn="strong_wolfe",
            )

            def loss() -> Tensor:
                optimiser.zero_grad()
                value = cross_entropy(x @ weight.T + bias, self.y) + penalty / 2 * (weight * step).square().sum()
                value.backward()
                return value

            optimiser.step(loss)  # type: ignore[arg-type]
            return Probe(self.mean, self.scale, (weight * step).detach() @ self.axes.T, bias.detach())
