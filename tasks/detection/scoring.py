"""Predictions against the true objects of a split."""

from collections.abc import Sequence

import numpy as np

from ..datasets import Dataset, Split, rle
from ..predictions import Predictions
from .average_precision import Matches, match, summary
from .regions import Detections, as_predictions, box_overlap, found_boxes, found_masks, true_boxes, true_masks


def box_matches(predictions: Predictions, split: Split, data: Dataset) -> Matches:
    """The matches of boxes. Raises BadInput where predictions are not those of the split."""
    found = found_boxes(predictions, split, data.category_ids)
    return match(true_boxes(split), found, len(data.classes), box_overlap)


def mask_matches(predictions: Predictions, split: Split, data: Dataset) -> Matches:
    """The matches of masks. Raises BadInput where predictions are not those of the split, or there are no masks."""
    found = found_masks(predictions, split, data.category_ids)
    return match(true_masks(split), found, len(data.classes), rle.overlap)


def validation_ap(found: Sequence[Detections], data: Dataset, masks: bool) -> dict[str, float]:
    """`val_ap` in percent, of boxes or masks, of what was found in each validation image: a line of the curve."""
    val = data["val"]
    predictions = as_predictions(found, val, data.category_ids)
    matches = (mask_matches if masks else box_matches)(predictions, val, data)
    return {"val_ap": summary(matches, np.ones(len(val)))["ap"]}
