"""Recipes of trainings, their keys named as the field names them, and what timm makes of them."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat
from timm.data.auto_augment import rand_augment_transform
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision.transforms import ColorJitter, Compose, RandomHorizontalFlip

from ...backbones.card import Input
from ...backbones.transform import FILTERS, as_pil, as_tensor
from .optimisation import Rates, TrainingRecipe

# At the largest, timm leaves a posterised image no bit of colour, which Pillow refuses.
JUST_BELOW_THE_LARGEST = 9.99

Share = Annotated[float, Field(ge=0, le=1)]


def _check_rand_augment(said: str | None) -> str | None:
    if said and not re.fullmatch(r"rand(-((m|n|inc)\d+|(mstd|mmax|p)\d+(\.\d+)?))*", said):
        raise ValueError(f"{said!r} is no RandAugment as timm writes it, such as rand-m9-mstd0.5-inc1")
    return said


class ClassifierRecipe(TrainingRecipe):
    """`train_on_val`: the training that is reported has the validation data too, once they have chosen; `fraction` of
    the training examples, of each class where an image has one; `head`: the classifier begins as a linear probe, so
    that its first steps do not distort the features (Kumar et al. 2022), or at random; `rand_augment` as timm writes
    it, in the place of `color_jitter`.
    """

    learning_rate: Rates = (2e-4, 2e-3)
    head: Literal["linear-probe", "xavier"] = "linear-probe"
    fraction: float = Field(default=1.0, gt=0, le=1)
    train_on_val: bool = True
    rand_augment: Annotated[str | None, AfterValidator(_check_rand_augment)] = None
    color_jitter: NonNegativeFloat = 0.0
    random_erasing: Share = 0.0
    horizontal_flip: Share = 0.0
    crop_scale: tuple[PositiveFloat, PositiveFloat] = (0.7, 1.0)


class OneLabelRecipe(ClassifierRecipe):
    """And what needs one class an image: a share of the target that all classes have, and images mixed with others."""

    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0
    mixup_switch_prob: Share = 0.5


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


def mixing(recipe: OneLabelRecipe, classes: int) -> Mixup | None:
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
