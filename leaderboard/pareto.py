"""Which backbones are not beaten in all that counts at once: the Pareto front of a score and of what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..backbones.errors import BadInput, unknown
from .board import Board
from .listing import Field, fields

COSTS = ("parameters", "macs")  # less is better, where a table just states them
OBJECTIVES = ("overall", "parameters")


@dataclass(frozen=True)
class Candidate:
    """A backbone with its value in every objective; `front`: no other is as good in all of them and better in one."""

    backbone: str
    values: dict[str, float]
    front: bool


def on_front(values: np.ndarray) -> np.ndarray:
    """(n,) bool: which of (n, k) values, all higher-is-better, no other row dominates; equal rows stand together."""
    found = np.ones(len(values), dtype=bool)
    for i, row in enumerate(values):
        found[i] = not ((values >= row).all(axis=1) & (values > row).any(axis=1)).any()
    return found


def pareto_front(board: Board, objectives: Sequence[str] = OBJECTIVES) -> list[Candidate]:
    """Every backbone that has a value in all `objectives` (keys of the board's `fields`), in order of the last one, the
    best first. Raises BadInput."""
    known = {f.key: f for f in fields(board) if f.best or f.key in COSTS}
    for key in objectives:
        if key not in known:
            raise unknown("objective", key, known)
    if len(set(objectives)) < 2:
        raise BadInput("a Pareto front needs two objectives or more, such as overall and parameters")
    chosen = [known[key] for key in dict.fromkeys(objectives)]
    stated = [(row.backbone, [field.value(row) for field in chosen]) for row in board.rows]
    complete = [(name, values) for name, values in stated if None not in values]
    if not complete:
        nobody = [field.key for i, field in enumerate(chosen) if all(values[i] is None for _, values in stated)]
        raise BadInput(f"no backbone on this board has {' or '.join(nobody) or 'all of ' + ', '.join(objectives)}")
    table = np.array([values for _, values in complete], dtype=float) * [_sign(field) for field in chosen]
    front = on_front(table)
    order = np.lexsort((*(-table.T[:-1][::-1]), -table.T[-1]))
    return [
        Candidate(complete[i][0], dict(zip((f.key for f in chosen), complete[i][1], strict=True)), bool(front[i]))
        for i in order
    ]


def _sign(field: Field) -> int:
    return 1 if field.best == "high" else -1
