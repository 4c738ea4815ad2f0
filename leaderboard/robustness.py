"""Effective robustness: what a network has on shifted data beyond the line on which the accuracies of others lie.

Taori et al. 2020; straight on probit axes, or logit (Recht et al. 2019, Miller et al. 2021). It holds for any two
columns of accuracies of a board, of runs or of a published table.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..backbones.errors import BadInput, unknown
from .board import Board, Row
from .filters import FACTS, narrowed
from .selection import Column

AXES = ("probit", "logit")
DRAWS = 1000
EVERY = "all"
UNKNOWN = "unknown"


@dataclass(frozen=True, eq=False)
class Line:
    """shifted = slope · clean + intercept, both accuracies on the axes; over `n` networks, explaining a share `r2`.

    `drawn` (draws, 2): slope and intercept over networks drawn with replacement, for intervals of 95 %.
    """

    axis: str
    n: int
    slope: float
    intercept: float
    r2: float
    drawn: np.ndarray

    def expected(self, clean: np.ndarray) -> np.ndarray:
        """Accuracies under shift (n,) in percent that the line has at clean ones (n,)."""
        return from_axis(self.slope * on_axis(clean, self.axis) + self.intercept, self.axis)

    def expected_drawn(self, clean: np.ndarray) -> np.ndarray:
        """(draws, n) the same on each drawn line."""
        return from_axis(self.drawn[:, :1] * on_axis(clean, self.axis) + self.drawn[:, 1:], self.axis)

    @property
    def slope_interval(self) -> tuple[float, float]:
        """95 %."""
        low, high = np.percentile(self.drawn[:, 0], [2.5, 97.5])
        return min(float(low), self.slope), max(float(high), self.slope)


@dataclass(frozen=True)
class Robust:
    """A network beside a line: accuracies in percent, and `effective` robustness in points with the interval that the
    line leaves open. `kind`: of pretraining."""

    backbone: str
    kind: str
    clean: float
    shifted: float
    expected: float
    effective: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """Mean effective robustness of the `n` networks of one kind of pretraining, or of all, with its interval."""

    kind: str
    n: int
    effective: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Robustness:
    """One column of shifted accuracies against one of clean ones: the line, every network beside it, and groups."""

    clean: str
    shifted: str
    line: Line
    rows: tuple[Robust, ...]
    groups: tuple[Group, ...]


def on_axis(accuracy: np.ndarray, axis: str) -> np.ndarray:
    """Percent strictly between 0 and 100 → the axis."""
    from scipy.special import logit, ndtri

    return {"probit": ndtri, "logit": logit}[axis](np.asarray(accuracy, float) / 100)


def from_axis(value: np.ndarray, axis: str) -> np.ndarray:
    """The axis → percent."""
    from scipy.special import expit, ndtr

    return 100 * {"probit": ndtr, "logit": expit}[axis](value)


def fitted(clean: np.ndarray, shifted: np.ndarray, axis: str = "probit", seed: int = 0) -> Line | None:
    """The line of least squares through accuracies (n,) in percent, all strictly between 0 and 100.

    None for fewer than three, or where all clean ones are equal.
    """
    n = len(clean)
    if n < 3 or np.ptp(clean) == 0:
        return None
    x, y = on_axis(clean, axis), on_axis(shifted, axis)
    shares = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), DRAWS) / n
    slope, intercept = _least_squares(np.full((1, n), 1 / n), x, y)[0]
    rest = y - slope * x - intercept
    spread = np.square(y - y.mean()).sum()
    r2 = 1 - np.square(rest).sum() / spread if spread > 0 else 1.0
    return Line(axis, n, float(slope), float(intercept), float(r2), _least_squares(shares, x, y))


def _least_squares(shares: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(draws, 2) slope and intercept at shares (draws, n) of the points; flat where a draw has a single point."""
    mean_x, mean_y = shares @ x, shares @ y
    variance = np.maximum(shares @ (x - x.mean()) ** 2 - (mean_x - x.mean()) ** 2, 0)
    covariance = shares @ ((x - x.mean()) * (y - y.mean())) - (mean_x - x.mean()) * (mean_y - y.mean())
    slope = np.divide(covariance, variance, out=np.zeros_like(variance), where=variance > 1e-12)
    return np.column_stack([slope, mean_y - slope * mean_x])


def shifts_of(board: Board) -> list[tuple[str, str]]:
    """Keys (clean, shifted) of the columns that are set against each other where nobody says: every accuracy of the
    family `ood`, against `<its key>-clean` if there is such a column, else against the first of classification."""
    accuracies = [c for c in board.columns if is_accuracy(c)]
    plain = [c.key for c in accuracies if c.family == "classification"]
    found = []
    for column in accuracies:
        if column.family == "ood":
            own = f"{column.key}-clean"
            clean = own if own in plain else next(iter(plain), None)
            found += [(clean, column.key)] if clean else []
    return found


def is_accuracy(column: Column) -> bool:
    """Whether it has shares of right answers in percent."""
    return column.unit == "%" and column.higher_is_better and column.metric.endswith("top1")


def effective_robustness(
    board: Board, clean: str, shifted: str, axis: str = "probit", line_of: Iterable[str] = (), seed: int = 0
) -> Robustness | None:
    """Every network of the board that has both accuracies, beside the line; None where too few have them for one.

    `line_of`: conditions KEY=VALUE as of `narrowed`, for those alone that the line is fitted over. Accuracies of
    exactly 0 and 100 % have no place on the axes: such networks are left out. Raises BadInput.
    """
    for key in (clean, shifted):
        known = {c.key: c for c in board.columns}
        if key not in known:
            raise unknown("column", key, known)
        if not (known[key].unit == "%" and known[key].higher_is_better):
            raise BadInput(f"{key}: a line of accuracies needs columns in percent, of which higher is better")
    if clean == shifted:
        raise BadInput(f"{clean}: a line of accuracies needs two different columns")
    rows = [row for row in board.rows if clean in row.cells and shifted in row.cells]
    values = np.array([[row.cells[key].value for key in (clean, shifted)] for row in rows], float).reshape(-1, 2)
    inside = np.all((values > 0) & (values < 100), axis=1)
    rows, (x, y) = [row for row, fine in zip(rows, inside.tolist(), strict=True) if fine], values[inside].T
    conditions = list(line_of)
    base = {row.backbone for row in narrowed(board, conditions).rows} if conditions else None
    among = np.array([base is None or row.backbone in base for row in rows], bool)
    line = fitted(x[among], y[among], axis, seed)
    if line is None:
        return None
    expected, drawn = line.expected(x), line.expected_drawn(x)
    effective, doubt = y - expected, y - drawn
    low, high = np.percentile(doubt, [2.5, 97.5], axis=0)
    kinds = np.array(_kinds(rows))
    numbers = np.column_stack([x, y, expected, effective, np.minimum(low, effective), np.maximum(high, effective)])
    robust = [Robust(r.backbone, m, *v) for r, m, v in zip(rows, kinds.tolist(), numbers.tolist(), strict=True)]
    names = sorted({*kinds.tolist()}, key=lambda kind: (-(kinds == kind).sum(), kind))
    group = partial(_group, effective, drawn, y, seed=seed)
    groups = [group(EVERY, np.ones(len(rows), bool)), *(group(kind, kinds == kind) for kind in names)]
    return Robustness(clean, shifted, line, tuple(sorted(robust, key=lambda r: -r.effective)), tuple(groups))


def _kinds(rows: Sequence[Row]) -> list[str]:
    """How each was pretrained; where that is the same for all, as of networks with ImageNet's classes, on which data
    its training began."""
    methods = [FACTS["method"](row) or UNKNOWN for row in rows]
    if len({*methods}) > 1:
        return methods
    return [(FACTS["data"](row) or UNKNOWN).partition(" + ")[0] for row in rows]


def _group(effective: np.ndarray, drawn: np.ndarray, y: np.ndarray, kind: str, members: np.ndarray, seed: int) -> Group:
    """Its interval holds the doubt of the line and that of which networks there are of the group."""
    n = int(members.sum())
    shares = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), len(drawn)) / n
    means = (shares * (y[members] - drawn[:, members])).sum(axis=1)
    value = float(effective[members].mean())
    low, high = np.percentile(means, [2.5, 97.5])
    return Group(kind, n, value, min(float(low), value), max(float(high), value))
