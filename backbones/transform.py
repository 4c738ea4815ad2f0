"""From an image to the tensor a network expects, as its card says: the part of a run that is most often wrong."""

import io
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .card import Input
from .decoding import fast_pixels

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Preprocessing(Protocol):
    """What the feature bank asks of a transform: `pixels` of `size`, `normalise`, and an `identity` that tells all."""

    @property
    def size(self) -> int: ...
    @property
    def identity(self) -> dict[str, Any]: ...
    def pixels(self, image: Any, /) -> Tensor: ...
    def normalise(self, pixels: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Transform:
    """Image → (3, size, size) normalised floats: shorter side to size / crop, then the centre square.

    `fit: squash` resizes both sides to size / crop instead, giving up the aspect ratio. `decoder: fast` also takes the
    bytes of a JPEG file.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    crop: float
    fit: str = "crop"
    decoder: str = "pil"

    @classmethod
    def of(cls, input: Input, decoder: str = "pil") -> "Transform":
        """The transform that an input specification asks for."""
        return cls(**input.model_dump(), decoder=decoder)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that can change a pixel, as JSON: part of a cell's identity and of every result."""
        return {"kind": "centre-crop", **asdict(self)}

    def __call__(self, image: Image.Image | np.ndarray) -> Tensor:
        """(3, size, size) float32 of a PIL image or an (H, W, 3) uint8 array."""
        return self.normalise(self.pixels(image))

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height to which an image is resized before it is cropped."""
        # Rounding as torchvision's Resize and CenterCrop do it, which timm, open_clip and torchvision all use.
        shorter = int(self.size / self.crop)
        sides = [min(width, height)] * 2 if self.fit == "squash" else (width, height)
        width, height = (shorter * side // min(sides) for side in sides)
        return width, height

    def pixels(self, image: Image.Image | np.ndarray | bytes) -> Tensor:
        """(3, size, size) uint8: resized and cropped, not yet normalised."""
        if self.decoder == "fast":
            whole = fast_pixels(_rgb(image), self.resized, self.interpolation)
            height, width = whole.shape[1:]
            left, top = self._corner(width, height)
            # Negative padding cuts off; an image that is smaller than `size` (crop > 1) lies on black, as in PIL.
            edges = (-left, left + self.size - width, -top, top + self.size - height)
            return torch.nn.functional.pad(whole, edges).contiguous()
        image = as_pil(image)
        width, height = self.resized(*image.size)
        if (width, height) != image.size:
            image = image.resize((width, height), FILTERS[self.interpolation])
        left, top = self._corner(width, height)
        return as_tensor(image.crop((left, top, left + self.size, top + self.size)))

    def _corner(self, width: int, height: int) -> tuple[int, int]:
        return round((width - self.size) / 2), round((height - self.size) / 2)

    def normalise(self, pixels: Tensor) -> Tensor:
        """(…, 3, H, W) uint8 → normalised float32 on the same device."""
        return normalise(pixels, self.mean, self.std)


@dataclass(frozen=True)
class Letterbox:
    """Image → (3, size, size) normalised floats for dense tasks: longer side to `size`, padded right and below.

    Nothing is cropped, so boxes and masks keep their place up to one factor, `scale`.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    decoder: str = "pil"

    @classmethod
    def of(cls, input: Input, size: int, decoder: str = "pil") -> "Letterbox":
        """A letterbox of `size` pixels with the statistics of an input specification."""
        return cls(size, input.mean, input.std, input.interpolation, decoder)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that can change a pixel, as JSON."""
        return {"kind": "letterbox", **asdict(self)}

    def scale(self, width: int, height: int) -> float:
        """Output pixels per input pixel for an image of this size."""
        return self.size / max(width, height)

    def inner(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the image inside the output; what lies right of and below it is padding."""
        scale = self.scale(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def __call__(self, image: Image.Image | np.ndarray) -> Tensor:
        """(3, size, size) float32; the padding is the mean colour, so it is near 0 after normalisation."""
        return self.normalise(self.pixels(image))

    def pixels(self, image: Image.Image | np.ndarray | bytes) -> Tensor:
        """(3, size, size) uint8, padded with the mean colour."""
        colour = tuple(round(255 * m) for m in self.mean)
        if self.decoder == "fast":
            whole = fast_pixels(_rgb(image), self.inner, self.interpolation)
            padded = torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1).repeat(1, self.size, self.size)
            padded[:, : whole.shape[1], : whole.shape[2]] = whole
            return padded
        image = as_pil(image)
        inner = self.inner(*image.size)
        if inner != image.size:
            image = image.resize(inner, FILTERS[self.interpolation])
        canvas = Image.new("RGB", (self.size, self.size), colour)
        canvas.paste(image, (0, 0))
        return as_tensor(canvas)

    def normalise(self, pixels: Tensor) -> Tensor:
        """(…, 3, H, W) uint8 → normalised float32 on the same device."""
        return normalise(pixels, self.mean, self.std)


def _rgb(image: Image.Image | np.ndarray | bytes) -> Image.Image | bytes:
    return image if isinstance(image, bytes) else as_pil(image)


def as_pil(image: Image.Image | np.ndarray | bytes) -> Image.Image:
    """An RGB PIL image; transparency is laid on white, palettes and greys are expanded."""
    if isinstance(image, bytes):
        image = Image.open(io.BytesIO(image))
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def as_tensor(image: Image.Image) -> Tensor:
    """(3, H, W) uint8 of an RGB image."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def normalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(…, 3, H, W) uint8 → (pixels / 255 - mean) / std in float32."""
    m = torch.tensor(mean, device=pixels.device).view(3, 1, 1)
    s = torch.tensor(std, device=pixels.device).view(3, 1, 1)
    return (pixels.float() / 255 - m) / s
