"""Non-maximum suppression as `mmcv._ext` has it: plain, soft (Bodla et al. 2017, arXiv 1704.04503) and in groups.

Boxes are (n, 4) xyxy in pixels; `offset` 1 counts a box's last pixel into its sides. Equal scores stay in order.
"""

import torch
import torchvision
from torch import Tensor

from .precision import wide

NAIVE, LINEAR, GAUSSIAN = 0, 1, 2  # mmcv's numbers of soft suppression's ways to lower a score


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes (n, 4) that overlap no better one by more than the threshold, best first."""
    boxes = _closed(wide(boxes), offset)
    # mmcv's threshold is a float32: an overlap of exactly 0.6 is not above it, as it is above torchvision's.
    threshold = torch.tensor(iou_threshold, dtype=torch.float32).item()
    return torchvision.ops.nms(boxes, scores.to(boxes.dtype), threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Indices (k,) of what is left when each box lowers the scores of what it overlaps; fills the top of `dets` (n, 5).

    A box whose score falls below `min_score` is dropped; the first one stays whatever its score.
    """
    closed, scores = _closed(wide(boxes), offset), wide(scores).clone()
    left = torch.arange(len(boxes), device=boxes.device)
    chosen: list[int] = []
    while len(left):
        place = int(scores[left].argmax())
        best = int(left[place])
        left = torch.cat([left[:place], left[place + 1 :]])
        chosen.append(best)
        overlap = torchvision.ops.box_iou(closed[best : best + 1], closed[left])[0].nan_to_num()
        scores[left] *= _kept(overlap, iou_threshold, sigma, method)
        left = left[scores[left] >= min_score]
    indices = torch.tensor(chosen, dtype=torch.long, device=boxes.device)
    dets[: len(chosen)] = torch.cat([boxes[indices], scores[indices, None].to(boxes.dtype)], dim=1)
    return indices


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """For each kept row of `dets` (n, 5) boxes with scores: itself, then those that it suppresses, best first."""
    dets = wide(dets)
    overlap = torchvision.ops.box_iou(dets[:, :4], dets[:, :4])
    left = dets[:, 4].argsort(descending=True, stable=True)
    groups: list[list[int]] = []
    while len(left):
        best, rest = left[0], left[1:]
        near = overlap[best, rest] >= iou_threshold
        groups.append([int(best), *rest[near].tolist()])
        left = rest[~near]
    return groups


def _closed(boxes: Tensor, offset: int) -> Tensor:
    """Boxes whose sides are as long as `offset` says."""
    return boxes + boxes.new_tensor([0, 0, offset, offset])


def _kept(overlap: Tensor, iou_threshold: float, sigma: float, method: int) -> Tensor:
    """The part of its score that a box keeps at an overlap (k,)."""
    if method == GAUSSIAN:
        return torch.exp(-(overlap**2) / sigma)
    rest = torch.zeros_like(overlap) if method == NAIVE else 1 - overlap
    return torch.where(overlap >= iou_threshold, rest, torch.ones_like(overlap))
