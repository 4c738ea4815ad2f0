"""What a run has of its backbones, column by column: results, or the reason why there is none."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ...backbones.errors import BadInput
from ...leaderboard import Consistency, Difference, Result, compare, error_consistency
from ...leaderboard.comparison import holm
from ...leaderboard.result import Score
from ...leaderboard.selection import averaged
from ...tasks import Task, find_task
from ..plan import Cell

if TYPE_CHECKING:
    from ...tasks import Measure
    from ..runner import Report


@dataclass(frozen=True)
class Side:
    """One backbone in one column: its results by seed, or why there are none."""

    results: tuple[Result, ...]
    reason: str = ""

    @cached_property
    def scores(self) -> dict[str, Score]:
        """Means over seeds with their intervals; those that every seed has."""
        first, *others = [r.scores for r in self.results] or [{}]
        return {
            name: _averaged([score, *(scores[name] for scores in others)]) if others else score
            for name, score in first.items()
            if all(name in scores for scores in others)
        }


@dataclass(frozen=True)
class Row:
    """One column of the suite, and the `sides` that are set against each other: one or two."""

    label: str
    task: Task
    description: str
    ranked: bool
    sides: tuple[Side, ...]
    difference: Difference | None = None

    @property
    def complete(self) -> bool:
        """Whether every side has results."""
        return all(side.results for side in self.sides)


def rows_of(run: "Report", names: Sequence[str]) -> list[Row]:
    """A row a column of the run that any of the named backbones was planned for, in the suite's order."""
    from ...tasks import list_tasks

    described = {entry.name: entry.description for entry in list_tasks()}
    columns: dict[str, list[Cell]] = {}
    for cell in run.cells:
        if cell.card.name in names and not is_pair(cell):
            columns.setdefault(cell.column, []).append(cell)
    asked = [(cells[0].asked, cells[0].dataset.name) for cells in columns.values()]
    rows = []
    for cells, (label, dataset) in zip(columns.values(), asked, strict=True):
        several = len({data for other, data in asked if other == label}) > 1
        ranked = all(e.ranked for e in run.suite.entries if (e.task, e.name) == (cells[0].task, cells[0].name))
        sides = tuple(_side(run, [cell for cell in cells if cell.card.name == name]) for name in names)
        task = find_task(cells[0].task)
        shown = f"{label} on {dataset}" if several else label
        rows.append(Row(shown, task, described[task.name], ranked, sides))
    return rows


def pair_of(run: "Report", names: Sequence[str]) -> list[tuple[Task, Side]]:
    """What was run of the two together, task by task."""
    cells = [c for c in run.cells if is_pair(c) and c.card.name == names[0] and c.other and c.other.name == names[-1]]
    by_column: dict[str, list[Cell]] = {}
    for cell in cells:
        by_column.setdefault(cell.column, []).append(cell)
    return [(find_task(of[0].task), _side(run, of)) for of in by_column.values()]


def is_pair(cell: Cell) -> bool:
    """Whether it is one of an entry that is run once for each two backbones."""
    return cell.other is not None and cell.name == f"with {cell.other.name}"


def compared(rows: Sequence[Row], measure_of: Callable[[Result], "Measure"]) -> list[Row]:
    """Rows with the paired difference of their two sides, where there is one; p-values corrected for all of them."""
    found = [replace(row, difference=_difference(row, measure_of)) for row in rows]
    differences = [row.difference for row in found if row.difference]
    corrected = iter(holm([d.p for d in differences]))
    return [
        replace(row, difference=replace(row.difference, p_holm=next(corrected))) if row.difference else row
        for row in found
    ]


def consistencies(rows: Sequence[Row], measure_of: Callable[[Result], "Measure"]) -> Iterator[tuple[Row, Consistency]]:
    """Rows in which each example has one answer, with how far both fail on the same ones; of several that ask the same
    network the same, the first."""
    seen = set()
    for row in rows:
        if row.complete and len(row.sides) == 2:
            try:
                (found,) = error_consistency([side.results for side in row.sides], measure_of)
            except BadInput:  # one of detection, say, or of another protocol
                continue
            if (same := (found.examples, found.a, found.b, found.kappa)) not in seen:
                seen.add(same)
                yield row, found


def _side(run: "Report", cells: Sequence[Cell]) -> Side:
    results = tuple(run.results[cell.id] for cell in cells if cell.id in run.results)
    if results:
        return Side(results)
    for words, told in (("not applicable", run.not_applicable), ("failed", run.failed)):
        if reasons := [told[cell.id] for cell in cells if cell.id in told]:
            return Side((), f"{words}: {reasons[0]}")
    return Side((), "not run")


def _difference(row: Row, measure_of: Callable[[Result], "Measure"]) -> Difference | None:
    if len(row.sides) < 2 or not row.complete:
        return None
    a, b = (side.results for side in row.sides)
    try:
        return compare(a, b, measure_of)[0]
    except BadInput:  # of another device, or predictions that are gone: then there is no pair
        return None


def _averaged(scores: Sequence[Score]) -> Score:
    value, low, high = (np.array([getattr(s, key) for s in scores]) for key in ("value", "low", "high"))
    mean = averaged(value, low, high, scores[0].range_low, scores[0].range_high)
    return scores[0].model_copy(update=dict(zip(("value", "low", "high"), mean, strict=True)))
