"""Several processes that `torchrun` or `accelerate launch` started to do one run: they are heard as one and end as one.

Torch is imported only where there are several.
"""

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import TypeVar

T = TypeVar("T")

INTERRUPTED = 130  # exit code


def launched() -> bool:
    """Whether this process is one of several."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Whether this process stores results and tells of them."""
    return not launched() or os.environ["RANK"] == "0"


def as_one(command: Callable[[], int]) -> int:
    """The exit code of a command that each process runs. Only the first is heard; no process ends before it has."""
    if not launched():
        return command()
    from ..tasks.training import processes

    processes.join()
    with ExitStack() as quiet:
        quiet.callback(processes.leave)
        if not is_first():
            silence = quiet.enter_context(open(os.devnull, "w"))
            quiet.enter_context(redirect_stdout(silence))
            quiet.enter_context(redirect_stderr(silence))
        code = command()
        sys.stdout.flush()
        if code != INTERRUPTED:  # else the launcher ends the others
            processes.wait()
        return code


def together(action: Callable[[], T]) -> T:
    """What `action` gives in this process; where it fails in one, it fails in all."""
    if not launched():
        return action()
    from ..tasks.training import processes

    processes.join()
    return processes.together(action)


def from_first(action: Callable[[], T]) -> T:
    """What `action` gives in the first process, in all."""
    if not launched():
        return action()
    from ..tasks.training import processes

    processes.join()
    return processes.from_first(action)
