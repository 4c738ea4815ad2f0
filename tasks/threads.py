"""Threads and determinism: a sum has one order only where one thread takes it."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, every torch operator runs on the thread that calls it: the same bits on any number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def compute_alone(precision: str = "float32") -> None:
    """Settings of the calling thread, for good: it computes alone, and in half precision casts each weight once."""
    torch.set_num_threads(1)
    if precision != "float32":
        # What an autocast has cast it keeps until the outermost one ends: around each batch that is a cast a batch.
        torch.autocast("cpu", getattr(torch, precision)).__enter__()


@contextmanager
def attention_in_products(precision: str) -> Iterator[None]:
    """Inside, attention in half precision is two matrix products and a softmax.

    At the lengths of a ViT on a CPU that takes two thirds of the time of torch's fused kernel, which is made for long
    sequences.
    """
    if precision == "float32":
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    settings = torch.backends.cuda  # of this kernel on a CPU too
    before = settings.fp16_bf16_reduction_math_sdp_allowed()
    settings.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        settings.allow_fp16_bf16_reduction_math_sdp(before)


@cache
def keep_freed_memory() -> None:
    """For good: what a batch frees is kept for the next one, up to 256 MiB a thread, where the C library is glibc.

    Threads would give it back and fault it in again page by page, which costs a sixth of a small network's time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(TRIM_THRESHOLD, 256 << 20)
    mallopt(MMAP_THRESHOLD, 32 << 20)  # the most that it takes


def cores() -> int:
    """How many CPU cores this process may use: those of the machine, shared out among processes launched together."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, there // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
