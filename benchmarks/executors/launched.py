"""Cells of a run that was launched in several processes: all train, the first does everything else."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...leaderboard import Result
from ...tasks import find_task
from ...tasks.context import silent
from ...tasks.training.processes import Released, check_device, from_first, rank, together
from ..cell import Job, compute, run_cell
from ..plan import Cell
from .local import Event, Listener, attempt


def execute(cells: Sequence[Cell], job: Job, listener: Listener) -> None:
    """Run all cells, one after another; every process's `listener` is told how each ended, as by `local.execute`."""
    together(partial(check_device, job.device))
    for cell in cells:
        listener(Event("started", cell.id))
        ended: Any = None
        if rank() == 0:
            ended = attempt(cell, job, listener, _lead)
        elif find_task(cell.task).trains:
            with suppress(Exception):  # what fails in one process fails in all, and the first tells of it
                together(partial(_help, cell, job))
        listener(from_first(lambda ended=ended: ended))


def _lead(cell: Cell, job: Job, progress: Callable[[str, int, int], None]) -> Result:
    run = partial(run_cell, cell, job, progress)
    return together(run) if find_task(cell.task).trains else run()


def _help(cell: Cell, job: Job) -> None:
    """Takes part in a cell until the first process needs no help; what is written goes nowhere."""
    with TemporaryDirectory() as scratch, suppress(Released):
        compute(cell, job, Path(scratch), silent)
