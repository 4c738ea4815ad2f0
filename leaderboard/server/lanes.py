"""A process of its own for work that is heavy or handles what a stranger sent: it may die, the server does not."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from typing import Any

from ...backbones.errors import BadInput, NotApplicable, Unavailable

PATIENCE = 120  # seconds that a process may take to start
MENDABLE = (BadInput, NotApplicable, Unavailable)


class Stopped(Exception):
    """The lane was closed while it worked: nothing is known of the work."""


class Broken(Exception):
    """The work took too long, or its process died, or it raised something that nobody foresaw."""


class Lane:
    """Calls `function` (picklable) in a process that stays, one call at a time, each in `seconds` at most.

    Raises BadInput and its kin as `function` does, else Broken, after which a new process is started; Stopped.
    """

    def __init__(self, function: Callable[..., Any], seconds: float):
        self._function, self._seconds = function, seconds
        self._process: Any = None
        self._pipe: Connection | None = None
        self._ready = False
        self._closed = False
        self._thread = ThreadPoolExecutor(1)  # waits for the process; one, so that calls come one after the other
        self.callers = 0  # that are served or wait for their turn

    async def __call__(self, *args: Any) -> Any:
        """The function's value; waits until calls before this one are done."""
        if self._closed:
            raise Stopped
        self.callers += 1
        try:
            outcome = await asyncio.get_running_loop().run_in_executor(self._thread, self._called, args)
        finally:
            self.callers -= 1
        if isinstance(outcome, Exception):
            raise outcome
        return outcome[0]

    async def close(self) -> None:
        """Ends the process, whatever it does; calls that wait raise Stopped."""
        self._closed = True
        if self._process is not None:
            self._process.kill()
        await asyncio.to_thread(self._thread.shutdown)

    def _called(self, args: tuple) -> Any:
        if self._closed:
            return Stopped()
        pipe = self._pipe or self._started()
        try:
            if not self._ready:
                self._ready = pipe.poll(PATIENCE) and pipe.recv()
            pipe.send(args)
            if pipe.poll(self._seconds):
                return pipe.recv()
            said = f"it took longer than {self._seconds:g} seconds"
        except (EOFError, OSError):
            if self._closed:
                return Stopped()
            said = "its process died, perhaps of too little memory"
        self._process.kill()
        self._process.join()
        pipe.close()
        self._pipe = None
        return Broken(said)

    def _started(self) -> Connection:
        spawn = multiprocessing.get_context("spawn")  # a fork would inherit threads, sockets and locks
        ours, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_work, args=(theirs, self._function), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe, self._ready = ours, False
        return ours


def _work(pipe: Connection, function: Callable[..., Any]) -> None:
    """The process: call after call until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to handle
    threading.Thread(target=_die_with_parent, daemon=True).start()
    pipe.send(True)  # starting is no part of the first call's time
    while True:
        try:
            args = pipe.recv()
        except EOFError:
            return
        pipe.send(_outcome(function, args))


def _outcome(function: Callable[..., Any], args: tuple) -> Any:
    try:
        return (function(*args),)
    except MENDABLE as error:
        # Kinds of kinds may not be made of a text alone, which the way through the pipe does.
        return next(kind for kind in MENDABLE if isinstance(error, kind))(str(error))
    except Exception as error:
        import traceback

        traceback.print_exc()  # into the server's log
        return Broken(f"unexpected {type(error).__name__}")


def _die_with_parent() -> None:
    """A server that was killed leaves nobody behind who still writes."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
