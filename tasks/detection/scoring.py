"""Stored predictions against the true objects of a split."""

from ..datasets import Dataset, Split, rle
from ..predictions import Predictions
from .average_precision import Matches, match
from .regions import box_overlap, found_boxes, found_masks, true_boxes, true_masks


def box_matches(predictions: Predictions, split: Split, data: Dataset) -> Matches:
    """The matches of boxes. Raises BadInput where predictions are not those of the split."""
    found = found_boxes(predictions, split, data.category_ids)
    return match(true_boxes(split), found, len(data.classes), box_overlap)


def mask_matches(predictions: Predictions, split: Split, data: Dataset) -> Matches:
    """The matches of masks. Raises BadInput where predictions are not those of the split, or there are no masks."""
    found = found_masks(predictions, split, data.category_ids)
    return match(true_masks(split), found, len(data.classes), rle.overlap)
