"""Cells on this machine: in this process, or side by side in worker processes that may die without hurting the rest."""

import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

from ... import backbones
from ...backbones.errors import BadInput, NotApplicable, Unavailable
from ...tasks import find_task
from ...tasks.threads import cores
from ..cell import Job, run_cell
from ..home import run_folder
from ..plan import Cell


@dataclass(frozen=True)
class Event:
    """Something that happened to a cell. `text` is a reason or a stage; `done` of `total` is the stage's progress."""

    kind: Literal["started", "progress", "finished", "not-applicable", "failed"]
    cell: str
    text: str = ""
    done: int = 0
    total: int = 0
    result: Any = None


Listener = Callable[[Event], None]


def execute(cells: Sequence[Cell], job: Job, listener: Listener, workers: int = 0) -> None:
    """Run all cells; every one ends in exactly one of finished, not-applicable or failed, told to `listener`.

    `workers`: processes, 0 for as many as make sense: one for a GPU, for one cell, or for backbones held in memory.
    """
    in_memory = any(cell.backbone is not cell.card for cell in cells)
    workers = 1 if in_memory or job.device != "cpu" else min(workers or cores(), len(cells))
    if workers <= 1:
        for cell in cells:
            listener(Event("started", cell.id))
            listener(attempt(cell, job, listener))
    else:
        _Crew(job, listener).work(list(cells), workers)


def attempt(cell: Cell, job: Job, listener: Listener, run: Callable[..., Any] = run_cell) -> Event:
    """Run one cell and say how it ended; only an interrupt gets through."""

    def progress(what: str, done: int, total: int) -> None:
        listener(Event("progress", cell.id, what, done, total))

    folder = run_folder(job.home, cell.id)
    try:
        return Event("finished", cell.id, result=run(cell, job, progress))
    except NotApplicable as reason:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "not-applicable").write_text(str(reason), encoding="utf-8")
        return Event("not-applicable", cell.id, str(reason))
    except (BadInput, Unavailable) as reason:
        return Event("failed", cell.id, str(reason))
    except BrokenPipeError:
        raise  # the listening process is gone: nobody is left to tell
    except Exception as error:  # one broken cell never stops the others
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        first_line = (str(error).strip() or "no message").splitlines()[0]
        return Event("failed", cell.id, f"{type(error).__name__}: {first_line} (traceback in {folder / 'error.txt'})")


class _Crew:
    """Worker processes that are handed one cell at a time."""

    def __init__(self, job: Job, listener: Listener):
        # A fork server imports the heavy libraries once and forks workers from a process that has never computed.
        self.context = multiprocessing.get_context("forkserver")
        self.job, self.listener = job, listener
        self.busy: dict[Connection, tuple[Any, Cell]] = {}

    def work(self, queue: list[Cell], count: int) -> None:
        sources = {f"{backbones.__name__}.sources.{cell.card.source}" for cell in queue}
        tasks = {type(find_task(cell.task)).__module__ for cell in queue}
        self.context.set_forkserver_preload([__name__, *sorted(sources | tasks)])
        try:
            for _ in range(count):
                self._hire(queue)
            while self.busy:
                for connection in wait(list(self.busy)):
                    assert isinstance(connection, Connection)
                    self._hear(connection, queue)
        finally:
            for process, _ in self.busy.values():
                process.kill()

    def _hire(self, queue: list[Cell]) -> None:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=_serve, args=(theirs, self.job), daemon=True)
        process.start()
        theirs.close()
        self._hand(ours, process, queue, None)

    def _hear(self, connection: Connection, queue: list[Cell]) -> None:
        process, cell = self.busy[connection]
        try:
            event = connection.recv()
        except (EOFError, ConnectionResetError):
            process.join()
            del self.busy[connection]
            how = f"signal {-process.exitcode}" if (process.exitcode or 0) < 0 else f"exit code {process.exitcode}"
            advice = "; out of memory?" if process.exitcode == -9 else ""
            self.listener(Event("failed", cell.id, f"its worker process died ({how}{advice})"))
            if queue:
                self._hire(queue)
            return
        self.listener(event)
        if event.kind in ("finished", "failed", "not-applicable"):
            self._hand(connection, process, queue, cell)

    def _hand(self, connection: Connection, process: Any, queue: list[Cell], last: Cell | None) -> None:
        """The next cell: of the backbone this worker holds, else of one that nobody works on, else the next."""
        self.busy.pop(connection, None)
        if not queue:
            connection.send(None)
            connection.close()
            return
        taken = {cell.card.name for _, cell in self.busy.values()}
        own = [c for c in queue if last and c.card.name == last.card.name]
        free = [c for c in queue if c.card.name not in taken]
        cell = (own or free or queue)[0]
        queue.remove(cell)
        self.busy[connection] = (process, cell)
        connection.send(cell)
        self.listener(Event("started", cell.id))


def _serve(connection: Connection, job: Job) -> None:
    """A worker's life: cells in, events out, until there are no more or the parent is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    # Should the parent be killed, its workers must not go on in the background.
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    while (cell := connection.recv()) is not None:
        connection.send(attempt(cell, job, connection.send))
