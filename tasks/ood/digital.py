"""Digital corruptions of ImageNet-C (Hendrycks and Dietterich 2019), on pixels in 0..1."""

from io import BytesIO

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates


def brightness(x: np.ndarray, more: float) -> np.ndarray:
    """The value of HSV, its largest channel, raised: hue and saturation stay; black becomes grey."""
    value = x.max(axis=2, keepdims=True)
    brighter = np.minimum(value + more, 1)
    return np.where(value > 0, x * brighter / np.maximum(value, 1e-12), brighter)


def saturate(x: np.ndarray, factor: float, more: float) -> np.ndarray:
    """The saturation of HSV, times a factor and raised. A grey has hue 0, as conversion has it: it becomes reddish."""
    value = x.max(axis=2, keepdims=True)
    below = value - x
    saturation = below.max(axis=2, keepdims=True) / np.maximum(value, 1e-12)
    wanted = np.clip(saturation * factor + more, 0, 1)
    grey = value * wanted * (0.0, 1.0, 1.0)
    return value - np.where(saturation > 0, below * wanted / np.maximum(saturation, 1e-12), grey)


def contrast(x: np.ndarray, factor: float) -> np.ndarray:
    """Nearer to the image's mean colour."""
    mean = x.mean(axis=(0, 1))
    return (x - mean) * factor + mean


def jpeg_compression(x: np.ndarray, quality: int) -> np.ndarray:
    """Saved at this quality and read again."""
    file = BytesIO()
    as_image(x).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), float) / 255


def pixelate(x: np.ndarray, block: float) -> np.ndarray:
    """Blocks of so many pixels each way, of one colour."""
    height, width = x.shape[:2]
    small = max(1, int(width / block)), max(1, int(height / block))
    image = as_image(x).resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)
    return np.asarray(image, float) / 255


def elastic_transform(
    x: np.ndarray, reach: float, deviation: float, corner: float, rng: np.random.Generator
) -> np.ndarray:
    """Stretched as a sheet of rubber: by a random affine map that moves points by up to `corner` pixels, and by noise
    smoothed over `deviation` pixels times `reach`. Both maps are laid together, so that it is sampled once."""
    height, width = x.shape[:2]
    middle, third = np.array([height // 2, width // 2], float), min(height, width) // 3
    points = middle + third * np.array([(1, 1), (-1, 1), (-1, -1)], float)
    moved = points + rng.uniform(-corner, corner, points.shape)
    back = np.linalg.lstsq(np.column_stack([moved, np.ones(3)]), points, rcond=None)[0]  # (3, 2): where from
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1).astype(float)
    for axis in range(2):
        stray = rng.uniform(-1, 1, (height, width))
        grid[..., axis] += reach * gaussian_filter(stray, deviation, mode="reflect", truncate=3)
    source = np.moveaxis(grid @ back[:2] + back[2], -1, 0)
    return np.stack([map_coordinates(x[..., c], source, order=1, mode="mirror") for c in range(x.shape[2])], axis=2)


def as_image(x: np.ndarray) -> Image.Image:
    """Pixels in 0..1 as an image of bytes."""
    return Image.fromarray((np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8))
