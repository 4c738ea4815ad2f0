"""Digit scenes: scikit-learn's real handwritten digits composed on textured colour canvases.

Everything is drawn from PCG64 and elementwise IEEE arithmetic (no sin, cos, exp, matrix products or sums whose order
may vary), so that one seed gives the same bytes on every machine. Nothing is read but what scikit-learn ships.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from . import grounds
from .grounds import COLOURS, INK, at_luminance, unit_vectors

VERSION = 1  # bump when any pixel would change
SHIFTS = ("texture", "inversion", "blur", "noise", "contrast", "rotation")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPLITS = {"pretrain": 800, "train": 500, "val": 150, "test": 347}
CHUNK = 64  # scenes drawn together: large enough to vectorise, small enough to stay in cache
CELL = 64  # side of the enlarged glyph that is sampled
OVERLAP = 0.25  # largest share of the smaller cell that two objects may share
DARK_INK = 0.04  # share of scenes with dark digits on light ground: rare, so that inversion shifts, but not unheard of


@dataclass(frozen=True)
class DigitPool:
    """Handwritten digits of one split: images (n, 8, 8) in 0..1, labels (n,), ids (n,) into scikit-learn's array."""

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray


@dataclass(frozen=True)
class Scenes:
    """N composed scenes of side S with at most K objects each; absent objects are -1 (labels, samples) or 0 (boxes)."""

    images: np.ndarray  # uint8 (N, S, S, 3)
    instances: np.ndarray  # uint8 (N, S, S): 0 ground, k the k-th object where it is visible
    labels: np.ndarray  # int64 (N, K); -1 also marks a scribble
    samples: np.ndarray  # int64 (N, K): which handwritten digit, as an index into scikit-learn's array
    boxes: np.ndarray  # float32 (N, K, 4): x1, y1, x2, y2 in pixels, tight around what is visible
    captions: list[str]


@lru_cache
def digit_pool(split: str) -> DigitPool:
    """The digits of "pretrain", "train", "val" or "test": disjoint, stratified; another name raises ValueError."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; one of {', '.join(SPLITS)}")
    from sklearn.datasets import load_digits

    cells, target = map(np.asarray, load_digits(return_X_y=True))
    rng = np.random.Generator(np.random.PCG64(1797))
    edges = np.cumsum([0, *SPLITS.values()]) / sum(SPLITS.values())
    start, stop = edges[list(SPLITS).index(split) :][:2]
    chosen = []
    for label in range(10):
        members = rng.permutation(np.flatnonzero(target == label))
        chosen.append(members[round(start * len(members)) : round(stop * len(members))])
    ids = np.sort(np.concatenate(chosen)).astype(np.int64)
    images = (cells[ids].reshape(-1, 8, 8) / 16).astype(np.float32)
    for array in (ids, images):
        array.setflags(write=False)
    return DigitPool(images, target[ids].astype(np.int64), ids)


def compose(
    pool: DigitPool,
    count: int,
    *,
    seed: int,
    size: int = 64,
    digits: tuple[int, int] = (1, 1),
    shift: str | None = None,
    glyph: str = "digit",
    samples: np.ndarray | None = None,
) -> Scenes:
    """`count` scenes of `size` px with digits[0]..digits[1] objects each; the same arguments give the same bytes.

    `shift` is one of SHIFTS (the twin of the unshifted scene: same digits in the same places); `glyph="scribble"` draws
    stroke figures that are no digit; `samples` (count,) fixes the pool position shown in each single-digit scene.
    Raises ValueError for an unknown shift or glyph, or samples of another length or with several digits.
    """
    if shift is not None and shift not in SHIFTS:
        raise ValueError(f"unknown shift {shift!r}; one of {', '.join(SHIFTS)}")
    if glyph not in ("digit", "scribble"):
        raise ValueError(f"unknown glyph {glyph!r}; digit or scribble")
    if samples is not None and (len(samples) != count or tuple(digits) != (1, 1)):
        raise ValueError("samples must name one pool position for each of `count` single-digit scenes")
    # The pool enters the seed: two splits composed with one seed must not share their grounds and layouts.
    identity = zlib.crc32(pool.ids.astype("<i8").tobytes())
    chunks = []
    for start in range(0, max(count, 1), CHUNK):
        n = min(CHUNK, count - start)
        sequence = np.random.SeedSequence([VERSION, identity, seed, start])
        streams = [np.random.Generator(np.random.PCG64(child)) for child in sequence.spawn(3)]
        fixed = None if samples is None else np.asarray(samples, dtype=np.int64)[start : start + n, None]
        chunks.append(_chunk(pool, n, streams, size, digits, shift, glyph, fixed))
    parts = {f.name: [getattr(c, f.name) for c in chunks] for f in fields(Scenes)}
    captions = [line for lines in parts.pop("captions") for line in lines]
    return Scenes(**{name: np.concatenate(arrays) for name, arrays in parts.items()}, captions=captions)


def _chunk(pool, n, streams, size, digits, shift, glyph, fixed) -> Scenes:
    """Up to CHUNK scenes; layout, ground and finish draw from streams of their own, so shifted twins share the rest."""
    layout, painter, finish = streams
    dark_ink = layout.random(n) < DARK_INK
    families = grounds.SHIFTED if shift == "texture" else grounds.FAMILIES
    canvas, ground_names = grounds.paint(painter, n, size, families, dark_ink)
    lo, most = digits
    positions = layout.integers(len(pool.ids), size=(n, most)) if fixed is None else fixed
    extent, centre, keep = _place(layout, n, size, lo, most)
    matrix = _transforms(layout, n, most, extent, turned=shift == "rotation")
    hue = layout.integers(len(COLOURS), size=(n, most))
    ink = at_luminance(COLOURS[hue], grounds.flipped(layout.uniform(*INK, hue.shape), dark_ink))
    boldness = layout.uniform(0.3, 0.42, (n, most)).astype(np.float32)
    order = np.argsort(~keep, axis=1, kind="stable")  # objects that found no room go last and are not drawn
    counts = keep.sum(1)
    avoid = hue[:, 0] if most else painter.integers(len(COLOURS), size=n)
    grounds.litter(painter, canvas, avoid, dark_ink, 1, 4)

    instances = np.zeros((n, size, size), np.uint8)
    for k in range(most):
        rows = np.flatnonzero(k < counts)
        if not len(rows):
            break
        at = (rows, order[rows, k])
        cells = _scribbles(layout, len(rows)) if glyph == "scribble" else pool.images[positions[at]]
        alpha = _render(cells, matrix[at], centre[at], boldness[at], size)
        grounds.blend(canvas, rows, alpha, ink[at])
        instances[rows] = np.where(alpha > 0.5, np.uint8(k + 1), instances[rows])

    instances[grounds.litter(painter, canvas, avoid, dark_ink, 1, 4)] = 0  # some strokes lie over the digits

    present = np.arange(most) < counts[:, None]
    chosen = np.take_along_axis(positions, order, 1)
    unknown = glyph == "scribble"
    labels = np.where(present & (not unknown), pool.labels[chosen], -1)
    names = np.take_along_axis(hue, order, 1)
    large = np.take_along_axis(extent, order, 1) > np.float32(0.58 if most == 1 else 0.36) * size
    captions = _captions(layout, labels, names, large, counts, ground_names)
    return Scenes(
        images=_finish(finish, canvas, shift),
        instances=instances,
        labels=labels,
        samples=np.where(present & (not unknown), pool.ids[chosen], -1),
        boxes=_tight_boxes(instances, most),
        captions=captions,
    )


def _place(rng, n, size, lo, most):
    """Sides and centres (n, most) in pixels and which objects to keep: the least overlapping of a few tries each."""
    small, big = (0.46, 0.72) if most == 1 else (0.26, 0.46)
    extent = (rng.uniform(small, big, (n, most)) * size).astype(np.float32)
    tries = rng.random((n, most, 12, 2), dtype=np.float32)
    centre = np.zeros((n, most, 2), np.float32)
    keep = np.arange(most) < rng.integers(lo, most + 1, n)[:, None]
    for k in range(most):
        half = extent[:, k, None, None] * np.float32(0.52)
        spots = half + tries[:, k] * (size - 2 * half)
        worst = np.zeros(spots.shape[:2], np.float32)
        for j in range(k):
            reach = (extent[:, k] + extent[:, j])[:, None, None] / 2
            side = np.minimum(extent[:, k], extent[:, j])[:, None, None]
            shared = np.clip(reach - np.abs(spots - centre[:, j, None]), 0, side) / side
            worst = np.maximum(worst, shared[..., 0] * shared[..., 1] * keep[:, j, None])
        best = worst.argmin(1)
        centre[:, k] = spots[np.arange(n), best]
        keep[:, k] &= (worst.min(1) <= OVERLAP) | (k < lo)
    return extent, centre, keep


def _transforms(rng, n, most, extent, turned):
    """Maps (n, most, 2, 2) from pixels to glyph cells: a turn to 15 degrees (25 to 50 if turned), shear, aspect."""
    turn = rng.uniform(-1, 1, (n, most))
    tangent = np.sign(turn) * 0.2217 + turn * 0.2446 if turned else turn * 0.1317  # of half the angle
    cos, sin = unit_vectors(tangent)
    shear, aspect = rng.uniform(-0.2, 0.2, (n, most)), rng.uniform(0.88, 1.14, (n, most))
    scale = CELL / extent
    inverse = np.stack([cos + shear * sin, sin - shear * cos, -sin * aspect, cos * aspect], -1)
    return (inverse * scale[..., None]).reshape(n, most, 2, 2).astype(np.float32)


def _render(cells, matrix, centre, boldness, size):
    """Coverage (n, size, size) in 0..1 of one glyph (n, 8, 8) per scene, laid down by an affine map."""
    large = np.stack(
        [
            np.asarray(Image.fromarray((c * 255).astype(np.uint8)).resize((CELL, CELL), Image.Resampling.BICUBIC))
            for c in cells
        ]
    )
    padded = np.zeros((len(cells), CELL + 2, CELL + 2), np.uint8)
    padded[:, 1:-1, 1:-1] = large
    grid = np.arange(size, dtype=np.float32) + np.float32(0.5)
    dx, dy = grid - centre[:, 0, None], grid - centre[:, 1, None]
    half = np.float32(CELL / 2 + 1)
    where = []
    for row in (1, 0):  # v, then u
        line = matrix[:, row, 0, None, None] * dx[:, None, :] + matrix[:, row, 1, None, None] * dy[:, :, None]
        line += half
        where.append(np.clip(line, 0, CELL + 1, out=line).astype(np.int32))
    index = where[0] * np.int32(CELL + 2) + where[1]
    index += (np.arange(len(cells), dtype=np.int32) * np.int32((CELL + 2) ** 2))[:, None, None]
    ink = np.take(padded.reshape(-1), index).astype(np.float32)
    ink *= np.float32(1 / 255)
    ink -= boldness[:, None, None]
    ink *= np.float32(4)  # a stroke's edge is about a pixel wide
    return np.clip(ink, 0, 1, out=ink)


def _scribbles(rng, n):
    """Stroke figures (n, 8, 8) that are no digit but as coarse as one: two zigzags drawn large, then shrunk."""
    points = rng.integers(4, 60, (n, 2, 4, 2))
    cells = []
    for strokes in points:
        image = Image.new("L", (64, 64))
        for stroke in strokes:
            ImageDraw.Draw(image).line([tuple(p) for p in stroke.tolist()], fill=255, width=9)
        cells.append(np.asarray(image.resize((8, 8), Image.Resampling.BOX)))
    return (np.stack(cells) / 255).astype(np.float32)


def _tight_boxes(instances, most):
    """Boxes (n, most, 4) around the visible pixels of each object."""
    n, size, _ = instances.shape
    boxes = np.zeros((n, most, 4), np.float32)
    for k in range(most):
        seen = instances == k + 1
        columns, lines = seen.any(1), seen.any(2)
        edges = [columns.argmax(1), lines.argmax(1), size - columns[:, ::-1].argmax(1), size - lines[:, ::-1].argmax(1)]
        boxes[:, k] = np.stack(edges, -1) * columns.any(1)[:, None]
    return boxes


def _finish(rng, canvas, shift):
    """uint8 images from the painted canvas: the shift, if it is one of the camera, then a little sensor noise."""
    if shift == "blur":
        for axis in (1, 2):
            for width in (7, 5):
                canvas = _box_blur(canvas, width, axis)
    if shift == "contrast":
        middle = np.float32(0.35) + np.float32(0.3) * rng.random((len(canvas), 1, 1, 1), dtype=np.float32)
        canvas = middle + np.float32(0.3) * (canvas - np.float32(0.5))
    amount = np.float32(0.9 if shift == "noise" else 0.16)
    canvas = canvas + amount * (rng.random(canvas.shape, dtype=np.float32) - np.float32(0.5))
    images = (np.clip(canvas, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return 255 - images if shift == "inversion" else images


def _box_blur(canvas, width, axis):
    """Mean of `width` neighbours along one axis, edges repeated."""
    pad = [(0, 0)] * canvas.ndim
    pad[axis] = (width // 2, width // 2)
    padded = np.pad(canvas, pad, mode="edge")
    length = canvas.shape[axis]
    total = np.zeros_like(canvas)
    for start in range(width):
        total += padded.take(range(start, start + length), axis)
    return total / np.float32(width)


def _captions(rng, labels, hues, large, counts, ground_names) -> list[str]:
    """One sentence a scene: what is there, its colour and size, and the ground."""
    frames = ("{} on {}", "a photo of {} on {}", "{} over {}", "a picture of {} on {}", "there is {} on {}")
    style = rng.integers(len(frames), size=len(labels))
    told = rng.random((*labels.shape, 2)) < 0.7  # colour and size are not always told
    lines = []
    for i, ground in enumerate(ground_names):
        things = []
        for k in range(counts[i]):
            noun = NUMBERS[labels[i, k]] if labels[i, k] >= 0 else "scribble"
            size = ("large " if large[i, k] else "small ") if told[i, k, 1] else ""
            colour = f"{grounds.COLOUR_NAMES[hues[i, k]]} " if told[i, k, 0] else ""
            things.append(f"a {size}{colour}{noun}")
        lines.append(frames[style[i]].format(" and ".join(things) or "nothing", ground))
    return lines
