"""Grounds: colour textures that the digits of a scene lie on, painted within a known band of luminance."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

FAMILIES = ("gradient", "stripes", "checks", "clouds", "photo")
SHIFTED = ("rings", "dots", "zigzags")  # never used unless the texture shift is asked for
COLOUR_NAMES = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "grey")
COLOURS = np.array(
    [
        (0.90, 0.15, 0.15),
        (0.95, 0.55, 0.10),
        (0.92, 0.88, 0.15),
        (0.15, 0.72, 0.22),
        (0.12, 0.75, 0.78),
        (0.18, 0.30, 0.92),
        (0.62, 0.22, 0.82),
        (0.55, 0.55, 0.55),
    ],
    np.float32,
)
GROUND, INK = (0.08, 0.46), (0.6, 0.92)  # luminance of grounds and of digits; in dark-ink scenes, 1 minus these
LUMA = np.array((0.299, 0.587, 0.114), np.float32)


def luminance(colours):
    """Luminance (...) of colours (..., 3); written out, since a matrix product may round differently elsewhere."""
    return colours[..., 0] * LUMA[0] + colours[..., 1] * LUMA[1] + colours[..., 2] * LUMA[2]


def at_luminance(colours, target):
    """Colours (..., 3) mixed with black or white until their luminance is `target` (...)."""
    target = target.astype(np.float32)[..., None]
    now = luminance(colours)[..., None]
    return np.where(target < now, colours * (target / now), colours + (1 - colours) * ((target - now) / (1 - now)))


def unit_vectors(tangent):
    """Cosine and sine of twice the angle with this tangent; unlike np.cos, exactly alike on every machine."""
    square = tangent * tangent
    return (1 - square) / (1 + square), 2 * tangent / (1 + square)


def paint(rng, n, size, families, dark_ink):
    """n grounds (n, size, size, 3) float32 and their names ("blue stripes"); light ones where dark_ink (n,)."""
    family = rng.integers(len(families), size=n)
    hue = rng.integers(len(COLOURS), size=(n, 2))
    same = rng.random(n) < 0.5
    hue[:, 1] = np.where(same, hue[:, 0], hue[:, 1])
    level = rng.uniform(*GROUND, (n, 2))
    if families is SHIFTED:  # bolder than any ground seen before, yet darker than ink
        level = level * (0.7, 0.4) + (0.0, 0.4)
    ends = at_luminance(COLOURS[hue], flipped(level, dark_ink))
    canvas = np.empty((n, size, size, 3), np.float32)
    for index, name in enumerate(families):
        rows = np.flatnonzero(family == index)
        field = PAINTERS[name](rng, len(rows), size)
        chroma = 0
        if field.ndim == 4:
            chroma, field = field, luminance(field)
            chroma = np.float32(0.5) * (chroma - field[..., None])  # has no luminance, so the contrast holds
        first, second = ends[rows, 0][:, None, None], ends[rows, 1][:, None, None]
        canvas[rows] = first + field[..., None] * (second - first) + chroma
    return canvas, [f"{COLOUR_NAMES[h]} {families[f]}" for h, f in zip(hue[:, 0], family, strict=True)]


def flipped(luminance, dark_ink):
    """Luminance (n, k), taken from the other end where dark_ink (n,)."""
    return np.where(dark_ink[:, None], 1 - luminance, luminance)


def litter(rng, canvas, avoid, dark_ink, least, most):
    """Paint `least` to `most` stray strokes into each of canvas (n, S, S, 3) and return where they lie (n, S, S).

    They may be as light as the ink, but are of another hue than `avoid` (n,).
    """
    covered = np.zeros(canvas.shape[:3], bool)
    size = canvas.shape[1]
    counts = rng.integers(least, most + 1, len(canvas))
    line = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    for k in range(most):
        rows = np.flatnonzero(k < counts)
        n = len(rows)
        hue = rng.integers(len(COLOURS), size=n)
        hue = (avoid[rows] + 1 + hue % (len(COLOURS) - 1)) % len(COLOURS)
        level = flipped(rng.uniform(0.35, INK[1], (n, 1)), dark_ink[rows])[:, 0]
        middle = rng.random((n, 2), dtype=np.float32)
        cos, sin = (v.astype(np.float32)[:, None] for v in unit_vectors(rng.uniform(-1, 1, n)))
        half, thick = (_drawn(rng, n, a, b) / np.float32(size) for a, b in ((1.9, 12.8), (0.96, 2.24)))  # of pixels
        x, y = line - middle[:, :1], line - middle[:, 1:]
        beyond = np.abs((x * cos)[:, None, :] + (y * sin)[:, :, None])
        beyond = np.maximum(beyond - half, 0, out=beyond)
        beside = (y * cos)[:, :, None] - (x * sin)[:, None, :]
        far = np.sqrt(beyond * beyond + beside * beside)
        alpha = np.clip((thick - far) * np.float32(size) + np.float32(0.5), 0, 1)
        blend(canvas, rows, alpha, at_luminance(COLOURS[hue], level))
        covered[rows] |= alpha > 0.5
    return covered


def blend(canvas, rows, alpha, colour):
    """Lay colour (n, 3) with coverage alpha (n, S, S) onto canvas[rows], touching only the pixels it covers."""
    which, line, column = np.nonzero(alpha)
    at = (rows[which], line, column)
    canvas[at] += alpha[which, line, column][:, None] * (colour[which] - canvas[at])


def _axes(rng, n, size):
    """Two perpendicular coordinates (n, size, size) in canvas lengths, turned at random."""
    cos, sin = (v.astype(np.float32)[:, None, None] for v in unit_vectors(rng.uniform(-1, 1, n)))
    line = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size) - np.float32(0.5)
    x, y = line[None, None, :], line[None, :, None]
    return x * cos + y * sin, y * cos - x * sin


def _wave(phase):
    """Triangle wave in -1..1 with period 1."""
    return np.abs((phase - np.floor(phase)) * 4 - 2) - 1


def _drawn(rng, n, low, high):
    return rng.uniform(low, high, (n, 1, 1)).astype(np.float32)


def _sharpened(field, by):
    return np.clip(field * by + np.float32(0.5), 0, 1)


def gradient(rng, n, size):
    along, _ = _axes(rng, n, size)
    return _sharpened(along * np.where(rng.random((n, 1, 1)) < 0.5, np.float32(-1), np.float32(1)), np.float32(0.8))


def stripes(rng, n, size):
    along, _ = _axes(rng, n, size)
    return _sharpened(_wave(along * _drawn(rng, n, 2, 6) + _drawn(rng, n, 0, 1)), _drawn(rng, n, 0.6, 2))


def checks(rng, n, size):
    along, across = _axes(rng, n, size)
    often = _drawn(rng, n, 1.5, 4)
    product = _wave(along * often + _drawn(rng, n, 0, 1)) * _wave(across * often + _drawn(rng, n, 0, 1))
    return _sharpened(product, _drawn(rng, n, 1.5, 5))


def clouds(rng, n, size):
    total = np.zeros((n, size, size), np.float32)
    for cells, weight in ((3, 0.5), (6, 0.3), (13, 0.2)):
        grid = rng.random((n, cells + 1, cells + 1), dtype=np.float32)
        spot = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(cells / size)
        low = spot.astype(np.int64)
        part = spot - low
        rows = grid[:, low] * (1 - part)[None, :, None] + grid[:, low + 1] * part[None, :, None]
        total += np.float32(weight) * (rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part)
    return _sharpened(total - np.float32(0.5), np.float32(1.8))


@lru_cache
def _photographs():
    from sklearn.datasets import load_sample_images

    return [image.astype(np.float32) / np.float32(255) for image in load_sample_images().images]


def photo(rng, n, size):
    images = _photographs()
    which, stride = rng.integers(len(images), size=n), rng.integers(1, 4, size=n)
    corner = rng.random((n, 2))
    crops = np.empty((n, size, size, 3), np.float32)
    for i in range(n):
        image, step = images[which[i]], int(stride[i])
        top, left = (int(c * (side - size * step)) for c, side in zip(corner[i], image.shape[:2], strict=True))
        crops[i] = image[top : top + size * step : step, left : left + size * step : step]
    return crops


def rings(rng, n, size):
    along, across = _axes(rng, n, size)
    along, across = along - _drawn(rng, n, -0.5, 0.5), across - _drawn(rng, n, -0.5, 0.5)
    return _sharpened(_wave(np.sqrt(along * along + across * across) * _drawn(rng, n, 3, 8)), _drawn(rng, n, 0.8, 3))


def dots(rng, n, size):
    along, across = _axes(rng, n, size)
    often = _drawn(rng, n, 4, 8)
    u, v = _wave(along * often + _drawn(rng, n, 0, 1)), _wave(across * often + _drawn(rng, n, 0, 1))
    return _sharpened(u * u + v * v - _drawn(rng, n, 0.4, 0.9), np.float32(3))


def zigzags(rng, n, size):
    along, across = _axes(rng, n, size)
    often = _drawn(rng, n, 3, 6)
    return _sharpened(_wave(along * often + _drawn(rng, n, 0.3, 0.8) * _wave(across * often)), _drawn(rng, n, 0.8, 3))


PAINTERS = {f.__name__: f for f in (gradient, stripes, checks, clouds, photo, rings, dots, zigzags)}
