"""Blurs of ImageNet-C (Hendrycks and Dietterich 2019), on pixels in 0..1; lengths are in pixels of the image itself."""

from functools import lru_cache
from itertools import product

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve


def gaussian_blur(x: np.ndarray, deviation: float) -> np.ndarray:
    """Each channel by itself, edges repeated."""
    return gaussian_filter(x, (deviation, deviation, 0), mode="nearest", truncate=4)


def defocus_blur(x: np.ndarray, radius: float, soft: float) -> np.ndarray:
    """A lens out of focus: a disk, whose rim is `soft`."""
    return convolved(x, disk(radius, soft), "reflect")


def motion_blur(x: np.ndarray, length: float, deviation: float, degrees: float) -> np.ndarray:
    """A camera that moves: half a Gaussian along a line of this length."""
    return convolved(x, trail(length, deviation, degrees), "edge")


def glass_blur(x: np.ndarray, deviation: float, reach: float, rounds: int, rng: np.random.Generator) -> np.ndarray:
    """Frosted glass: blurred, each pixel exchanged with one at most `reach` away, and blurred again.

    The authors exchange one pixel after the other. Here all those are exchanged at once whose neighbourhoods do not
    touch, in turns, so that each still has its turn once a round. Steps, rounded to whole pixels, have the mean square
    of theirs; `reach` may be any number.
    """
    x = np.floor(gaussian_blur(x, deviation) * 255)
    height, width = x.shape[:2]
    most = round(reach)
    period = 2 * most + 1
    turns = list(product(range(period), repeat=2)) if most else []
    for _ in range(rounds):
        for top, left in turns:
            rows, columns = (np.arange(most + o, side - most, period) for o, side in ((top, height), (left, width)))
            here = np.repeat(rows, len(columns)), np.tile(columns, len(rows))
            there = tuple(at + np.rint(rng.uniform(-reach, reach, len(at))).astype(int) for at in here)
            x[here], x[there] = x[there], x[here]
    return gaussian_blur(x / 255, deviation)


def zoom_blur(x: np.ndarray, most: float, step: float) -> np.ndarray:
    """A camera that moves towards the scene: the mean of the image and of it enlarged by 1, 1 + step, … 1 + most."""
    height, width = x.shape[:2]
    channels = [Image.fromarray(channel) for channel in np.moveaxis(x.astype(np.float32), 2, 0)]
    factors = 1 + np.arange(round(most / step) + 1) * step
    total = x.copy()
    for factor in factors:
        cut = width * (1 - 1 / factor) / 2, height * (1 - 1 / factor) / 2
        box = (*cut, width - cut[0], height - cut[1])
        larger = [np.asarray(c.resize((width, height), Image.Resampling.BILINEAR, box)) for c in channels]
        total += np.stack(larger, axis=2)
    return total / (len(factors) + 1)


def convolved(x: np.ndarray, kernel: np.ndarray, edge: str) -> np.ndarray:
    """An image (H, W, C) with a kernel of odd sides, of the same size; beyond its edge it goes on as np.pad says."""
    high, wide = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(x, ((high, high), (wide, wide), (0, 0)), mode=edge)  # type: ignore[call-overload]
    return fftconvolve(padded, kernel[..., None], mode="valid", axes=(0, 1))


@lru_cache(maxsize=64)
def disk(radius: float, soft: float, fine: int = 8) -> np.ndarray:
    """Weights of the pixels by how much of each a disk covers, smoothed a little; they add up to 1."""
    radius = max(radius, 0.5)  # smaller than a pixel it is that pixel
    half = int(np.ceil(radius + 3 * soft))
    at = (np.arange((2 * half + 1) * fine) + 0.5) / fine - half - 0.5
    inside = (at[:, None] ** 2 + at**2 <= radius**2).astype(float)
    covered = inside.reshape(2 * half + 1, fine, 2 * half + 1, fine).mean(axis=(1, 3))
    covered = gaussian_filter(covered, soft)
    return covered / covered.sum()


def trail(length: float, deviation: float, degrees: float) -> np.ndarray:
    """Weights of half a Gaussian along a line from the middle on, each point shared by its four nearest pixels."""
    half = int(np.ceil(length)) + 1
    along = np.linspace(0, length, 4 * half)
    weight = np.exp(-(along**2) / (2 * deviation**2))
    turn = np.deg2rad(degrees)
    y, x = half - along * np.sin(turn), half + along * np.cos(turn)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    for down, right in product((0, 1), repeat=2):
        near = np.abs(1 - down - (y - top)) * np.abs(1 - right - (x - left))
        np.add.at(kernel, (top + down, left + right), weight * near)
    return kernel / kernel.sum()
