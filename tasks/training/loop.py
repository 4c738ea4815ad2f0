"""The loop of every training: steps of an optimiser, a checkpoint each epoch, a curve to look at.

Killed at any point and started again, it ends in the same weights, on the CPU bit for bit: every random number hangs on
seed, epoch and step alone. A batch is what one step of the optimiser sees; it goes through the network in parts of
`micro_batch` examples, whose gradients are summed, and in smaller ones once the memory is full.

Launched on several processes, each takes its own rows of the batch, in such parts, and the step is that of the whole.
What sees several examples at once, as batch norm does, sees a part; its running statistics are the first process's.
"""

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn

from ...backbones.errors import Unavailable
from ..context import Context
from . import processes
from .checkpoint import Checkpoints, put_back, state_of, write_whole
from .curve import CURVE, sparkline
from .randomness import STEP, own_randomness, seed_all

Column = Tensor | Sequence[Any]
"""One part of a batch, a row an example; what differs in shape from example to example comes as a list."""


class Diverged(RuntimeError):
    """The loss is no longer a number; the message says at which step, with which recipe, and what to try."""

    @classmethod
    def at(cls, plan: "Plan", step: int, loss: float) -> "Diverged":
        """In a training by this plan, at a step (of 1, 2, …)."""
        where = f"step {step} of {plan.epochs * plan.steps} (epoch {-(-step // plan.steps)})"
        advice = "try a lower learning rate, a longer warm-up, or clip_grad"
        return cls(f"{plan.name}: the loss is {loss} at {where}, with {plan.told}; {advice}")


@dataclass(frozen=True)
class Plan:
    """How long and in what portions to train. `made_of` (JSON) decides every bit; `told` is the recipe for messages.

    An epoch has `steps` of `batch` examples, `micro_batch` of them at once in a process; gradients are clipped to norm
    `clip_grad`.
    """

    name: str
    epochs: int
    steps: int
    batch: int
    micro_batch: int
    made_of: Any
    told: str
    clip_grad: float | None = None
    precision: str = "float32"


class Trainee:
    """What a task trains. The loop makes it anew, with the same first weights, whenever it starts or goes on."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Scheduler  # sets the learning rates by step

    def batches(self, first: int) -> Iterator[tuple[Column, ...]]:
        """The batches from epoch `first` (of 0, 1, …) on; of several processes each has its `own_rows` of them."""
        raise NotImplementedError

    def prepare(self, *batch: Any) -> tuple[Column, ...]:
        """All rows of `batches` on the device, as `loss` takes parts of them; random numbers are those of the step, the
        same in every process."""
        return batch

    def loss(self, *part: Any) -> Tensor:
        """The mean loss of some rows of a prepared batch."""
        raise NotImplementedError

    def train(self) -> None:
        """Puts the model in the mode for training."""
        self.model.train()

    def validate(self) -> dict[str, float]:
        """Scores on validation data by name, for the curve; in the first process alone, the model in eval mode."""
        return {}


@dataclass(frozen=True)
class Trained:
    """A trainee after its last epoch, its model in eval mode, and the curve: loss, scores and more by epoch."""

    trainee: Any
    curve: list[dict[str, Any]]


Attempt = Callable[[Any, Plan, int, Path, Context], Trained]
"""(trainee, plan, micro-batch, folder, context) → what came of it; torch.OutOfMemoryError where memory is too small."""


def train(
    make: Callable[[], Trainee], plan: Plan, folder: Path, context: Context, attempt: Attempt | None = None
) -> Trained:
    """Trains from the folder's checkpoint on, or from the start. Raises Diverged; Unavailable when memory is too small.

    Of a training that was finished the model is read back. Its last checkpoint stays, without the optimiser's state.
    `attempt` takes the place of this loop where another library trains.
    """
    micro = min(plan.micro_batch, plan.batch)
    with own_randomness():
        while not (done := _within_memory(attempt or _train, make, plan, micro, folder, context)):
            # Out here nothing holds the tensors of the failed attempt any longer.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if micro == 1:
                told = f"{plan.name}: out of memory with one example at a time; use a smaller input or backbone"
                raise Unavailable(told)
            micro = -(-min(micro, -(-plan.batch // processes.count())) // 2)
            context.progress(f"out of memory: from here on {micro} of a batch of {plan.batch} at once", 0, 1)
    return done


def _within_memory(
    attempt: Attempt, make: Callable[[], Trainee], plan: Plan, micro: int, folder: Path, context: Context
) -> Trained | None:
    try:
        return processes.together(lambda: attempt(processes.first_then_others(make), plan, micro, folder, context))
    except torch.OutOfMemoryError:
        return None


def _train(trainee: Trainee, plan: Plan, micro: int, folder: Path, context: Context) -> Trained:
    model, optimizer = trainee.model, trainee.optimizer
    scaler = torch.amp.GradScaler(torch.device(context.device).type, enabled=plan.precision == "float16")
    store, curve = Checkpoints(folder, plan.made_of), []
    first, state = processes.from_first(lambda: restored(store, trainee))
    if state:
        scaler.load_state_dict(state["scaler"])
        # Memory that was once too small stays so.
        curve, micro = state["curve"], min(micro, state["micro_batch"])
    if processes.count() > 1:
        given = processes.tensors_of_first(state_of(model, optimizer))
        processes.together(lambda: put_back(given, model, optimizer))
    batches = trainee.batches(first) if first < plan.epochs else iter(())
    for epoch in range(first, plan.epochs):
        trainee.train()
        total = 0.0
        for step in range(epoch * plan.steps, (epoch + 1) * plan.steps):
            trainee.schedule.step_update(step)
            loss, images = _step(trainee, batches, (context.seed, STEP, step), micro, scaler, plan.clip_grad)
            if not isfinite(loss):
                raise Diverged.at(plan, step + 1, loss)
            total += loss
            context.images += images
            context.progress(standing(plan, epoch + 1, loss, curve), step + 1, plan.epochs * plan.steps)
        model.eval()
        if processes.count() > 1:
            buffers = dict(model.named_buffers())
            held = {name: tensor for name, tensor in model.state_dict().items() if name in buffers}
            model.load_state_dict(processes.tensors_of_first(held), strict=False)
        row = {"epoch": epoch + 1, "step": step + 1, "loss": total / plan.steps, "micro_batch": micro}
        last = epoch + 1 == plan.epochs
        curve = processes.from_first(partial(kept, store, trainee, [*curve, row], scaler, last))
    model.eval()
    return Trained(trainee, curve)


def standing(plan: Plan, epoch: int, loss: float, curve: Sequence[dict[str, Any]]) -> str:
    """Where a training stands in epoch 1, 2, …, with the curves of the loss and of validation scores so far."""

    def line(key: str) -> str:
        return sparkline([row[key] for row in curve])

    scores = [key for key in (curve[-1] if curve else ()) if key.startswith("val")]
    shown = "".join(f", {key} {curve[-1][key]:.4g} {line(key)}" for key in scores)
    return f"epoch {epoch} of {plan.epochs}, loss {loss:.3f} {line('loss')}".rstrip() + shown


def restored(store: Checkpoints, trainee: Trainee) -> tuple[int, dict[str, Any]]:
    """Puts the tensors of the checkpoint back; its epoch and state, or 0 and nothing where there is none."""
    if not (found := store.load()):
        return 0, {}
    epoch, tensors, state = found
    put_back(tensors, trainee.model, trainee.optimizer)
    return epoch, state


def kept(
    store: Checkpoints, trainee: Trainee, curve: list[dict[str, Any]], scaler: torch.amp.GradScaler, last: bool
) -> list[dict[str, Any]]:
    """Writes checkpoint and curve after an epoch; the curve, its last row now with scores on validation data."""
    row: dict[str, Any] = curve[-1] | trainee.validate()
    curve = [*curve[:-1], row]
    state = {"curve": curve, "micro_batch": row["micro_batch"], "scaler": scaler.state_dict()}
    store.save(row["epoch"], state_of(trainee.model, None if last else trainee.optimizer), state)
    write_whole(store.folder / CURVE, "".join(json.dumps(line) + "\n" for line in curve))
    return curve


def _step(
    trainee: Trainee,
    batches: Iterator[tuple[Column, ...]],
    place: tuple[int, ...],
    micro: int,
    scaler: torch.amp.GradScaler,
    clip: float | None,
) -> tuple[float, int]:
    """One step of the optimiser, at the random numbers of `place`; the mean loss of the batch, and its size.

    Where the loss is no number, the weights stay as they were.
    """

    def prepared() -> tuple[Column, ...]:
        batch = next(batches)
        seed_all(*place)
        return trainee.prepare(*batch)

    def gradients() -> float:
        if processes.rank():  # what is drawn from here on is drawn for each example
            seed_all(*place, processes.rank())
        trainee.optimizer.zero_grad(set_to_none=True)
        loss: float | Tensor = 0.0
        for rows in np.array_split(range(own), -(-own // micro)):
            share = trainee.loss(*(column[rows[0] : rows[-1] + 1] for column in batch)) * (len(rows) / count)
            scaler.scale(share).backward()
            loss = loss + share.detach()
        return float(loss)

    def step() -> None:
        if clip:
            scaler.unscale_(trainee.optimizer)
            nn.utils.clip_grad_norm_(weights, clip)
        scaler.step(trainee.optimizer)
        scaler.update()

    batch = processes.together(prepared)
    own = len(batch[0])
    count = round(processes.total(own))
    loss = processes.total(processes.together(gradients))
    if isfinite(loss):
        weights = [weight for group in trainee.optimizer.param_groups for weight in group["params"]]
        processes.sum_gradients(weights)
        processes.together(step)
    return loss, count
