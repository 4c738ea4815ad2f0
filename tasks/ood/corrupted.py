"""Corrupted images: 15 corruptions of ImageNet-C and its 4 extra ones in five severities, made when asked for.

Definitions and constants are those of Hendrycks and Dietterich (2019), for ImageNet's images: the shorter side 256
pixels (of which they cut 224). Larger images are first made as small. In smaller ones lengths are shorter in proportion
to the side, and noise is weaker by its root, near to the constants that the authors give for 64 pixels. What is drawn
at random hangs on the image's pixels and the corruption; it is the same in all severities, so that they differ in
strength alone. What differs from the authors: that; frost is drawn, as their photographs are not ours to give
(`weather.py`); glass blur exchanges pixels in another order, and elastic transforms sample once; nothing is saved as
JPEG in the end. Figures are therefore not to be set beside published ones of ImageNet-C to the last point.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from ...backbones.errors import BadInput, unknown
from ...backbones.reading import digest
from ..datasets import Split
from . import blur, digital, noise, weather

VERSION = 1  # higher when any pixel would change
SIDE = 256  # pixels of the shorter side that the constants are for
SEVERITIES = (1, 2, 3, 4, 5)
LEAST_BLUR = 0.4  # pixels of deviation: less would be nothing at all


@dataclass(frozen=True)
class Scene:
    """An image being corrupted: pixels (H, W, 3) in 0..1, a random generator, and its size as a share of ImageNet's."""

    x: np.ndarray
    rng: np.random.Generator
    scale: float

    @property
    def grain(self) -> float:
        """How much less noise a smaller image has."""
        return self.scale**0.5


@dataclass(frozen=True)
class Corruption:
    """`apply(scene, constant)` gives pixels; `constants` are by severity. `extra`: not among the 15 that count."""

    name: str
    group: str
    apply: Callable[[Scene, Any], np.ndarray]
    constants: Sequence[Any]
    extra: bool = False


def _noise(function: Callable) -> Callable[[Scene, Any], np.ndarray]:
    return lambda s, c: function(s.x, c, s.rng, s.grain)


def _glass(s: Scene, c: tuple[float, int, int]) -> np.ndarray:
    deviation, reach, rounds = c
    return blur.glass_blur(s.x, max(LEAST_BLUR, deviation * s.scale), reach * s.grain, rounds, s.rng)


def _motion(s: Scene, c: tuple[float, float]) -> np.ndarray:
    radius, deviation = c  # the authors' library draws a line of twice the radius
    return blur.motion_blur(s.x, 2 * radius * s.scale, deviation * s.scale, s.rng.uniform(-45, 45))


def _snow(s: Scene, c: tuple[float, ...]) -> np.ndarray:
    wind = 2 * c[4] * s.grain, c[5] * s.grain
    flake = max(2, c[2] * s.grain)  # of single pixels nothing would be smoothed away
    return weather.snow(s.x, (c[0], c[1], c[3]), flake, wind, c[6], s.rng)


def _spatter(s: Scene, c: tuple[float, ...]) -> np.ndarray:
    liquid = weather.mud if c[5] else weather.spatter
    amount = c[0], c[1] * s.scale, c[3]  # smoothed over fewer pixels, noise must be weaker for as many drops
    return liquid(s.x, amount, c[2] * s.scale, c[4] * (s.scale if c[5] else 1), s.rng)


def _jpeg(s: Scene, quality: int) -> np.ndarray:
    coarse = 5000 / quality * s.scale  # percent, by which libjpeg multiplies its table
    return digital.jpeg_compression(s.x, round(5000 / coarse if coarse >= 100 else (200 - coarse) / 2))


def _elastic(s: Scene, c: tuple[float, float, float]) -> np.ndarray:
    reach, deviation, corner = (244 * s.scale * part for part in c)  # 244 is the authors' own slip for 224
    return digital.elastic_transform(s.x, reach * s.grain, deviation, corner, s.rng)


_ALL = (
    Corruption("gaussian-noise", "noise", _noise(noise.gaussian_noise), (0.08, 0.12, 0.18, 0.26, 0.38)),
    Corruption("shot-noise", "noise", _noise(noise.shot_noise), (60, 25, 12, 5, 3)),
    Corruption("impulse-noise", "noise", _noise(noise.impulse_noise), (0.03, 0.06, 0.09, 0.17, 0.27)),
    Corruption(
        "defocus-blur",
        "blur",
        lambda s, c: blur.defocus_blur(s.x, c[0] * s.scale, c[1] * s.scale),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    Corruption("glass-blur", "blur", _glass, ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))),
    Corruption("motion-blur", "blur", _motion, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    Corruption(
        "zoom-blur",
        "blur",
        lambda s, c: blur.zoom_blur(s.x, *c),
        ((0.1, 0.01), (0.15, 0.01), (0.2, 0.02), (0.24, 0.02), (0.3, 0.03)),
    ),
    Corruption(
        "snow",
        "weather",
        _snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    Corruption(
        "frost",
        "weather",
        lambda s, c: weather.frost(s.x, c[0], c[1], s.rng),
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    ),
    Corruption(
        "fog",
        "weather",
        lambda s, c: weather.fog(s.x, c[0], c[1], s.rng),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    Corruption("brightness", "weather", lambda s, c: digital.brightness(s.x, c), (0.1, 0.2, 0.3, 0.4, 0.5)),
    Corruption("contrast", "digital", lambda s, c: digital.contrast(s.x, c), (0.4, 0.3, 0.2, 0.1, 0.05)),
    Corruption(
        "elastic-transform",
        "digital",
        _elastic,
        ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
    ),
    Corruption(
        "pixelate",
        "digital",
        lambda s, c: digital.pixelate(s.x, 1 + (1 / c - 1) * s.grain),
        (0.6, 0.5, 0.4, 0.3, 0.25),
    ),
    Corruption("jpeg-compression", "digital", _jpeg, (25, 18, 15, 10, 7)),
    Corruption("speckle-noise", "noise", _noise(noise.speckle_noise), (0.15, 0.2, 0.35, 0.45, 0.6), extra=True),
    Corruption(
        "gaussian-blur",
        "blur",
        lambda s, c: blur.gaussian_blur(s.x, max(LEAST_BLUR, c * s.scale)),
        (1, 2, 3, 4, 6),
        extra=True,
    ),
    Corruption(
        "spatter",
        "weather",
        _spatter,
        (
            (0.65, 0.3, 4, 0.69, 0.6, 0),
            (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 1.5, 1),
            (0.67, 0.4, 1, 0.65, 1.5, 1),
        ),
        extra=True,
    ),
    Corruption(
        "saturate",
        "digital",
        lambda s, c: digital.saturate(s.x, *c),
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
        extra=True,
    ),
)
CORRUPTIONS = {corruption.name: corruption for corruption in _ALL}
COUNTED = tuple(corruption.name for corruption in _ALL if not corruption.extra)  # the 15 of ImageNet-C
GROUPS = ("noise", "blur", "weather", "digital")


def corrupt(image: Image.Image | np.ndarray, name: str, severity: int) -> np.ndarray:
    """The image corrupted, (H, W, 3) uint8; the same image, name and severity give the same pixels. Raises BadInput."""
    if name not in CORRUPTIONS:
        raise unknown("corruption", name, CORRUPTIONS)
    if severity not in SEVERITIES:
        raise BadInput(f"{name}: a severity is one of {', '.join(map(str, SEVERITIES))}, got {severity}")
    pixels = prepared(image)
    seed = hashlib.sha256(f"{pixels.shape} {name}".encode() + pixels.tobytes()).digest()
    scene = Scene(pixels / 255, np.random.default_rng(list(seed)), min(pixels.shape[:2]) / SIDE)
    made = CORRUPTIONS[name].apply(scene, CORRUPTIONS[name].constants[severity - 1])
    return (np.clip(made, 0, 1) * 255 + 0.5).astype(np.uint8)


def prepared(image: Image.Image | np.ndarray) -> np.ndarray:
    """RGB pixels (H, W, 3) uint8 with a shorter side of at most SIDE."""
    picture = (image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))).convert("RGB")
    if (side := min(picture.size)) > SIDE:
        size = tuple(round(length * SIDE / side) for length in picture.size)
        picture = picture.resize(size, Image.Resampling.BILINEAR)  # type: ignore[arg-type]
    return np.ascontiguousarray(picture)


@dataclass(frozen=True)
class Corrupted(Sequence):
    """Images, corrupted one at a time as they are read."""

    images: Any
    made: Callable[[Any], np.ndarray]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index) -> np.ndarray:
        return self.made(self.images[index])


def corrupted(split: Split, name: str, severity: int) -> Split:
    """The split with each image corrupted, under a fingerprint of its own. Raises BadInput."""
    if name not in CORRUPTIONS:
        raise unknown("corruption", name, CORRUPTIONS)
    return replace(
        split,
        images=Corrupted(split.images, partial(corrupt, name=name, severity=severity)),
        fingerprint=digest([split.fingerprint, "corrupted", VERSION, name, severity]),
        name=f"{split.name} {name} {severity}",
    )
