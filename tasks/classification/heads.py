"""Many linear heads trained in one pass: all learning rates on one input are rows of one matrix product.

A linear layer under cross-entropy has a gradient in closed form, so a step is two products an input, whatever the
number of heads: what a loop over heads spends on small kernels and on automatic differentiation is saved.
"""

from collections.abc import Callable, Sequence
from math import cos, pi
from typing import Literal

import torch
from torch import Tensor

MOMENTUM = 0.9
TRUST = 0.001  # of LARS (You et al. 2017)
EPSILON = 1e-6  # of the batch normalisation before the heads, which has no affine part
RUNNING = 0.1  # weight of a batch in the statistics for prediction, as torch's BatchNorm1d
INITIAL = 0.01  # standard deviation of the first weights, cut off at two


class Heads:
    """A head a learning rate on one input of `width` features: weight (R, C, D) and bias (R, C), float32.

    `norm`: each batch is normalised by its own statistics, predictions by running ones.
    """

    def __init__(
        self, rates: Sequence[float], width: int, classes: int, generator: torch.Generator, *, norm: bool = True
    ):
        self.rates = torch.tensor(rates, dtype=torch.float32)
        first = torch.empty(classes, width)
        torch.nn.init.trunc_normal_(first, std=INITIAL, a=-2 * INITIAL, b=2 * INITIAL, generator=generator)
        self.weight, self.bias = first.repeat(len(rates), 1, 1), torch.zeros(len(rates), classes)  # all start alike
        self.norm, self.mean, self.variance = norm, torch.zeros(width), torch.ones(width)
        self._velocity = torch.zeros(len(rates) * classes, width), torch.zeros(len(rates), classes)

    def step(self, x: Tensor, y: Tensor, schedule: float, optimiser: Literal["sgd", "lars"]) -> None:
        """One step of every head on a batch (B, D) with labels (B,), at its learning rate times `schedule`."""
        heads, classes, width = self.weight.shape
        if self.norm:
            mean = x.mean(0)
            x = x - mean
            variance = x.square().mean(0)
            self.mean.lerp_(mean, RUNNING)
            self.variance.lerp_(variance * (len(x) / max(len(x) - 1, 1)), RUNNING)
            x = x * (variance + EPSILON).rsqrt()
        # (R, C, B): the softmax then runs along whole rows of a batch.
        chances = torch.addmm(self.bias.view(-1, 1), self.weight.view(-1, width), x.T).view(heads, classes, len(x))
        residual = torch.softmax(chances, dim=1, out=chances)
        residual[:, y, torch.arange(len(x))] -= 1
        residual = residual.view(-1, len(x))
        rates = schedule * self.rates
        weights, biases = self._velocity
        if optimiser == "sgd":
            torch.addmm(weights, residual, x, beta=MOMENTUM, alpha=1 / len(x), out=weights)
        else:
            gradient = torch.mm(residual, x).div_(len(x)).view_as(self.weight)
            sizes, norm = gradient.flatten(1).norm(dim=1), self.weight.flatten(1).norm(dim=1)
            trust = torch.where((sizes > 0) & (norm > 0), TRUST * norm / sizes, 1.0)
            weights.mul_(MOMENTUM).view_as(self.weight).addcmul_(gradient, trust[:, None, None])
        biases.mul_(MOMENTUM).add_(residual.mean(1).view_as(biases))
        self.weight.addcmul_(weights.view_as(self.weight), rates[:, None, None], value=-1)
        self.bias.addcmul_(biases, rates[:, None], value=-1)

    def logits(self, x: Tensor, head: int | None = None) -> Tensor:
        """(R, n, C) float32 of features (n, D), or (n, C) of one head."""
        if self.norm:
            x = (x - self.mean) * (self.variance + EPSILON).rsqrt()
        if head is not None:
            return x @ self.weight[head].T + self.bias[head]
        return torch.einsum("nd,rcd->rnc", x, self.weight) + self.bias[:, None]


def train(
    heads: Sequence[Heads],
    inputs: Callable[[int, Tensor], Sequence[Tensor]],
    labels: Tensor,
    *,
    epochs: int,
    warmup: int,
    batch: int,
    optimiser: Literal["sgd", "lars"],
    generator: torch.Generator,
    progress: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Trains every head on `inputs(epoch, rows)`, one batch (B, D) an element of `heads`, in one random order for all.

    The learning rate rises over `warmup` epochs, then falls as half a cosine, step by step; the last rows of an epoch
    that fill no batch are left out.
    """
    batch = min(batch, len(labels))
    steps = len(labels) // batch
    for epoch in range(epochs):
        order = torch.randperm(len(labels), generator=generator)
        for step in range(steps):
            rows = order[step * batch : (step + 1) * batch]
            at = schedule(epoch + step / steps, epochs, warmup)
            for head, x in zip(heads, inputs(epoch, rows), strict=True):
                head.step(x, labels[rows], at, optimiser)
        progress(epoch + 1)


def schedule(epoch: float, epochs: int, warmup: int) -> float:
    """The share of the learning rate at a moment, counted in epochs."""
    if epoch < warmup:
        return epoch / warmup
    return 0.5 * (1 + cos(pi * (epoch - warmup) / (epochs - warmup)))
