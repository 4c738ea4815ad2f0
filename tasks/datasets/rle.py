"""Masks as run lengths in COCO's compressed text: small in a file, and checked before any C code reads them."""

from collections.abc import Sequence

import numpy as np
from faster_coco_eval.core import mask as coco_mask

LONGEST_NUMBER = 7  # characters of 5 bits: more than any image's pixels need


def encode(masks: np.ndarray) -> list[str]:
    """One text a mask of (k, H, W) bool."""
    if not len(masks):
        return []
    return [rle["counts"].decode() for rle in coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0), np.uint8))]


def decode(counts: str, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool. Raises ValueError as `run_lengths` does."""
    return np.repeat(np.arange(len(run := run_lengths(counts, size))) % 2 == 1, run).reshape(size, order="F")


def run_lengths(counts: str, size: tuple[int, int]) -> np.ndarray:
    """Lengths of the runs, the first of zeros, down the columns. Raises ValueError unless they fill (H, W) exactly."""
    try:
        digits = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise ValueError("run lengths hold a character that is not of COCO's 64") from None
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        raise ValueError("run lengths are not COCO's compressed text")
    starts = np.flatnonzero(np.r_[True, digits[:-1] & 32 == 0])
    lengths = np.diff(np.r_[starts, len(digits)])
    if lengths.max() > LONGEST_NUMBER:
        raise ValueError("a run length is larger than any image")
    place = np.arange(len(digits)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((digits & 31) << (5 * place), starts)
    negative = digits[starts + lengths - 1] & 16 != 0
    runs -= negative.astype(np.int64) << (5 * lengths)
    # From the third on, a number is the difference to the one two before it.
    runs[1::2], runs[2::2] = np.cumsum(runs[1::2]), np.cumsum(runs[2::2])
    if runs.min() < 0 or runs.sum() != size[0] * size[1]:
        raise ValueError(f"run lengths do not fill a mask of {size[0]} x {size[1]}")
    return runs


def overlap(found: Sequence[dict], truth: Sequence[dict], crowd: np.ndarray) -> np.ndarray:
    """IoU (d, g) of masks given as `{"size": [H, W], "counts": …}`; for a crowd, intersection over the detection."""
    return np.asarray(coco_mask.iou(list(found), list(truth), crowd.astype(int).tolist()))
