"""Pictures of dense tasks with what is in them, as a network sees them: letterboxed, in training also jittered."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from ...backbones import Letterbox
from ...backbones.transform import as_pil, as_tensor
from ..datasets import IGNORE, Split
from ..extraction import pixels_of
from ..threads import cores
from .dense_recipe import DenseRecipe
from .pictures import Place
from .randomness import PICTURE, seed_all

Target = dict[str, Tensor]
"""Of detection `boxes` (k, 4) float32 xyxy, `labels` (k,) int64 and, where asked for, `masks` (k, H, W) uint8, without
crowds; of segmentation `mask` (H, W) uint8, 255 ignored."""


@dataclass(frozen=True)
class Scenes(torch.utils.data.Dataset):
    """By place: (3, S, S) uint8, letterboxed or, where the recipe augments, jittered; and the target in those pixels.

    `whole(row)`: the target in the image's own pixels; `boxed(row)`: as the letterbox shows it.
    """

    split: Split
    letterbox: Letterbox
    recipe: DenseRecipe
    whole: Callable[[int], Target]
    boxed: Callable[[int], Target]
    seed: int = 0

    def __len__(self) -> int:
        return len(self.split)

    @property
    def rows(self) -> np.ndarray:
        """The places of the split."""
        return np.arange(len(self.split))

    def __getitem__(self, place: Place) -> tuple[Tensor, Target]:
        epoch, row = place
        if not self.recipe.augmented:
            return pixels_of(self.split.images, row, self.letterbox), self.boxed(row)
        seed_all(self.seed, PICTURE, epoch, row)
        return self._jitter(self.split.images[row], self.whole(row))

    @cached_property
    def _jitter(self) -> Callable[[Any, Target], tuple[Tensor, Target]]:
        return jitter(self.letterbox, self.recipe)


def jitter(letterbox: Letterbox, recipe: DenseRecipe) -> Callable[[Any, Target], tuple[Tensor, Target]]:
    """(image, target in its pixels) → (3, S, S) uint8 and the target in those: scaled, cropped or padded, and flipped.

    Objects of which less than a pixel is left are left out.
    """
    side, colour = (letterbox.size, letterbox.size), tuple(round(255 * m) for m in letterbox.mean)

    def steps(ground: int) -> v2.Compose:
        fill: Any = {Image.Image: colour, tv_tensors.Mask: ground, "others": 0}
        return v2.Compose(
            [
                v2.ScaleJitter(side, recipe.scale, letterbox.interpolation),
                v2.RandomCrop(side, pad_if_needed=True, fill=fill),
                v2.RandomHorizontalFlip(recipe.horizontal_flip),
            ]
        )

    regions = v2.Compose([steps(0), v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes()])
    classes = steps(IGNORE)

    def jittered(image: Any, target: Target) -> tuple[Tensor, Target]:
        image = as_pil(image)
        told: dict[str, Any] = {key: tv_tensors.Mask(target[key]) for key in ("mask", "masks") if key in target}
        if "boxes" in target:
            format: Any = tv_tensors.BoundingBoxFormat.XYXY
            told["labels"] = target["labels"]
            boxes: Any = tv_tensors.BoundingBoxes
            told["boxes"] = boxes(target["boxes"], format=format, canvas_size=image.size[::-1])
        image, told = (regions if "boxes" in told else classes)(image, told)
        return as_tensor(image), {key: tensor.as_subclass(Tensor) for key, tensor in told.items()}

    return jittered


def batches_of_scenes(
    scenes: Scenes, order: Iterable[list[Place]], device: str
) -> Iterator[tuple[Tensor, list[Target]]]:
    """Pictures (B, 3, S, S) uint8 and targets of each batch; decoded beside a GPU by all cores, else in line."""
    on_gpu = torch.device(device).type != "cpu"
    loader = DataLoader(
        scenes,
        batch_sampler=order,  # pyright: ignore[reportArgumentType]  # any iterable of lists will do
        num_workers=cores() if on_gpu else 0,
        pin_memory=on_gpu,
        collate_fn=lambda rows: (torch.stack([pixels for pixels, _ in rows]), [target for _, target in rows]),
    )
    yield from loader
