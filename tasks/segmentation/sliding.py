"""Sliding windows over an image that is larger than what the network sees at once."""

from collections.abc import Callable

import torch
from torch import Tensor


def starts(length: int, side: int, step: int) -> list[int]:
    """Where windows of `side` begin, every `step`, until they cover `length` ≥ side; the last one ends with it."""
    return [min(first, length - side) for first in range(0, length - side + step, step)]


def slide(
    scores_of: Callable[[Tensor], Tensor], pixels: Tensor, classes: int, side: int, step: int, batch: int
) -> Tensor:
    """Scores (classes, H, W) of pixels (3, H, W), H and W at least `side`: where windows overlap, their mean.

    `scores_of`: windows (B, 3, side, side) → scores (B, classes, side, side), asked for `batch` windows at a time.
    """
    height, width = pixels.shape[1:]
    corners = [(y, x) for y in starts(height, side, step) for x in starts(width, side, step)]
    total = torch.zeros(classes, height, width, device=pixels.device)
    seen = torch.zeros(height, width, device=pixels.device)
    for first in range(0, len(corners), batch):
        part = corners[first : first + batch]
        scores = scores_of(torch.stack([pixels[:, y : y + side, x : x + side] for y, x in part]))
        for (y, x), one in zip(part, scores, strict=True):
            total[:, y : y + side, x : x + side] += one
            seen[y : y + side, x : x + side] += 1
    return total / seen
