"""Figures: what a backbone costs, measured here."""

import gc
import time
import weakref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .subject import Broken, Figure, Subject


def parameters_are_counted(subject: Subject) -> Figure:
    """`parameters_count` is the number of values in all weights, and all of them are the body's."""
    backbone = subject.backbone
    counted, found = backbone.parameters_count, sum(p.numel() for p in backbone.parameters())
    if counted != found:
        raise Broken(f"parameters_count says {counted:,}, the weights hold {found:,} values")
    return Figure(f"{counted / 1e6:.2f} M parameters", counted / 1e6, "M")


def macs_are_counted(subject: Subject) -> Figure:
    """Multiply-accumulates of convolutions and matrix products for one image, by torch's own counter."""
    macs, side = subject.observed[1], subject.backbone.input.size
    if macs == 0:
        raise Broken("no convolution or matrix product was seen in a pass")
    return Figure(f"{macs / 1e9:.3g} G multiply-accumulates at {side} px", macs / 1e9, "G")


def peak_memory_is_measured(subject: Subject) -> Figure:
    """The most that tensors made in a pass hold at one time, beside the weights; and a pass keeps none of it.

    Seen from torch's operators, one by one; what an operator takes for itself while it runs is not counted on a CPU.
    """
    batch = _batch(subject)
    with torch.no_grad(), _Held([*subject.backbone.parameters(), *subject.backbone.buffers(), batch]) as held:
        # What a first pass leaves may be a cache; what a second one adds is a leak.
        subject.backbone(batch)
        once = held.now
        subject.backbone(batch)
        if held.now > once:
            gc.collect()
    if held.now > once:
        raise Broken(f"every pass keeps {(held.now - once) / 2**20:.3g} MiB; are outputs stored on a module?")
    return Figure(f"{held.peak / 2**20:.3g} MiB at batch {len(batch)}", held.peak / 2**20, "MiB")


def throughput_is_measured(subject: Subject) -> Figure:
    """Images per second through the network alone, on this device."""
    batch = _batch(subject)
    passes, seconds = 0, 0.0
    while seconds < 0.05:
        start = time.perf_counter()
        with torch.no_grad():
            subject.backbone(batch)
        if batch.is_cuda:
            torch.cuda.synchronize(batch.device)
        passes, seconds = passes + 1, seconds + time.perf_counter() - start
    rate = passes * len(batch) / seconds
    where = f"{subject.device}, {torch.get_num_threads()} threads" if subject.device == "cpu" else subject.device
    return Figure(f"{rate:.3g} images/s at batch {len(batch)} on {where}", rate, "images/s")


def _batch(subject: Subject) -> Tensor:
    """Eight images, or one where eight would take a CPU minutes."""
    size = 1 if subject.device == "cpu" and subject.observed[1] > 20e9 else 8
    return subject.images[:1].expand(size, -1, -1, -1).contiguous()


class _Held(TorchDispatchMode):
    """Bytes that tensors made inside hold `now`, and held at their `peak`; views and `known` tensors hold none."""

    def __init__(self, known: list[Tensor]):
        super().__init__()
        self.now = self.peak = 0
        self._live: dict[int, object] = {tensor.untyped_storage()._cdata: None for tensor in known}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._live:
            return

        def gone(_: object) -> None:
            self.now -= size
            del self._live[key]

        self._live[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)
