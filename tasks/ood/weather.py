"""Weather of ImageNet-C (Hendrycks and Dietterich 2019), on pixels in 0..1: layers that are drawn at random.

Their frost is photographs of ice, which are not ours to give: here needles and plates of ice are drawn.
"""

import numpy as np
from PIL import Image
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_filter, uniform_filter

from .blur import convolved, trail

LUMA = (0.299, 0.587, 0.114)
ICE = (0.86, 0.94, 1.0)
WATER, MUD = (175 / 255, 238 / 255, 238 / 255), (63 / 255, 42 / 255, 20 / 255)
EMBOSS = np.array([[2, 1, 0], [1, 1, -1], [0, -1, -2]], float)


def fog(x: np.ndarray, thick: float, decay: float, rng: np.random.Generator) -> np.ndarray:
    """A cloud laid over all; `decay`: how fast its finer parts fade."""
    top = x.max()
    return (x + thick * plasma(x.shape[:2], decay, rng)[..., None]) * top / (top + thick)


def frost(x: np.ndarray, image: float, ice: float, rng: np.random.Generator) -> np.ndarray:
    """Seen through a frozen window: so much of the image, and so much of the ice."""
    return image * x + ice * frozen(x.shape[:2], rng)[..., None] * ICE


def snow(
    x: np.ndarray,
    amount: tuple[float, float, float],
    flake: float,
    wind: tuple[float, float],
    image: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Flakes of this size in pixels, blown by the wind (length, deviation), over an image that is whitened.

    `amount`: mean and deviation of the noise of which flakes are what is above a threshold.
    """
    mean, deviation, threshold = amount
    high, wide = (max(2, int(np.ceil(side / flake))) for side in x.shape[:2])
    layer = Image.fromarray(rng.normal(mean, deviation, (high, wide)).astype(np.float32))
    flakes = np.asarray(layer.resize(x.shape[1::-1], Image.Resampling.BILINEAR), float)
    flakes = np.where(flakes < threshold, 0, np.clip(flakes, 0, 1))[..., None]
    flakes = convolved(flakes, trail(*wind, rng.uniform(-135, -45)), "edge")
    white = np.maximum(x, (x @ np.array(LUMA))[..., None] * 1.5 + 0.5)
    return image * x + (1 - image) * white + flakes + flakes[::-1, ::-1]


def spatter(
    x: np.ndarray, amount: tuple[float, float, float], drop: float, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """Drops of water on the lens; of this size in pixels, where smoothed noise (mean, deviation) passes a threshold."""
    mean, deviation, threshold = amount
    liquid = gaussian_filter(rng.normal(mean, deviation, x.shape[:2]), drop, mode="nearest")
    liquid = np.where(liquid < threshold, 0, liquid)
    wet = liquid > 0
    rim = wet & np.logical_not(binary_erosion(wet))
    if not rim.any():
        return x
    far = uniform_filter(np.minimum(np.asarray(distance_transform_edt(np.logical_not(rim))), 20), 3)
    levels = np.sort(far, axis=None)
    even = np.searchsorted(levels, far, side="right") / far.size  # a histogram made flat
    light = uniform_filter(np.clip(convolved(even[..., None], EMBOSS, "reflect")[..., 0], 0, 1), 3)
    shine = liquid * light
    return x + (strength * shine / max(shine.max(), 1e-12))[..., None] * WATER


def mud(
    x: np.ndarray, amount: tuple[float, float, float], drop: float, spread: float, rng: np.random.Generator
) -> np.ndarray:
    """Spatter of mud: opaque, its edges soft over `spread` pixels."""
    mean, deviation, threshold = amount
    liquid = gaussian_filter(rng.normal(mean, deviation, x.shape[:2]), drop, mode="nearest")
    cover = gaussian_filter((liquid > threshold).astype(float), spread, mode="nearest")
    cover = np.where(cover < 0.8, 0, cover)[..., None]
    return x * (1 - cover) + cover * MUD


def plasma(shape: tuple[int, int], decay: float, rng: np.random.Generator) -> np.ndarray:
    """Heights (H, W) in 0..1 by the diamond-square algorithm on a torus; each halving of the step divides what is added
    at random by decay²."""
    side = 2 ** int(np.ceil(np.log2(max(*shape, 2))))
    field, step, rough = np.zeros((side, side)), side, 1.0
    while step > 1:
        half = step // 2
        count = side // step, side // step

        def stray(rough: float = rough, count: tuple[int, int] = count) -> np.ndarray:
            return rough * rng.uniform(-1, 1, count)

        corner = field[::step, ::step]
        below, right = np.roll(corner, -1, 0), np.roll(corner, -1, 1)
        centre = (corner + below + right + np.roll(below, -1, 1)) / 4 + stray()
        field[half::step, half::step] = centre
        field[::step, half::step] = (corner + right + centre + np.roll(centre, 1, 0)) / 4 + stray()
        field[half::step, ::step] = (corner + below + centre + np.roll(centre, 1, 1)) / 4 + stray()
        step, rough = half, rough / decay**2
    field = field[: shape[0], : shape[1]] - field.min()
    return field / max(field.max(), 1e-12)


def frozen(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Ice (H, W) in 0..1: needles of random directions, thicker in some places than in others."""
    where = plasma(shape, 1.6, rng)
    needles = np.zeros(shape)
    long = max(3.0, 0.16 * min(shape))
    for turn in rng.uniform(0, 180, 4):
        stray = rng.random(shape)[..., None] ** 6
        needles = np.maximum(needles, convolved(stray, trail(long, long / 2, turn), "wrap")[..., 0])
    needles = (needles - needles.min()) / max(np.ptp(needles), 1e-12)
    return np.clip(0.25 + 0.55 * where + 0.9 * (needles - 0.35), 0, 1)
