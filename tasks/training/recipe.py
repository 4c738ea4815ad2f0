"""The recipe of a classifier's training, its keys named as the field names them, and what timm makes of them."""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeFloat, PositiveFloat
from timm.data.auto_augment import rand_augment_transform
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor
from torchvision.transforms import ColorJitter, Compose, RandomHorizontalFlip

from ...backbones.card import Input
from ...backbones.transform import FILTERS, as_pil, as_tensor
from ..task import TaskRecipe
from .trainable import check_trainable

# At the largest, timm leaves a posterised image no bit of colour, which Pillow refuses.
JUST_BELOW_THE_LARGEST = 9.99

Share = Annotated[float, Field(ge=0, le=1)]


def _check_rand_augment(said: str | None) -> str | None:
    if said and not re.fullmatch(r"rand(-((m|n|inc)\d+|(mstd|mmax|p)\d+(\.\d+)?))*", said):
        raise ValueError(f"{said!r} is no RandAugment as timm writes it, such as rand-m9-mstd0.5-inc1")
    return said


class ClassifierRecipe(TaskRecipe):
    """`batch` is the effective one, `micro_batch` the part of it that is on the device at once (default: all).

    `learning_rate`: one, or several to choose from on validation data; `train_on_val`: then, or at once where there is
    no choice, the training that is reported has the validation data too; `fraction` of each class's training examples;
    `trainable`: full, frozen or last-N (blocks); `head`: the classifier begins as a linear probe, so that its first
    steps do not distort the features (Kumar et al. 2022), or at random; `rand_augment` as timm writes it, in the place
    of `color_jitter`.
    """

    trainable: Annotated[str, AfterValidator(check_trainable)] = "full"
    head: Literal["linear-probe", "xavier"] = "linear-probe"
    fraction: float = Field(default=1.0, gt=0, le=1)
    train_on_val: bool = True
    epochs: int = Field(default=6, ge=1)
    batch: int = Field(default=64, ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    learning_rate: Annotated[
        tuple[PositiveFloat, ...],
        Field(min_length=1),
        BeforeValidator(lambda given: given if isinstance(given, list | tuple) else (given,)),
    ] = (2e-4, 2e-3)
    layer_decay: float = Field(default=0.75, gt=0, le=1)
    weight_decay: NonNegativeFloat = 0.05
    clip_grad: PositiveFloat | None = None
    warmup_epochs: NonNegativeFloat = 1.0
    warmup_lr: NonNegativeFloat = 1e-6
    min_lr: NonNegativeFloat = 1e-6
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0
    mixup_switch_prob: Share = 0.5
    rand_augment: Annotated[str | None, AfterValidator(_check_rand_augment)] = None
    color_jitter: NonNegativeFloat = 0.0
    random_erasing: Share = 0.0
    horizontal_flip: Share = 0.0
    crop_scale: tuple[PositiveFloat, PositiveFloat] = (0.7, 1.0)


def augmentation(recipe: ClassifierRecipe, input: Input) -> Callable[[Any, int], Tensor]:
    """(images, row) → (3, size, size) uint8: a random crop at the backbone's input size, then what the recipe says."""
    filter = input.interpolation
    steps: list[Any] = [RandomResizedCropAndInterpolation(input.size, recipe.crop_scale, interpolation=filter)]
    if recipe.horizontal_flip:
        steps.append(RandomHorizontalFlip(recipe.horizontal_flip))
    if recipe.rand_augment:
        how: dict[str, Any] = {
            "translate_const": int(0.45 * input.size),
            "img_mean": tuple(round(255 * m) for m in input.mean),  # what a turned image leaves empty
            "interpolation": FILTERS[filter],
        }
        if "mmax" not in recipe.rand_augment:
            how["magnitude_max"] = JUST_BELOW_THE_LARGEST
        steps.append(rand_augment_transform(recipe.rand_augment, how))
    elif recipe.color_jitter:
        steps.append(ColorJitter(*[recipe.color_jitter] * 3))  # brightness, contrast and saturation
    transform = Compose(steps)
    return lambda images, row: as_tensor(transform(as_pil(images[row])))


def random_erasing(recipe: ClassifierRecipe, device: str) -> RandomErasing | None:
    """Of normalised images (B, 3, H, W) in place, with noise for each pixel; None where the recipe has none."""
    return RandomErasing(recipe.random_erasing, mode="pixel", device=device) if recipe.random_erasing else None


def mixing(recipe: ClassifierRecipe, classes: int) -> Mixup | None:
    """Of images and labels, giving soft targets; None where the recipe has neither mixup nor cutmix."""
    if not (recipe.mixup or recipe.cutmix):
        return None
    return Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        switch_prob=recipe.mixup_switch_prob,
        label_smoothing=recipe.label_smoothing,
        num_classes=classes,
    )


def adamw(groups: Sequence[dict[str, Any]], rate: float) -> torch.optim.AdamW:
    """The optimiser of groups with a `weight_decay` each."""
    return torch.optim.AdamW(list(groups), lr=rate)


def cosine(recipe: ClassifierRecipe, optimizer: torch.optim.Optimizer, steps: int) -> CosineLRScheduler:
    """Learning rates by step: linear warm-up, then half a cosine, times each group's `lr_scale`."""
    return CosineLRScheduler(
        optimizer,
        t_initial=recipe.epochs * steps,
        lr_min=recipe.min_lr,
        warmup_t=round(min(recipe.warmup_epochs, recipe.epochs) * steps),
        warmup_lr_init=recipe.warmup_lr,
        t_in_epochs=False,
    )
