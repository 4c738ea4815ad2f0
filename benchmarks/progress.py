"""One display for a whole run: cells done, what runs now, time left. Quiet when nobody watches a terminal."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from .executors.local import Event
from .plan import Cell

SLOWEST = 1200.0  # seconds of history that the time left is estimated from


class Progress:
    """A context manager that draws events while they come; `shown=False` or a pipe draws nothing."""

    def __init__(self, cells: Sequence[Cell], *, done: int, shown: bool, console: Console | None = None):
        self.labels = {cell.id: cell.label for cell in cells}
        self.console = console or Console(stderr=True)
        self.bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[stage]}", style="dim", markup=False),
            TimeElapsedColumn(),
            TextColumn("ETA", style="dim"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not (shown and self.console.is_terminal),
            speed_estimate_period=SLOWEST,
        )
        self.total = self.bars.add_task("cells", total=len(cells), completed=done, stage="")
        self.lines = {}

    def __enter__(self) -> "Progress":
        self.bars.start()
        return self

    def __exit__(self, *_) -> None:
        self.bars.stop()

    def show(self, event: Event) -> None:
        """Draw one event."""
        if event.kind == "started":
            self.lines[event.cell] = self.bars.add_task(self.labels[event.cell], total=None, stage="starting")
        elif event.kind == "progress":
            self.bars.update(self.lines[event.cell], stage=event.text, completed=event.done, total=event.total or None)
        else:
            self.bars.remove_task(self.lines.pop(event.cell))
            self.bars.advance(self.total)


def waiting(what: str, shown: bool) -> AbstractContextManager:
    """A context manager that shows on a terminal what is waited for; `shown=False` or a pipe draws nothing."""
    return Console(stderr=True).status(what) if shown else nullcontext()
