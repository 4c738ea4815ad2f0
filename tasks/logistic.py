"""L2-regularised logistic regression over a whole path of strengths, and ridge regression, on frozen features.

Over the principal axes of the standardised features the curvature of the loss is near to the Kronecker product of a
matrix over the classes and a diagonal. It starts the inverse Hessian of L-BFGS (Nocedal 1980), whose pairs are kept of
the loss alone: they hold on at the next strength. Each strength starts at the line through the last two solutions, in
the logarithm of the strength, and so takes a few passes over the data.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .design import Design, Part, Probe
from .threads import one_thread

TOLERANCE = 3e-6  # gap to the least objective, by the Newton decrement, as a share of the objective
MEMORY = 20  # pairs of L-BFGS
NEVER = -1e4  # the logit of a class without examples

Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Callable[[], Tensor]]]
"""Logits (C, n) and targets of some rows → sum of the loss, its gradient by the logits, its curvature if called."""


def cross_entropy(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Callable[[], Tensor]]:
    """Of one class out of all: logits (C, n), labels (n,)."""
    top, own = logits.amax(dim=0), logits.gather(0, y[None])[0]
    chances = (logits - top).exp_()  # once: most of what a pass takes beside its two matrix products
    total = chances.sum(0)
    chances /= total
    loss = (total.log() + top - own).sum(dtype=torch.double)
    residual = chances.scatter_add(0, y[None], chances.new_full((1, len(y)), -1.0))
    return loss, residual, lambda: chances.sum(1).diag() - chances @ chances.T


def binary(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Callable[[], Tensor]]:
    """Of each label by itself: logits (L, n), targets (n, L) of 1, 0 and -1 for not known."""
    known, yes = (y.T >= 0).to(logits.dtype), (y.T > 0).to(logits.dtype)
    loss = ((softplus(logits) - yes * logits) * known).sum(dtype=torch.double)
    chances = logits.sigmoid()
    return loss, (chances - yes) * known, lambda: (chances * (1 - chances) * known).sum(1).diag()


@dataclass(frozen=True)
class Point:
    """Weights (C, r + 1), the bias last, with mean loss, its gradient, and the mean curvature over the classes."""

    weight: Tensor
    loss: float
    gradient: Tensor
    curvature: Tensor


class Path:
    """Features with labels (n,) of `outputs` classes, or with `outputs` labels (n, L) that are each yes or no.

    The objective is scikit-learn's, c · Σ loss + ½‖weight‖², on standardised features; the bias is not penalised.
    Deterministic on one thread. Memory does not grow with the rows.
    """

    def __init__(self, parts: Sequence[Part], outputs: int):
        with one_thread():
            self.design, self.outputs = Design(parts), outputs
            self.passes = 0
            self.parts = self.design.held or self.design.parts
            multinomial = self.parts[0][1].ndim == 1
            self.loss: Loss = cross_entropy if multinomial else binary
            counts = torch.stack([_counts(y, outputs) for _, y in self.parts]).sum(0)  # (2, C): without, with
            self.learnt = (counts[1] > 0) & ((counts[0] > 0) | torch.tensor(multinomial))
            self.fixed = torch.where(counts[1] > 0, -NEVER, NEVER)
            self.gauge = multinomial  # to add a constant to all logits changes nothing
            variances = self.design.curvature
            self.variances = torch.cat([variances, variances.new_ones(1)])
            self.penalised = torch.cat([torch.ones_like(variances), variances.new_zeros(1)])

    def probes(self, strengths: Sequence[float], iterations: int = 500, start: Probe | None = None) -> Iterator[Probe]:
        """The probe of each strength c, ascending; at most `iterations` steps each, from `start` the first."""
        with one_thread():
            here = self._at(self._start(start))
        pairs, earlier = deque[tuple[Tensor, Tensor]](maxlen=MEMORY), deque[tuple[float, Tensor]](maxlen=2)
        for c in sorted(strengths):
            with one_thread():
                here = self._solve(self._ahead(here, c, pairs, earlier), c, iterations, pairs)
                earlier.append((c, here.weight))
                probe = self._probe(here.weight)
            yield probe

    def ridge(self, strengths: Sequence[float]) -> Iterator[Probe]:
        """The probe of each strength c, ascending: c · Σ (logits - targets)² + ‖weight‖² at least; targets are ±1.

        Closed form, as the layer-wise probes of Raghu et al. (2021); all from one eigendecomposition.
        """
        with one_thread():
            design, count = self.design, self.design.rows
            means = torch.zeros(self.outputs, dtype=torch.double)
            products = torch.zeros(self.outputs, design.width, dtype=torch.double)
            for x, y in design.rows_as_read():
                target = _signs(y, self.outputs).to(x.dtype)
                products += target.T @ x
                means += target.sum(0, dtype=torch.double) / count
            products = design.back(products) / count
        for c in sorted(strengths):
            with one_thread():
                weight = products / (design.curvature + 1 / (c * count)).clamp(min=1e-12)
                probe = design.probe(weight, means)
            yield probe

    def _start(self, probe: Probe | None) -> Tensor:
        if probe is None:
            return torch.zeros(int(self.learnt.sum()), len(self.penalised), dtype=torch.double)
        weight, bias = self.design.turned(probe)
        return torch.cat([weight, bias.clamp(-30, 30)[:, None]], dim=1)[self.learnt]

    def _probe(self, weight: Tensor) -> Probe:
        every = torch.zeros(self.outputs, weight.shape[1], dtype=torch.double)
        every[:, -1] = self.fixed
        every[self.learnt] = weight
        return self.design.probe(every[:, :-1], every[:, -1])

    def _at(self, weight: Tensor, known: Tensor | None = None) -> Point:
        """One pass over the rows; `known`: a curvature that is near enough, as it changes little within a strength."""
        self.passes += 1
        loss, outputs = 0.0, len(weight)
        gradient = torch.zeros(outputs, self.design.width, dtype=torch.double)
        bias, curvature = gradient.new_zeros(outputs), gradient.new_zeros(outputs, outputs)
        names = self.learnt.cumsum(0) - 1
        for x, logits, y in self.design.chunks(weight[:, :-1], weight[:, -1]):
            y = names[y] if y.ndim == 1 else y[:, self.learnt]
            part, residual, curved = self.loss(logits, y)
            loss += float(part)
            gradient += residual @ x
            bias += residual.sum(1, dtype=torch.double)
            if known is None:
                curvature += curved()
        gradient = torch.cat([self.design.back(gradient), bias[:, None]], dim=1) / self.design.rows
        if self.gauge:  # what rounding leaves there would be divided by no curvature at all
            gradient -= gradient.mean(0)
        if known is None:
            known = curvature / self.design.rows
            if self.gauge:
                known = known + known.trace() / len(known) ** 2
        return Point(weight, loss / self.design.rows, gradient, known)

    def _objective(self, point: Point, penalty: float) -> float:
        return point.loss + penalty / 2 * float((point.weight.square() * self.penalised).sum())

    def _ahead(self, here: Point, c: float, pairs: deque, earlier: deque) -> Point:
        """Where the line through the last two solutions leads, if that is better."""
        if len(earlier) < 2 or c <= earlier[1][0]:
            return here
        (c0, before), (c1, last) = earlier
        ratio = torch.log(torch.tensor([c / c1, c1 / c0], dtype=torch.double))
        there = self._at(last + ratio[0] / ratio[1] * (last - before)) if ratio[1] > 0 else here
        penalty = 1 / (c * self.design.rows)
        if not self._objective(there, penalty) < self._objective(here, penalty):
            return here
        pairs.append((there.weight - here.weight, there.gradient - here.gradient))
        return there

    def _solve(self, here: Point, c: float, iterations: int, pairs: deque) -> Point:
        penalty = 1 / (c * self.design.rows)
        start = _Start(here.curvature, self.variances, penalty * self.penalised)
        for _ in range(iterations):
            value = self._objective(here, penalty)
            gradient = here.gradient + penalty * self.penalised * here.weight
            step = _newton(gradient, start, pairs, penalty * self.penalised)
            decrement = float((gradient * step).sum())
            if not decrement / 2 > TOLERANCE * value:
                break
            there = self._search(here, value, step, decrement, penalty)
            if there is None:
                if self.design.dtype == torch.double:
                    break  # as near as the numbers go
                self.design.dtype = torch.double
                here = self._at(here.weight, here.curvature)
                continue
            pairs.append((there.weight - here.weight, there.gradient - here.gradient))
            here = there
        return here

    def _search(self, here: Point, value: float, step: Tensor, slope: float, penalty: float) -> Point | None:
        """The first of ever shorter steps that goes down enough (Armijo); None when none does."""
        size = 1.0
        for _ in range(12 if self.design.dtype == torch.double else 4):
            there = self._at(here.weight - size * step, here.curvature)
            rise = self._objective(there, penalty) - value
            if rise <= -1e-4 * size * slope:
                return there
            parabola = slope * size**2 / (2 * (rise + size * slope))
            size = min(max(parabola, size / 10), size / 2)
        return None


class _Start:
    """The inverse of curvature (C, C) ⊗ diag(variances) + diag(penalty), by the curvature's eigenvectors."""

    def __init__(self, curvature: Tensor, variances: Tensor, penalty: Tensor):
        values, self.axes = torch.linalg.eigh(curvature)
        self.whole = (values.clamp(min=0)[:, None] * variances + penalty).clamp(min=1e-300)

    def __call__(self, gradient: Tensor) -> Tensor:
        return self.axes @ ((self.axes.T @ gradient) / self.whole)


def _newton(gradient: Tensor, start: _Start, pairs: deque, penalty: Tensor) -> Tensor:
    """The inverse Hessian, as L-BFGS knows it, times the gradient."""
    known = []
    for s, change in reversed(pairs):
        y = change + penalty * s  # at this strength
        if (sy := (s * y).sum()) > 0:
            share = (s * gradient).sum() / sy
            gradient = gradient - share * y
            known.append((s, y, sy, share))
    step = start(gradient)
    if known:  # the mean curvature is too small for steps that matter to few examples
        _, y, sy, _ = known[0]
        step *= (sy / (y * start(y)).sum()).clamp(max=1.0)
    for s, y, sy, share in reversed(known):
        step = step + s * (share - (y * step).sum() / sy)
    return step


def _counts(y: Tensor, outputs: int) -> Tensor:
    if y.ndim == 1:
        there = torch.bincount(y, minlength=outputs)
        return torch.stack([len(y) - there, there])
    return torch.stack([(y == 0).sum(0), (y > 0).sum(0)])


def _signs(y: Tensor, outputs: int) -> Tensor:
    """±1 targets (n, C); 0 where not known."""
    if y.ndim == 1:
        return -torch.ones(len(y), outputs).scatter(1, y[:, None], -1.0)
    return torch.where(y < 0, 0.0, y.double() * 2 - 1)
