"""True and predicted objects of a split as regions to be matched, and the columns that predictions are stored in."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ...backbones.errors import BadInput
from ...backbones.transform import as_pil
from ..datasets import Objects, Split, rle
from ..predictions import Predictions
from .average_precision import Regions


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in an image of `size` (H, W): boxes (k, 4) xyxy pixels, labels (k,), scores (k,), masks as RLE."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    size: tuple[int, int]
    masks: Sequence[str] | None = None


def as_predictions(images: Sequence[Detections]) -> Predictions:
    """One row a detection: image (index in the split), label, score, box (4 columns); with masks also mask and size."""
    counts = [len(d.labels) for d in images]
    columns: Predictions = {
        "image": np.repeat(np.arange(len(images), dtype=np.int32), counts),
        "label": np.concatenate([d.labels for d in images]).astype(np.int32),
        "score": np.concatenate([d.scores for d in images]).astype(np.float32),
        "box": np.concatenate([d.boxes for d in images]).astype(np.float32).reshape(-1, 4),
    }
    if all(d.masks is not None for d in images):
        columns["mask"] = np.array([text for d in images for text in d.masks or ()], dtype=object)
        columns["size"] = np.repeat(np.array([d.size for d in images], dtype=np.int32).reshape(-1, 2), counts, axis=0)
    return columns


def found_boxes(predictions: Predictions, images: int, classes: int) -> list[Regions]:
    """Predicted boxes by image. Raises BadInput naming the column, or the row, that is wrong."""
    image, label, score, box = _columns(predictions, ("image", "label", "score", "box"))
    _refuse((image < 0) | (image >= images), f"'image' is an index from 0 to {images - 1}", image)
    _refuse((label < 0) | (label >= classes), f"'label' is a class from 0 to {classes - 1}", label)
    _refuse(~np.isfinite(score), "'score' is a finite number", score)
    if box.ndim != 2 or box.shape[1] != 4:
        raise BadInput(f"predictions: 'box' holds four numbers a row (x1, y1, x2, y2), got shape {box.shape}")
    _refuse(
        ~np.isfinite(box).all(1) | (box[:, 2:] < box[:, :2]).any(1),
        "'box' is x1, y1, x2, y2 with x1 <= x2, y1 <= y2",
        box,
    )
    box = box.astype(np.float64)
    areas = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    return _by_image(box, label, areas, score, image, images)


def found_masks(predictions: Predictions, sizes: Sequence[tuple[int, int]], classes: int) -> list[Regions]:
    """Predicted masks by image of (H, W) = `sizes`. Raises BadInput naming the column, or the row, that is wrong."""
    found_boxes(predictions, len(sizes), classes)  # for its checks
    image, label, score, mask, size = _columns(predictions, ("image", "label", "score", "mask", "size"))
    shapes, areas = np.empty(len(mask), dtype=object), np.zeros(len(mask))
    for row, counts in enumerate(mask):
        expected = sizes[image[row]]
        if tuple(size[row]) != expected:
            raise BadInput(
                f"predictions: row {row}: a mask of {tuple(map(int, size[row]))} for an image of {expected} (H, W)"
            )
        try:
            areas[row] = rle.run_lengths(counts, expected)[1::2].sum()
        except (ValueError, AttributeError) as error:
            raise BadInput(f"predictions: row {row}: 'mask': {error}") from None
        shapes[row] = {"size": list(expected), "counts": counts.encode()}
    return _by_image(shapes, label, areas, score, image, len(sizes))


def true_boxes(split: Split) -> list[Regions]:
    """The boxes of a split by image."""
    return [_true(objects, np.asarray(objects.boxes, np.float64).reshape(-1, 4)) for objects in split.targets]


def true_masks(split: Split) -> list[Regions]:
    """The masks of a split by image, as RLE. Raises BadInput where an image's objects have none."""
    found = []
    for index, objects in enumerate(split.targets):
        masks = masks_of(objects, split, index)
        shapes = np.empty(len(objects.labels), dtype=object)
        size = list(masks.shape[1:])
        shapes[:] = [{"size": size, "counts": text.encode()} for text in rle.encode(masks)]
        found.append(_true(objects, shapes))
    return found


def box_overlap(found: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU (d, g) of boxes xyxy; for a crowd, intersection over the detection."""
    low, high = np.maximum(found[:, None, :2], truth[:, :2]), np.minimum(found[:, None, 2:], truth[:, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    area, true_area = ((b[:, 2:] - b[:, :2]).prod(-1) for b in (found, truth))
    union = np.where(crowd, area[:, None], area[:, None] + true_area - shared)
    return shared / np.maximum(union, np.finfo(float).tiny)


def areas_of(objects: Objects) -> np.ndarray:
    """(k,) pixels: as the data set tells, else counted in the masks, else width times height."""
    if objects.areas is not None:
        return np.asarray(objects.areas, float)
    if objects.masks is not None:
        return objects.masks.sum((1, 2)).astype(float)
    boxes = np.asarray(objects.boxes, float).reshape(-1, 4)
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def image_size(split: Split, index: int, objects: Objects) -> tuple[int, int]:
    """(H, W) of an image; the image itself is decoded only where its objects don't tell."""
    if objects.size is not None:
        return objects.size
    if objects.masks is not None:
        return objects.masks.shape[1], objects.masks.shape[2]
    width, height = as_pil(split.images[index]).size
    return height, width


def masks_of(objects: Objects, split: Split, index: int) -> np.ndarray:
    """(k, H, W) bool. Raises BadInput naming the image where its objects have none."""
    if objects.masks is None:
        image = split.ids[index] if len(split.ids) else index
        raise BadInput(f"image {image}: its objects have boxes but no masks; `detection` needs only boxes")
    return objects.masks


def _true(objects: Objects, shapes: np.ndarray) -> Regions:
    crowd = np.zeros(len(shapes), bool) if objects.crowd is None else np.asarray(objects.crowd, bool)
    return Regions(shapes, np.asarray(objects.labels), areas_of(objects), crowd)


def _by_image(shapes, labels, areas, scores, image, images: int) -> list[Regions]:
    order = np.argsort(image, kind="stable")
    edges = np.searchsorted(image[order], np.arange(images + 1))
    rows = [order[a:b] for a, b in pairwise(edges)]
    return [Regions(shapes[r], labels[r], areas[r], scores[r]) for r in rows]


def _columns(predictions: Predictions, names: Sequence[str]) -> list[np.ndarray]:
    for name in names:
        if name not in predictions:
            raise BadInput(f"predictions: column {name!r} is missing; there are: {', '.join(predictions)}")
        if len(predictions[name]) != len(predictions[names[0]]):
            raise BadInput(f"predictions: columns {names[0]!r} and {name!r} differ in length")
    return [predictions[name] for name in names]


def _refuse(wrong: Any, rule: str, values: np.ndarray) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise BadInput(f"predictions: row {row}: {rule}, got {values[row].tolist()}")
