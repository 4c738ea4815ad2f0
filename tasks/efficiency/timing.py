"""Seconds of a call on a device: nothing waits in its queue, no garbage is collected, threads are counted."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch


def seconds_of(call: Callable[[], Any], device: str) -> float:
    """Wall-clock seconds from an idle device to an idle device."""
    finish(device)
    started = perf_counter()
    call()
    finish(device)
    return perf_counter() - started


def finish(device: str) -> None:
    """Waits until a GPU has done what was asked of it; a CPU has when it returns."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def undisturbed(threads: int) -> Iterator[None]:
    """Inside, torch computes on so many threads of the CPU, and Python collects no garbage."""
    before, collecting = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(threads)
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if collecting:
            gc.enable()
