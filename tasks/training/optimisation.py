"""What every training's recipe has: which weights learn, for how long, at which rates; and what timm makes of it."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeFloat, PositiveFloat
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.multistep_lr import MultiStepLRScheduler
from timm.scheduler.scheduler import Scheduler

from ..task import TaskRecipe
from .trainable import check_trainable

Rates = Annotated[
    tuple[PositiveFloat, ...],
    Field(min_length=1),
    BeforeValidator(lambda given: given if isinstance(given, list | tuple) else (given,)),
]
"""Learning rates to choose from on validation data; one may be given as a number."""


class TrainingRecipe(TaskRecipe):
    """`batch` is the effective one, `micro_batch` the part of it that is on the device at once (default: all).

    `trainable`: full, frozen or last-N (blocks); `learning_rate`: one, or several to choose from on validation data;
    `milestones`: epochs after which it falls to a tenth, in the place of a cosine.
    """

    trainable: Annotated[str, AfterValidator(check_trainable)] = "full"
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    epochs: int = Field(default=6, ge=1)
    batch: int = Field(default=64, ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    learning_rate: Rates = (1e-3,)
    layer_decay: float = Field(default=0.75, gt=0, le=1)
    weight_decay: NonNegativeFloat = 0.05
    clip_grad: PositiveFloat | None = None
    warmup_epochs: NonNegativeFloat = 1.0
    warmup_lr: NonNegativeFloat = 1e-6
    min_lr: NonNegativeFloat = 1e-6
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = ()


def adamw(groups: Sequence[dict[str, Any]], rate: float) -> torch.optim.AdamW:
    """The optimiser of groups with a `weight_decay` each."""
    return torch.optim.AdamW(list(groups), lr=rate)


def schedule(recipe: TrainingRecipe, optimizer: torch.optim.Optimizer, steps: int) -> Scheduler:
    """Learning rates by step, of `steps` an epoch: linear warm-up, then half a cosine or falls to a tenth; times each
    group's `lr_scale`."""
    warmup = round(min(recipe.warmup_epochs, recipe.epochs) * steps)
    rising: dict[str, Any] = {"warmup_t": warmup, "warmup_lr_init": recipe.warmup_lr, "t_in_epochs": False}
    if recipe.milestones:
        falls = [epoch * steps for epoch in recipe.milestones]
        return MultiStepLRScheduler(optimizer, falls, decay_rate=0.1, **rising)
    return CosineLRScheduler(optimizer, recipe.epochs * steps, lr_min=recipe.min_lr, **rising)
