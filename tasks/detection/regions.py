"""True and predicted objects of a split as regions to be matched; predictions are stored in COCO's result format.

A row is one of the results that pycocotools' `loadRes` takes: `image_id` and `category_id` as the data set's own files
have them, `bbox` x, y, width, height in pixels, `score`, and of masks `segmentation`, {"size": [H, W], "counts": text}.
Given both, pycocotools takes the area of a mask from its box: for its statistics of masks, leave `bbox` out.
"""

import operator
from collections import Counter
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


def as_predictions(images: Sequence[Detections], split: Split, category_ids: Sequence[int]) -> Predictions:
    """A row a detection of each image of a split, as COCO results; label i is written as `category_ids[i]`.

    Raises BadInput where the ids of the split's images do not tell them apart.
    """
    counts = [len(d.labels) for d in images]
    boxes = np.concatenate([np.asarray(d.boxes, np.float64).reshape(-1, 4) for d in images])
    columns: Predictions = {
        "image_id": np.repeat(image_ids(split), counts),
        "category_id": np.asarray(category_ids, np.int64)[np.concatenate([d.labels for d in images]).astype(int)],
        "bbox": np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1),
        "score": np.concatenate([d.scores for d in images]).astype(np.float32),
    }
    if all(d.masks is not None for d in images):
        columns["segmentation"] = np.empty(len(boxes), dtype=object)
        columns["segmentation"][:] = [{"size": list(d.size), "counts": text} for d in images for text in d.masks or ()]
    return columns


def found_boxes(predictions: Predictions, split: Split, category_ids: Sequence[int]) -> list[Regions]:
    """Predicted boxes xyxy by image. Raises BadInput naming the column, or the row, that is wrong."""
    image, label, score, box = _columns(predictions, split, category_ids)
    areas = box[:, 2] * box[:, 3]
    return _by_image(np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1), label, areas, score, image, split)


def found_masks(predictions: Predictions, split: Split, category_ids: Sequence[int]) -> list[Regions]:
    """Predicted masks by image. Raises BadInput naming the column, or the row, that is wrong."""
    image, label, score, _ = _columns(predictions, split, category_ids)
    sizes = [image_size(split, row, objects) for row, objects in enumerate(split.targets)]
    segments = _column(predictions, "segmentation")
    shapes, areas = np.empty(len(segments), dtype=object), np.zeros(len(segments))
    for row, segment in enumerate(segments):
        expected = list(sizes[image[row]])
        if not isinstance(segment, dict) or segment.get("size") != expected:
            raise BadInput(
                f"predictions: row {row}: 'segmentation' is a mask of {expected} (height, width) as its image is, "
                f'{{"size": …, "counts": …}}; got {str(segment)[:80]}'
            )
        try:
            areas[row] = rle.run_lengths(segment["counts"], sizes[image[row]])[1::2].sum()
        except (ValueError, KeyError, AttributeError) as error:
            raise BadInput(f"predictions: row {row}: 'segmentation': counts: {error}") from None
        shapes[row] = {"size": expected, "counts": segment["counts"].encode()}
    return _by_image(shapes, label, areas, score, image, split)


def image_ids(split: Split) -> np.ndarray:
    """(n,) int64 or text: what the data set calls each image, its position where it does not say.

    Raises BadInput unless they tell the images apart.
    """
    where, ids = split.name or "split", list(split.ids) or list(range(len(split)))
    if twice := [id for id, count in Counter(ids).items() if count > 1]:
        raise BadInput(f"{where}: two images have the id {twice[0]!r}; each needs one of its own")
    return id_column(ids, where)


def id_column(ids: Sequence[int | str], where: str) -> np.ndarray:
    """(n,) int64, or objects that are text. Raises BadInput where they are neither."""
    if ids and all(isinstance(id, str) for id in ids):
        return np.array(ids, dtype=object)
    try:
        return np.array([operator.index(id) for id in ids], np.int64)  # pyright: ignore[reportArgumentType]
    except (TypeError, OverflowError):
        raise BadInput(f"{where}: ids of images are all text or all integers of 64 bits") from None


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


def _by_image(shapes, labels, areas, scores, image, split: Split) -> list[Regions]:
    order = np.argsort(image, kind="stable")
    edges = np.searchsorted(image[order], np.arange(len(split) + 1))
    rows = [order[a:b] for a, b in pairwise(edges)]
    return [Regions(shapes[r], labels[r], areas[r], scores[r]) for r in rows]


def _columns(predictions: Predictions, split: Split, category_ids: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Row of the image (n,), label (n,), score (n,) and box xywh (n, 4) of every detection, checked."""
    image = _places(predictions, "image_id", image_ids(split).tolist(), f"an image of {split.name or 'the split'}")
    label = _places(predictions, "category_id", list(category_ids), "a category of the data set")
    score, box = _numbers(predictions, "score", ()), _numbers(predictions, "bbox", (4,))
    _refuse((box[:, 2:] < 0).any(1), "'bbox' is x, y, width, height with none of these below 0", box)
    return image, label, score, box


def _places(predictions: Predictions, column: str, known: list, what: str) -> np.ndarray:
    """(n,) where the value of each row stands among those known."""
    place, values = {value: at for at, value in enumerate(known)}, _column(predictions, column)
    found = [place.get(value, -1) if isinstance(value, int | str) else -1 for value in values.tolist()]
    _refuse(np.array(found, int) < 0, f"{column!r} is not that of {what}", values)
    return np.array(found, int)


def _numbers(predictions: Predictions, column: str, shape: tuple[int, ...]) -> np.ndarray:
    """(n, *shape) float64, all finite."""
    values = _column(predictions, column)
    if values.shape[1:] != shape or values.dtype.kind not in "fiu":
        raise BadInput(f"predictions: {column!r} holds {shape[0] if shape else 'a'} finite numbers a row")
    _refuse(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))), f"{column!r} is not finite", values)
    return values.astype(np.float64)


def _column(predictions: Predictions, name: str) -> np.ndarray:
    if name not in predictions:
        raise BadInput(f"predictions: column {name!r} is missing; there are: {', '.join(predictions)}")
    if len(predictions[name]) != len(predictions["image_id"]):
        raise BadInput(f"predictions: columns 'image_id' and {name!r} differ in length")
    return predictions[name]


def _refuse(wrong: Any, rule: str, values: np.ndarray) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        got = values[row].tolist() if isinstance(values[row], np.ndarray | np.generic) else values[row]
        raise BadInput(f"predictions: row {row}: {rule}, got {got!r}")
