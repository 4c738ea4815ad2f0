"""Run a suite or a task: plan, skip what is done, execute the rest, report."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..backbones import Backbone, BackboneCard, Loading
from ..backbones.errors import BadInput
from ..backbones.loading import PLAIN, pick_device
from ..leaderboard import Result, require_wandb, track
from .cell import Job
from .executors import local
from .home import home_folder, run_folder, store_of
from .launch import from_first, is_first, launched, together
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
    tracked: str = ""  # what became of the copy in wandb, one line

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
    strict: bool | None = None,
    loading: Loading = PLAIN,
    home: Path | str | None = None,
    workers: int = 1,
    watch: bool = False,
    wandb: bool = False,
    database: str | None = None,
) -> Report:
    """Run a suite or a task on `backbones` (default: the suite's own). Finished cells are not run again.

    `settings` changes recipes, `limit` caps every split, `loading` says how networks compute, `watch` shows progress.
    `strict`: whether faulty images and annotations stop the run or are left out; None is what the data sets' cards say.
    `workers`: 1 is this process, more are worker processes, 0 as many as make sense; scores do not depend on it.
    `wandb`: log results as runs of Weights & Biases too, when all cells are through.
    `database`: URL of the SQLite or PostgreSQL database that keeps the results, else the home's own file.
    Raises BadInput before anything runs. In processes that were launched together (by `torchrun`, say) all call this:
    they train together, and each gets the report.
    """
    suite = resolve(target, dataset, settings)
    folder = home_folder(home)
    names = list(backbones) or list(suite.backbones)
    how = {"seeds": seeds, "limit": limit, "strict": strict, "loading": loading, "device": device}
    cells = plan(suite, find_backbones(names), folder, **how)
    job = Job(folder, pick_device(device), database=database)
    return run_cells(suite, cells, job, workers=workers, watch=watch, wandb=wandb)


def run_cells(
    suite: Suite, cells: Sequence[Cell], job: Job, *, workers: int = 1, watch: bool = False, wandb: bool = False
) -> Report:
    """Run the cells that are not finished yet. Raises Unavailable where wandb is asked for and not installed."""
    from .progress import Progress, waiting

    if wandb:
        require_wandb()

    started = time.perf_counter()
    ids, results, not_applicable = from_first(lambda: _done(cells, job))
    together(lambda: _check_same(ids, cells))
    report = Report(suite, list(cells), results, {*results, *not_applicable}, not_applicable)
    todo = [cell for cell in cells if cell.id not in report.skipped]
    with Progress(report.cells, done=len(report.skipped), shown=watch and bool(todo) and is_first()) as display:

        def listen(event: local.Event) -> None:
            if event.kind == "finished":
                report.results[event.cell] = event.result
            elif event.kind == "not-applicable":
                report.not_applicable[event.cell] = event.text
            elif event.kind == "failed":
                report.failed[event.cell] = event.text
            display.show(event)

        if launched():
            from .executors.launched import execute

            execute(todo, job, listen)
        else:
            local.execute(todo, job, listen, workers)
    report.seconds = time.perf_counter() - started
    if wandb and is_first():
        with waiting("logging to wandb", watch):
            report.tracked = track(report.results.values(), suite.name, job.home)
    return report


def _done(cells: Sequence[Cell], job: Job) -> tuple[list[str], dict[str, Result], dict[str, str]]:
    """Ids of all cells; what is known of those that were run: results, and reasons of those that are not applicable."""
    store = store_of(job.home, job.database)
    results, not_applicable = {}, {}
    for cell in cells:
        if result := store.by_cell(cell.id):
            results[cell.id] = result
        elif (mark := run_folder(job.home, cell.id) / "not-applicable").exists():
            not_applicable[cell.id] = mark.read_text(encoding="utf-8")
    return [cell.id for cell in cells], results, not_applicable


def _check_same(ids: Sequence[str], cells: Sequence[Cell]) -> None:
    """Raises BadInput where this process, perhaps on another machine, plans other cells than the first."""
    if ids != [cell.id for cell in cells]:
        told = next((c.label for c, id in zip(cells, ids, strict=False) if c.id != id), f"{len(cells)} cells")
        raise BadInput(f"{told}: the first process plans it otherwise; give all the same command, cards and data")
