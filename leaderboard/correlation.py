"""How far scores go along with each other, and with the size of networks and of what they were pretrained on."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations
from math import atanh, sqrt, tanh

import numpy as np

from .board import Board, Row
from .pretraining import pretraining_images
from .ranking import column_ranks

NORMAL_95 = 1.959964  # half-width of a 95 % interval in standard deviations
EVERY = "all"  # backbones, of whatever family
SIZES: dict[str, Callable[[Row], int | None]] = {
    "parameters": lambda row: row.facts.parameters,
    "images": lambda row: pretraining_images(row.facts),
}


@dataclass(frozen=True)
class Correlation:
    """Spearman's `rho` of `a` with `b` over the `n` backbones that have both, `among` one family of them or all.

    `low`, `high`: 95 % interval. None where there is none: of fewer than three backbones, or of values that are all
    equal; without an interval of fewer than four.
    """

    a: str
    b: str
    among: str
    n: int
    rho: float | None
    low: float | None
    high: float | None


def spearman(a: np.ndarray, b: np.ndarray) -> tuple[int, float | None, float | None, float | None]:
    """n, Spearman's rho and its 95 % interval, over the places where both (n,) arrays have a number.

    The interval is Fisher's, with the standard error of Bonett & Wright 2000.
    """
    both = ~(np.isnan(a) | np.isnan(b))
    n = int(both.sum())
    if n < 3:
        return n, None, None, None
    x, y = column_ranks(np.column_stack([a[both], b[both]])).T - (n + 1) / 2
    length = sqrt((x @ x) * (y @ y))
    if length == 0:
        return n, None, None, None
    rho = float(np.clip(x @ y / length, -1, 1))
    if n < 4:
        return n, rho, None, None
    most = 1 - 6 / (n * (n**2 - 1))  # half of what two neighbours that change places take from 1
    centre = atanh(min(max(rho, -most), most))
    half = NORMAL_95 * sqrt((1 + rho**2 / 2) / (n - 3))
    return n, rho, min(rho, tanh(centre - half)), max(rho, tanh(centre + half))


def task_correlations(board: Board) -> list[Correlation]:
    """Of every two columns; all turned so that higher is better."""
    scores = _scores(board)
    pairs = combinations([c.key for c in board.columns], 2)
    return [Correlation(a, b, EVERY, *spearman(scores[a], scores[b])) for a, b in pairs]


def size_correlations(board: Board) -> list[Correlation]:
    """Of the overall z-score and of every column with the number of parameters and of pretraining images, over all rows
    and over each family of networks (Battle of the Backbones, Goldblum et al. 2023). Ranks need no logarithm."""
    scores = {"overall": _numbers(row.standing and row.standing.overall for row in board.rows)} | _scores(board)
    sizes = {name: _numbers(of(row) for row in board.rows) for name, of in SIZES.items()}
    kinds = np.array([row.facts.fact("family") or "" for row in board.rows])
    groups = {EVERY: np.ones(len(kinds), dtype=bool)} | {kind: kinds == kind for kind in sorted({*kinds} - {""})}
    return [
        Correlation(a, b, among, *spearman(scores[a][members], sizes[b][members]))
        for b in sizes
        for among, members in groups.items()
        for a in scores
    ]


def _scores(board: Board) -> dict[str, np.ndarray]:
    found = {}
    for c in board.columns:
        values = _numbers(row.cells[c.key].value if c.key in row.cells else None for row in board.rows)
        found[c.key] = values if c.higher_is_better else -values
    return found


def _numbers(values: Iterable[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)
