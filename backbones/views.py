"""Augmented views of an image: a random crop, resized, and perhaps mirrored, as classifiers are trained on.

The randomness is a function of the image's pixels and of the view's number alone, so a view is the same in any order,
in any process, and can be banked.
"""

import zlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from .card import Input
from .transform import FILTERS, as_pil, as_tensor, normalise

TRIES = 10


@dataclass(frozen=True)
class View:
    """View `number` of an image → (3, size, size): RandomResizedCrop (Szegedy et al. 2015) and horizontal flip.

    The crop has a share of the area in `area`, and an aspect ratio in `ratio`, drawn in the logarithm.
    """

    number: int
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    @classmethod
    def of(cls, input: Input, number: int) -> "View":
        """View `number` at the size and with the statistics of an input specification."""
        return cls(number, input.size, input.mean, input.std)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that can change a pixel, as JSON."""
        return {"kind": "random-resized-crop", "decoder": "pil", **asdict(self)}

    def __call__(self, image: Image.Image | np.ndarray) -> Tensor:
        """(3, size, size) float32 of a PIL image or an (H, W, 3) uint8 array."""
        return self.normalise(self.pixels(image))

    def pixels(self, image: Image.Image | np.ndarray) -> Tensor:
        """(3, size, size) uint8, not yet normalised."""
        image = as_pil(image)
        random = np.random.default_rng([zlib.crc32(image.tobytes()), *image.size, self.number])
        left, top, width, height = self.crop(*image.size, random)
        image = image.resize(
            (self.size, self.size), FILTERS[self.interpolation], (left, top, left + width, top + height)
        )
        if random.random() < self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return as_tensor(image)

    def crop(self, width: int, height: int, random: np.random.Generator) -> tuple[int, int, int, int]:
        """Left, top, width and height of a crop; where none fits, the largest in the middle with a ratio in range."""
        low, high = self.ratio
        for _ in range(TRIES):
            area = width * height * random.uniform(*self.area)
            aspect = np.exp(random.uniform(np.log(low), np.log(high)))
            w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return int(random.integers(width - w + 1)), int(random.integers(height - h + 1)), w, h
        w, h = min(width, max(1, round(height * high))), min(height, max(1, round(width / low)))
        return (width - w) // 2, (height - h) // 2, w, h

    def normalise(self, pixels: Tensor) -> Tensor:
        """(…, 3, H, W) uint8 → normalised float32 on the same device."""
        return normalise(pixels, self.mean, self.std)
