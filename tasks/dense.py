"""What dense tasks share: the size of their images, batches of banked feature maps, and how their heads are trained."""

from collections.abc import Callable, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from ..backbones import Backbone
from .context import Context
from .task import TaskRecipe

STEP = 32  # pixels: the coarsest stride there is, so that a multiple of it divides at every level
WARM_UP = 0.1  # part of the steps in which the learning rate rises
LARGEST_GRADIENT = 10.0


class DenseRecipe(TaskRecipe):
    """`size`: side of the letterboxed image in pixels (default: half as large again as the backbone's own input)."""

    size: int | None = Field(default=None, ge=STEP, multiple_of=STEP)
    epochs: int = Field(default=10, ge=1)
    batch: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=1e-2, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)


def input_size(backbone: Backbone, size: int | None) -> int:
    """The side in pixels of letterboxed images: as asked, or one and a half times the backbone's, a multiple of 32."""
    return size or max(STEP, round(1.5 * backbone.input.size / STEP) * STEP)


def batch_of(maps: Sequence[Tensor], rows: Tensor, context: Context) -> list[Tensor]:
    """Some rows of feature maps [(n, C, H, W), …] in float32 on the cell's device."""
    return [m[rows].to(context.device).float() for m in maps]


def train_head(
    head: nn.Module, images: int, loss_of: Callable[[Tensor], Tensor], recipe: DenseRecipe, context: Context
) -> None:
    """AdamW on `loss_of(rows)` with one cycle of the learning rate, for a fixed number of epochs; ends in eval mode.

    Raises RuntimeError when the loss is no longer a number.
    """
    optimizer = torch.optim.AdamW(head.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    parts = -(-images // recipe.batch)
    steps = recipe.epochs * parts
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, steps + 1, pct_start=WARM_UP)
    generator = context.generator()
    head.train()
    for step in range(steps):
        if step % parts == 0:
            batches = torch.randperm(images, generator=generator).tensor_split(parts)
        loss = loss_of(batches[step % parts])
        if not torch.isfinite(loss):
            raise RuntimeError(f"the loss is {loss.item()} at step {step} of {steps}; try a lower learning_rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        context.progress("training", step + 1, steps)
    head.eval()
