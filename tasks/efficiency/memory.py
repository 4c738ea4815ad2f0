"""Bytes that one image takes: kept for a backward pass, and alive at once without one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def kept_for_backward(module: nn.Module, call: Callable[[], Any]) -> int:
    """Bytes of the tensors that autograd keeps of `call()` to go back through it, each once; weights are not counted,
    they are there anyway. The same on every machine with the same kernels."""
    own, kept = _storages(module), dict[int, Tensor]()

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = tensor  # held, so that no other takes its place
        return tensor

    hooks = saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.inference_mode(False), torch.enable_grad(), all_trained(module), hooks:
        result = call()  # held too: its graph goes with it
    bytes_kept = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del result
    return bytes_kept


def peak_bytes(module: nn.Module, call: Callable[[], Any], device: str) -> int:
    """The most bytes that are alive at once during `call()` without gradients, weights among them.

    On a GPU those that torch's allocator has given out. On a CPU those of the tensors that operators return: counted,
    so the same in every run, but without what a kernel needs for itself while it runs.
    """
    weights = sum(tensor.untyped_storage().nbytes() for tensor in _tensors(module))
    if torch.device(device).type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        with torch.inference_mode():
            call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before + weights
    with torch.inference_mode(False), torch.no_grad(), LiveTensors(module) as live:
        call()
    return weights + live.peak


class LiveTensors(TorchDispatchMode):
    """Inside, counts the bytes of what operators return while it lives: `peak`, the most at once. Tensors of `module`
    are left out; inference mode would hide operators."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.peak = 0
        self._own = _storages(module)
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, output)):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self._own:
                storage = tensor.untyped_storage()
                self._live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._live = {key: found for key, found in self._live.items() if not found[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return output


@contextmanager
def all_trained(module: nn.Module) -> Iterator[None]:
    """Inside, every weight asks for its gradient, as in fine-tuning."""
    asleep = [weight for weight in module.parameters() if weight.is_floating_point() and not weight.requires_grad]
    for weight in asleep:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight in asleep:
            weight.requires_grad_(False)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _storages(module: nn.Module) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in _tensors(module)}
