"""From a recipe to what the loop is told, and back: what was not done as the recipe says."""

from typing import Any

import timm
import torch

from ...backbones import Backbone
from ..context import Context
from ..task import settings_of
from .loop import Plan, Trained
from .optimisation import TrainingRecipe

FOLDER = "training"  # in the cell's: a folder a training, with its curve and, until the cell is finished, a checkpoint
TOLD = ("trainable", "size", "batch", "warmup_epochs", "layer_decay", "clip_grad")  # when a training diverges


def plan_of(backbone: Backbone, recipe: TrainingRecipe, rate: float, steps: int, context: Context, data: Any) -> Plan:
    """How to train a backbone at one rate, in epochs of so many steps; `data` (JSON): on what, and for what."""
    settings = settings_of(recipe)
    return Plan(
        name=f"{backbone.name} at learning rate {rate:g}",
        epochs=recipe.epochs,
        steps=steps,
        batch=recipe.batch,
        micro_batch=min(recipe.micro_batch or recipe.batch, recipe.batch),
        clip_grad=recipe.clip_grad,
        precision=backbone.loading.precision,
        told=", ".join(f"{key} {settings[key]}" for key in TOLD if key in settings),
        made_of={
            "weights": backbone.weights_digest,
            "card": backbone.card.digest(),
            "loading": backbone.loading.identity,
            "data": data,
            "recipe": settings | {"learning_rate": rate},
            "seed": context.seed,
            "libraries": [torch.__version__, timm.__version__],
        },
    )


def departures(done: Trained) -> dict[str, Any]:
    """What was not done as the recipe says, to be told with what was chosen."""
    recipe, told = done.trainee.recipe, dict[str, Any]()
    if (fits := done.curve[-1]["micro_batch"]) < min(recipe.micro_batch or recipe.batch, recipe.batch):
        told["micro_batch"] = fits
    if recipe.drop_path and not done.trainee.model.dropping:
        told["drop_path"] = "none: this network has no place for it"
    return told
