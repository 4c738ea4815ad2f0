"""The loop of every training: steps of an optimiser, a checkpoint each epoch, a curve to look at.

Killed at any point and started again, it ends in the same weights, on the CPU bit for bit: every random number hangs on
seed, epoch and step alone. A batch is what one step of the optimiser sees; it goes through the network in parts of
`micro_batch` examples, whose gradients are summed, and in smaller ones once the memory is full.
"""

import gc
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn

from ...backbones.errors import Unavailable
from ..context import Context
from .checkpoint import Checkpoints, put_back, state_of, write_whole
from .randomness import STEP, own_randomness, seed_all

CURVE = "curve.jsonl"  # a line an epoch


class Diverged(RuntimeError):
    """The loss is no longer a number; the message says at which step, with which recipe, and what to try."""


@dataclass(frozen=True)
class Plan:
    """How long and in what portions to train. `made_of` (JSON) decides every bit; `told` is the recipe for messages.

    An epoch has `steps` of `batch` examples, `micro_batch` of them at once; gradients are clipped to norm `clip_grad`.
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

    def batches(self, first: int) -> Iterator[tuple[Tensor, ...]]:
        """The batches from epoch `first` (of 0, 1, …) on: tensors with a row an example."""
        raise NotImplementedError

    def prepare(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """A whole batch on the device, as `loss` takes parts of it; random numbers are those of the step."""
        return batch

    def loss(self, *part: Tensor) -> Tensor:
        """The mean loss of some rows of a prepared batch."""
        raise NotImplementedError

    def train(self) -> None:
        """Puts the model in the mode for training."""
        self.model.train()

    def validate(self) -> dict[str, float]:
        """Scores on validation data by name, for the curve; the model is in eval mode."""
        return {}


@dataclass(frozen=True)
class Trained:
    """A trainee after its last epoch, its model in eval mode, and the curve: loss, scores and more by epoch."""

    trainee: Any
    curve: list[dict[str, Any]]


def train(make: Callable[[], Trainee], plan: Plan, folder: Path, context: Context) -> Trained:
    """Trains from the folder's checkpoint on, or from the start. Raises Diverged; Unavailable when memory is too small.

    Of a training that was finished the model is read back. Its last checkpoint stays, without the optimiser's state.
    """
    micro = min(plan.micro_batch, plan.batch)
    with own_randomness():
        while not (done := _attempt(make, plan, micro, folder, context)):
            # Out here nothing holds the tensors of the failed attempt any longer.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if micro == 1:
                told = f"{plan.name}: out of memory with one example at a time; use a smaller input or backbone"
                raise Unavailable(told)
            micro = -(-micro // 2)
            context.progress(f"out of memory: from here on {micro} of a batch of {plan.batch} at once", 0, 1)
    return done


def _attempt(make: Callable[[], Trainee], plan: Plan, micro: int, folder: Path, context: Context) -> Trained | None:
    try:
        return _train(make(), plan, micro, folder, context)
    except torch.OutOfMemoryError:
        return None


def _train(trainee: Trainee, plan: Plan, micro: int, folder: Path, context: Context) -> Trained:
    model, optimizer = trainee.model, trainee.optimizer
    scaler = torch.amp.GradScaler(torch.device(context.device).type, enabled=plan.precision == "float16")
    store, first, curve = Checkpoints(folder, plan.made_of), 0, []
    if found := store.load():
        first, tensors, state = found
        put_back(tensors, model, optimizer)
        scaler.load_state_dict(state["scaler"])
        # Memory that was once too small stays so.
        curve, micro = state["curve"], min(micro, state["micro_batch"])
    batches = trainee.batches(first) if first < plan.epochs else iter(())
    for epoch in range(first, plan.epochs):
        trainee.train()
        total = 0.0
        for step in range(epoch * plan.steps, (epoch + 1) * plan.steps):
            batch = next(batches)
            seed_all(context.seed, STEP, step)
            trainee.schedule.step_update(step)
            loss = _step(trainee, batch, micro, scaler, plan.clip_grad)
            if not isfinite(loss):
                where = f"step {step + 1} of {plan.epochs * plan.steps} (epoch {epoch + 1})"
                advice = "try a lower learning rate, a longer warm-up, or clip_grad"
                raise Diverged(f"{plan.name}: the loss is {loss} at {where}, with {plan.told}; {advice}")
            total += loss
            context.images += len(batch[0])
            shown = "".join(f", {k} {v:.4g}" for k, v in (curve[-1].items() if curve else ()) if k.startswith("val"))
            told = f"epoch {epoch + 1} of {plan.epochs}, loss {loss:.3f}{shown}"
            context.progress(told, step + 1, plan.epochs * plan.steps)
        model.eval()
        row = {"epoch": epoch + 1, "step": step + 1, "loss": total / plan.steps, "micro_batch": micro}
        curve = [*curve, row | trainee.validate()]
        state = {"curve": curve, "micro_batch": micro, "scaler": scaler.state_dict()}
        last = epoch + 1 == plan.epochs
        store.save(epoch + 1, state_of(model, None if last else optimizer), state)
        write_whole(folder / CURVE, "".join(json.dumps(line) + "\n" for line in curve))
    model.eval()
    return Trained(trainee, curve)


def _step(
    trainee: Trainee, batch: tuple[Tensor, ...], micro: int, scaler: torch.amp.GradScaler, clip: float | None
) -> float:
    """One step of the optimiser; the mean loss of the batch. Where that is no number, the weights stay as they were."""
    batch = trainee.prepare(*batch)
    count = len(batch[0])
    trainee.optimizer.zero_grad(set_to_none=True)
    loss = torch.zeros((), device=batch[0].device)
    for part in zip(*(tensor.tensor_split(-(-count // micro)) for tensor in batch), strict=True):
        share = trainee.loss(*part) * (len(part[0]) / count)
        scaler.scale(share).backward()
        loss += share.detach()
    if isfinite(value := loss.item()):
        if clip:
            scaler.unscale_(trainee.optimizer)
            nn.utils.clip_grad_norm_([p for g in trainee.optimizer.param_groups for p in g["params"]], clip)
        scaler.step(trainee.optimizer)
        scaler.update()
    return value
