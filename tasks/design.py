"""Features of any number made ready for linear models: standardised and turned to principal axes, not copied."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .threads import one_thread

BLOCK = 2**19  # numbers a pass reads at a time: they stay in a core's cache
HELD = 2**21  # numbers: smaller features are turned once, in float64, and kept; larger ones are read in place

Part = tuple[Tensor, Tensor]
"""Features (n, D) and targets: (n,) labels, -1 for none of the classes, or (n, L) of 1, 0 and -1 for not known."""


@dataclass(frozen=True)
class Probe:
    """A linear map: features (n, D) are standardised by `mean` and `scale`, then `weight` (C, D) and `bias` (C,)."""

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """(n, C) float64 of features (n, D)."""
        with one_thread():
            weight = (self.weight / self.scale).T
            chunks = features.split(max(1, BLOCK // features.shape[1]))
            return torch.cat([torch.addmm(self.bias, chunk.double() - self.mean, weight) for chunk in chunks])

    def probabilities(self, features: Tensor) -> Tensor:
        """(n, C) float64 of features (n, D): of one class out of all."""
        return self.logits(features).softmax(dim=1)

    @property
    def plain(self) -> tuple[Tensor, Tensor]:
        """Weight (C, D) and bias (C,) of the same map over features as they are."""
        weight = self.weight / self.scale
        return weight, self.bias - weight @ self.mean


class Design:
    """Rows of several parts as one. `curvature` (r,): variances along `axes` (D, r) of the standardised features.

    The coordinates of a row x are (x - mean) / scale @ axes; `chunks` and `logits` know how to come by them: where
    they fill little memory they are held, else the axes are folded into the weights and rows are read as they lie.
    """

    def __init__(self, parts: Sequence[Part]):
        # A row that has none of the classes is left out; features that are all wanted are used where they lie.
        wanted = [(x, y, y >= 0) if y.ndim == 1 else (x, y, None) for x, y in parts]
        self.parts = [(x, y) if keep is None or keep.all() else (x[keep], y[keep]) for x, y, keep in wanted]
        self.rows, width = sum(len(x) for x, _ in self.parts), self.parts[0][0].shape[1]
        self.size = max(256, BLOCK // width)
        small = self.rows * min(self.rows, width) <= HELD
        self.dtype = torch.double if small else torch.float32
        self.mean = torch.zeros(width, dtype=torch.double)
        for x, _ in self._read():
            self.mean += x.sum(0, dtype=torch.double)
        self.mean /= self.rows
        if small:
            x = torch.cat([x for x, _ in self.parts]).double() - self.mean
            self._scale_by(x.square().mean(0).sqrt())
            x /= self.scale
            if self.rows < width:  # the axes that matter lie in the span of the rows
                values, sides = torch.linalg.eigh(x @ x.T / self.rows)
                keep = values > 1e-12 * values[-1:].clamp(min=1e-300)
                self.curvature = values[keep]
                self.axes = x.T @ (sides[:, keep] / (self.curvature * self.rows).sqrt())
            else:
                self._turn(x.T @ x / self.rows)
            self.held = [(x @ self.axes, torch.cat([y for _, y in self.parts]))]
        else:
            moments = torch.zeros(width, width, dtype=torch.double)
            for x, _ in self._centred():
                moments += x.T @ x
            moments /= self.rows
            self._scale_by(moments.diagonal().sqrt())
            self._turn(moments / self.scale[:, None] / self.scale)
            self.held = None

    def _scale_by(self, spread: Tensor) -> None:
        # A feature that is constant but for rounding tells nothing.
        self.scale = torch.where(spread > 1e-7 * self.mean.abs(), spread, torch.inf)

    def _turn(self, covariance: Tensor) -> None:
        values, self.axes = torch.linalg.eigh(covariance)
        self.curvature = values.clamp(min=0)

    def _read(self) -> Iterator[Part]:
        for x, y in self.parts:
            yield from zip(x.split(self.size), y.split(self.size), strict=True)

    def _centred(self) -> Iterator[Part]:
        mean, room = self.mean.to(self.dtype), torch.empty(self.size, len(self.mean), dtype=self.dtype)
        for x, y in self._read():
            yield torch.sub(x, mean, out=room[: len(x)]), y

    def chunks(self, weight: Tensor, bias: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(features, logits (C, m), targets) of some rows at a time, for `weight` (C, r) over the axes; see `back`."""
        if self.held is None:
            weight = (weight @ self.axes.T) / self.scale
        weight, bias = weight.to(self.dtype), bias.to(self.dtype)[:, None]
        for x, y in self.rows_as_read():
            yield x, torch.addmm(bias, weight, x.T), y

    def rows_as_read(self) -> Iterator[Part]:
        """Features and targets of some rows at a time: their coordinates, or centred only where these are not held."""
        yield from self.held or self._centred()

    @property
    def width(self) -> int:
        """Of the rows as read."""
        return len(self.mean) if self.held is None else len(self.curvature)

    def back(self, gradient: Tensor) -> Tensor:
        """A gradient (C, ·) with respect to the features that `chunks` gives, as one (C, r) over the axes."""
        return gradient if self.held is not None else (gradient / self.scale) @ self.axes

    def probe(self, weight: Tensor, bias: Tensor) -> Probe:
        """The probe of `weight` (C, r) over the axes."""
        return Probe(self.mean, self.scale, weight @ self.axes.T, bias)

    def turned(self, probe: Probe) -> tuple[Tensor, Tensor]:
        """Weight (C, r) and bias (C,) over these axes of a probe that was fitted on other rows of the same features."""
        plain = probe.weight / probe.scale
        scale = torch.where(self.scale.isinf(), 0.0, self.scale)
        return (plain * scale) @ self.axes, probe.bias + plain @ (self.mean - probe.mean)
