"""The fast decoder: JPEG files at a reduced scale where they are large, resized by torch instead of by PIL.

Its pixels are not PIL's to the last level: what it gives is held against the plain way before it is used.
"""

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

GAP = 2  # a JPEG is decoded at no less than this many times the size that it is resized to, to look the same
MODES = ("bilinear", "bicubic")  # what torch resizes by with PIL's own antialiasing

Resized = Callable[[int, int], tuple[int, int]]  # from an image's width and height to those it is resized to


def fast_pixels(image: bytes | Image.Image, resized: Resized, interpolation: str) -> Tensor:
    """(3, h, w) uint8 of an image, or of the bytes of an RGB or grey JPEG file, resized to `resized` of its size.

    Raises ValueError for other bytes.
    """
    image, size = _decoded(image, resized) if isinstance(image, bytes) else (image, image.size)
    wide, high = resized(*size)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    if pixels.shape[1:] == (high, wide):
        return pixels
    if interpolation in MODES:
        return torch.nn.functional.interpolate(pixels[None], (high, wide), mode=interpolation, antialias=True)[0]
    image = image.resize((wide, high), Image.Resampling[interpolation.upper()])
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _decoded(data: bytes, resized: Resized) -> tuple[Image.Image, tuple[int, int]]:
    """The RGB image of a JPEG file, no larger than need be, and the width and height that its header gives."""
    with Image.open(io.BytesIO(data)) as file:
        size = file.size
        if file.format != "JPEG" or file.mode not in ("RGB", "L"):
            raise ValueError(f"not an RGB or grey JPEG but {file.format} {file.mode}")
        width, height = resized(*size)
        file.draft("RGB", (GAP * width, GAP * height))
        return file.convert("RGB"), size
