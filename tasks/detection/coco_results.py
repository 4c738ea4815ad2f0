"""Detections of another program, in a json file of COCO results, as predictions to be scored here."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from faster_coco_eval.core import mask as coco_mask
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from ...backbones.errors import BadInput
from ...backbones.reading import validate
from ..datasets import rle
from ..datasets.coco import Runs
from ..predictions import Predictions
from .regions import id_column

LONGEST_SIDE = 1 << 16  # pixels: no image is larger, and C code counts in 32 bits
Number = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]


class Result(BaseModel):
    """One detection; other keys may be there."""

    model_config = ConfigDict(strict=True)
    image_id: Number | str
    category_id: Number
    score: FiniteFloat
    bbox: list[FiniteFloat] | None = Field(default=None, min_length=4, max_length=4)
    segmentation: Runs | None = None


def read_coco_results(path: Path) -> Predictions:
    """The columns that `as_predictions` makes. A result without a box has that of its mask, as pycocotools' `loadRes`
    has it. Raises BadInput naming the result."""
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: cannot be read as json: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadInput(f"{path}: COCO results are a list of objects, one a detection")
    results, boxes, segments = [], [], []
    for number, row in enumerate(rows):
        where = f"{path}: result {number}"
        results.append(result := validate(row, Result, where))
        segments.append(_segment(where, result.segmentation) if result.segmentation else None)
        if (segments[0] is None) != (segments[-1] is None):
            raise BadInput(f"{where}: segmentation: either every result has this key or none; result 0 differs")
        boxes.append(result.bbox or _box(where, segments[-1]))
    columns: Predictions = {
        "image_id": id_column([result.image_id for result in results], str(path)),
        "category_id": np.array([result.category_id for result in results], np.int64),
        "bbox": np.array(boxes, np.float64).reshape(-1, 4),
        "score": np.array([result.score for result in results], np.float64),
    }
    if segments and segments[0]:
        columns["segmentation"] = np.empty(len(segments), dtype=object)
        columns["segmentation"][:] = segments
    return columns


def _segment(where: str, runs: Runs) -> dict[str, Any]:
    """A mask as compressed run lengths that fill its size."""
    (height, width), counts = runs.size, runs.counts
    if not 0 < min(runs.size) <= max(runs.size) <= LONGEST_SIDE:
        raise BadInput(f"{where}: segmentation: size {runs.size} is not that of an image (height, width)")
    if isinstance(counts, str):
        try:
            rle.run_lengths(counts, (height, width))
        except ValueError as error:
            raise BadInput(f"{where}: segmentation: {error}") from None
    elif sum(counts) != height * width:
        raise BadInput(f"{where}: segmentation: its run lengths do not fill {height} x {width} pixels")
    else:
        plain: Any = {"size": runs.size, "counts": counts}
        packed: Any = coco_mask.frPyObjects(plain, height, width)
        counts = packed["counts"].decode()
    return {"size": runs.size, "counts": counts}


def _box(where: str, segment: dict[str, Any] | None) -> list[float]:
    if segment is None:
        raise BadInput(f"{where}: bbox: this key is required where there is no segmentation")
    one: Any = segment | {"counts": segment["counts"].encode()}
    return coco_mask.toBbox(one).tolist()
