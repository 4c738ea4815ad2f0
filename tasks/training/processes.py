"""One training on several processes: how they join, and what they tell each other. A process alone needs none of it.

`torchrun` and `accelerate launch` start the processes and give each RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT. Weights are alike in all; each takes its own rows of every batch, and gradients are summed. Files are read
and written by the first process alone, so that other machines need not see them.

Nobody may wait for a process that has given up. So whatever can fail runs within `together`, or what is made of it:
there each process says whether it failed, and what failed in one is raised in all. Collective calls of others, as of
mmengine's Runner, find the group joined; a process that fails in the midst of those must end.
"""

import os
import socket
import traceback
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ...backbones.errors import BadInput, NotApplicable, Unavailable

T = TypeVar("T")

PATIENCE = timedelta(days=7)  # the first may compute alone for long; who has died is noticed by the launcher
KINDS = (BadInput, NotApplicable, Unavailable, torch.OutOfMemoryError)  # that are raised as such in the others, too
KNOWN = "known_to_all"  # mark of an error that every process raises


class Released(BaseException):
    """The first process goes on with the task alone. No failure, so nothing on the way may take it for one."""


def join() -> None:
    """Joins the group of the processes that were launched together: gloo for the CPU, NCCL for GPUs."""
    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "cpu:gloo", timeout=PATIENCE)


def leave() -> None:
    """Ends the group, where there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def check_device(device: str) -> None:
    """Raises BadInput where two processes would compute on one GPU."""
    if count() > 1:
        places: list[tuple[str, str]] = [("", "")] * count()
        dist.all_gather_object(places, (socket.gethostname(), device))
        if device.startswith("cuda") and len(set(places)) < len(places):
            raise BadInput(f"--device {device}: several processes would share it; leave --device out: each has its own")


def wait() -> None:
    """Returns when every process has come here."""
    total(0)


def own_rows(batch: Sequence[T]) -> list[T]:
    """Those of a batch that this process trains on; of a batch too small for all, every process takes everything.

    Row i goes with row B - 1 - i: timm mixes these two, so that they are mixed as in one process.
    """
    size = len(batch)
    if size < 2 * count():
        return list(batch)
    firsts = range(rank(), size - size // 2, count())
    lasts = [size - 1 - i for i in reversed(firsts) if i < size // 2]
    return [batch[i] for i in (*firsts, *lasts)]


def together(action: Callable[[], T]) -> T:
    """What `action` gives in this process; where it fails in one, all raise the failure of the first that did."""
    if count() == 1:
        return action()
    found: Any = None
    failure: Exception | None = None
    try:
        found = action()
    except Exception as error:
        if getattr(error, KNOWN, False):
            raise
        failure = error
    if total(failure is not None):
        raise _common(failure)
    return found


def from_first(action: Callable[[], T]) -> T:
    """What `action` gives in the first process, the only one that runs it, in all."""
    if count() == 1:
        return action()
    found: list[Any] = [together(action if rank() == 0 else lambda: None)]
    dist.broadcast_object_list(found)
    return found[0]


def first_then_others(action: Callable[[], T]) -> T:
    """As `together`, but the first process before the others: features that it puts in the bank are there for them."""
    if rank() == 0:
        found = together(action)
        together(lambda: None)
        return found
    together(lambda: None)
    return together(action)


def rest_is_for_first() -> None:
    """Ends the task in all processes but the first, which needs no help any more. Raises Released there."""
    if rank():
        raise Released


def total(number: float) -> float:
    """The sum of a number over all processes."""
    if count() == 1:
        return number
    summed = torch.tensor(float(number), dtype=torch.double)
    dist.all_reduce(summed)
    return summed.item()


def sum_gradients(weights: Iterable[Tensor]) -> None:
    """Gives each weight the sum of its gradients; where no process has one it stays without."""
    if count() == 1:
        return
    weights = list(weights)
    have = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.int)
    dist.all_reduce(have)
    works = []
    for weight in (weight for weight, one_has in zip(weights, have.tolist(), strict=True) if one_has):
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        works.append(dist.all_reduce(weight.grad, async_op=True))
    for work in works:
        work.wait()


def tensors_of_first(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The first process's tensors, on the CPU; the others' own may be fewer, or none."""
    if count() == 1:
        return tensors
    shapes = from_first(lambda: {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()})
    found = {}
    for name, (shape, dtype) in shapes.items():
        own = rank() == 0
        found[name] = tensors[name].detach().cpu().contiguous() if own else torch.empty(shape, dtype=dtype)
        dist.broadcast(found[name], 0)
    return found


def _common(failure: Exception | None) -> Exception:
    """The failure of the first process that has one: itself there, in those that have the same one their own, in the
    others one of its kind that says where."""
    told: list[tuple[int, str, str] | None] = [None] * count()
    mine = None
    if failure:
        kind = next((i for i, kind in enumerate(KINDS) if isinstance(failure, kind)), len(KINDS))
        text = str(failure) if kind < len(KINDS) else f"{type(failure).__name__}: {failure}"
        mine = kind, text, "".join(traceback.format_exception(failure))
    dist.all_gather_object(told, mine)
    where, (kind, text, trace) = next((i, said) for i, said in enumerate(told) if said)
    if failure and mine and mine[:2] == (kind, text):
        error = failure
    else:
        error = [*KINDS, RuntimeError][kind](f"in process {where}: {text}")
        error.add_note(trace)
    setattr(error, KNOWN, True)
    return error
