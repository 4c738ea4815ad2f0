"""Several backbones over several tasks: average ranks, and which of them are too near each other to tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np

from ..backbones.errors import BadInput, unknown
from .board import Board
from .ranking import column_ranks

LEVEL = 0.05  # of the error of each of the two tests


@dataclass(frozen=True)
class CriticalDifference:
    """`names` with their average `ranks` over the `tasks`, best first (Demšar 2006).

    `p`: Friedman's test that all are the same; `distance`: Nemenyi's critical difference, how far apart two average
    ranks must lie; `groups`: the largest runs of neighbours nearer than that, one of all where Friedman's test finds
    nothing. The tasks count as a sample of those that there could be. Whether two differ on just these tasks is another
    question, which `compare` answers from the test examples, and with far less room for chance.
    """

    names: tuple[str, ...]
    ranks: tuple[float, ...]
    tasks: tuple[str, ...]
    p: float
    distance: float
    groups: tuple[range, ...]


def critical_difference(board: Board, names: Sequence[str]) -> CriticalDifference:
    """Of the named backbones over the ranked columns in which all of them have a score. Raises BadInput for a name that
    is not there, and for fewer than three backbones or two such columns, from which nothing can be said."""
    rows = {row.backbone: row for row in board.rows}
    for name in names:
        if name not in rows:
            raise unknown("backbone on this board", name, rows)
    chosen = [rows[name] for name in dict.fromkeys(names)]
    columns = [c for c in board.columns if c.ranked and all(c.key in row.cells for row in chosen)]
    if len(chosen) < 3 or len(columns) < 2:
        raise BadInput(
            f"{len(chosen)} backbones with {len(columns)} ranked tasks in common: a critical difference takes 3 and 2"
        )
    scores = np.array([[(1 if c.higher_is_better else -1) * r.cells[c.key].value for c in columns] for r in chosen])
    return of_scores(scores, [row.backbone for row in chosen], [c.key for c in columns])


def of_scores(scores: np.ndarray, names: Sequence[str], tasks: Sequence[str]) -> CriticalDifference:
    """The same of (k, N) scores of k ≥ 3 backbones in N ≥ 2 tasks, all higher-is-better."""
    from scipy.stats import friedmanchisquare, studentized_range

    k, n = scores.shape
    ranks = column_ranks(scores).mean(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = float(friedmanchisquare(*scores).pvalue)
    p = p if isfinite(p) else 1.0  # all are equal everywhere
    distance = float(studentized_range.ppf(1 - LEVEL, k, np.inf) / sqrt(2) * sqrt(k * (k + 1) / (6 * n)))
    order = sorted(range(k), key=lambda i: (ranks[i], names[i]))
    found = [float(ranks[i]) for i in order]
    groups = _near(found, distance) if p < LEVEL else (range(k),)
    return CriticalDifference(tuple(names[i] for i in order), tuple(found), tuple(tasks), p, distance, groups)


def _near(ranks: Sequence[float], distance: float) -> tuple[range, ...]:
    """The largest runs of two or more of the sorted ranks whose ends are less than the distance apart."""
    runs = [
        range(i, 1 + max(j for j in range(len(ranks)) if ranks[j] - ranks[i] < distance)) for i in range(len(ranks))
    ]
    return tuple(r for i, r in enumerate(runs) if len(r) > 1 and (i == 0 or r.stop > runs[i - 1].stop))
