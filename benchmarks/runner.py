"""Run a suite or a task: plan, skip what is done, execute the rest, report."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..backbones import Backbone, BackboneCard, Loading
from ..backbones.loading import PLAIN, pick_device
from ..leaderboard import Result, Store
from .cell import Job
from .executors.local import Event, execute
from .home import home_folder, run_folder
from .plan import Cell, find_backbones, plan, resolve
from .suite import Suite


@dataclass
class Report:
    """How a run ended: results by cell id, the cells that were not run again, and reasons of the others."""

    suite: Suite
    cells: list[Cell]
    results: dict[str, Result] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    not_applicable: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether no cell failed."""
        return not self.failed


def run(
    target: str,
    backbones: Iterable[str | BackboneCard | Backbone] = (),
    *,
    dataset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    seeds: int | None = None,
    limit: int | None = None,
    device: str = "auto",
    loading: Loading = PLAIN,
    home: Path | str | None = None,
    workers: int = 1,
    watch: bool = False,
) -> Report:
    """Run a suite or a task on `backbones` (default: the suite's own). Finished cells are not run again.

    `settings` changes recipes, `limit` caps every split, `loading` says how networks compute, `watch` shows progress.
    `workers`: 1 is this process, more are worker processes, 0 as many as make sense; scores do not depend on it.
    Raises BadInput before anything runs.
    """
    suite = resolve(target, dataset, settings)
    folder = home_folder(home)
    names = list(backbones) or list(suite.backbones)
    cells = plan(suite, find_backbones(names), folder, seeds=seeds, limit=limit, loading=loading)
    return run_cells(suite, cells, Job(folder, pick_device(device)), workers=workers, watch=watch)


def run_cells(suite: Suite, cells: Sequence[Cell], job: Job, *, workers: int = 1, watch: bool = False) -> Report:
    """Run the cells that are not finished yet."""
    from .progress import Progress

    started = time.perf_counter()
    report = Report(suite, list(cells))
    store = Store(job.home / "leaderboard.db")
    todo = []
    for cell in cells:
        if result := store.by_cell(cell.id):
            report.results[cell.id] = result
            report.skipped.add(cell.id)
        elif (mark := run_folder(job.home, cell.id) / "not-applicable").exists():
            report.not_applicable[cell.id] = mark.read_text(encoding="utf-8")
            report.skipped.add(cell.id)
        else:
            todo.append(cell)
    with Progress(report.cells, done=len(cells) - len(todo), shown=watch and bool(todo)) as display:

        def listen(event: Event) -> None:
            if event.kind == "finished":
                report.results[event.cell] = event.result
            elif event.kind == "not-applicable":
                report.not_applicable[event.cell] = event.text
            elif event.kind == "failed":
                report.failed[event.cell] = event.text
            display.show(event)

        execute(todo, job, listen, workers)
    report.seconds = time.perf_counter() - started
    return report
