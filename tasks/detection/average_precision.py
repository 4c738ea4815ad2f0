"""COCO average precision as a function of image weights: match once, accumulate at any weights.

Matching and interpolation follow the COCO protocol (Lin et al. 2014, arXiv 1405.0312; its reference is pycocotools).
A weight counts an image's objects and detections that many times, so integer weights are a resample with repetition
and the bootstrap needs no second matching.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # intersection over union at which a detection is a hit
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
LARGEST_COUNT = 100  # detections scored per image and class, the best ones
REPLICATES = 200  # resamples of the interval: matching is done once, but each takes milliseconds

Overlap = Callable[[Any, Any, np.ndarray], np.ndarray]
"""(detected regions, true regions, crowd flags) → their IoU (d, g); for a crowd, intersection over the detection."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Boxes or masks of one image: `shapes` (k, …), `labels` (k,), `areas` (k,) pixels.

    `extra` (k,): the scores of detections, or the crowd flags of true objects.
    """

    shapes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    extra: np.ndarray

    def of(self, label: int) -> "Regions":
        """Those of one class."""
        keep = self.labels == label
        return Regions(self.shapes[keep], self.labels[keep], self.areas[keep], self.extra[keep])

    def best(self, count: int) -> "Regions":
        """The `count` of highest score, falling; ties stay in order."""
        order = np.argsort(-self.extra, kind="stable")[:count]
        return Regions(self.shapes[order], self.labels[order], self.areas[order], self.extra[order])


@dataclass(frozen=True, eq=False)
class Matches:
    """One class over all images: d detections by falling score, g true objects; A area ranges, T thresholds.

    hit, miss (A, T, d): true and false positives (neither: ignored); counted (A, g): objects that are to be found;
    found_in (d,), lies_in (g,): the image of each.
    """

    hit: np.ndarray
    miss: np.ndarray
    found_in: np.ndarray
    counted: np.ndarray
    lies_in: np.ndarray


def match(truth: Sequence[Regions], found: Sequence[Regions], classes: int, overlap: Overlap) -> list[Matches]:
    """The matches of each class between true and detected regions of the same images."""
    return [_match_class([t.of(c) for t in truth], [f.of(c) for f in found], overlap) for c in range(classes)]


def average_precision(matches: Sequence[Matches], weights: np.ndarray) -> np.ndarray:
    """(A, T) average precision in 0..1 at image weights (n,), mean over the classes present; NaN where none is."""
    by_class = [_accumulate(m, weights) for m in matches]
    present = ~np.isnan(by_class)
    with np.errstate(invalid="ignore"):
        return np.where(present, by_class, 0).sum(0) / present.sum(0)


def summary(matches: Sequence[Matches], weights: np.ndarray) -> dict[str, float]:
    """ap, ap50, ap75 and ap_small, ap_medium, ap_large in percent, the sizes only where objects of that size exist.

    A resample that happens to hold no object at all scores 0.
    """
    table = 100 * np.nan_to_num(average_precision(matches, weights))
    mean = table.mean(1)
    scores = {"ap": mean[0], "ap50": table[0, 0], "ap75": table[0, 5]}
    for index, name in enumerate(AREAS):
        if name != "all" and any(m.counted[index].any() for m in matches):
            scores[f"ap_{name}"] = mean[index]
    return {name: float(value) for name, value in scores.items()}


def _match_class(truth: list[Regions], found: list[Regions], overlap: Overlap) -> Matches:
    found = [f.best(LARGEST_COUNT) for f in found]
    pairs = [_match_image(t, f, overlap) for t, f in zip(truth, found, strict=True)]
    hit, ignored, counted = (np.concatenate(parts, -1) for parts in zip(*pairs, strict=True))
    scores = np.concatenate([f.extra for f in found])
    order = np.argsort(-scores, kind="stable")
    images = np.arange(len(found))
    return Matches(
        hit=(hit & ~ignored)[..., order],
        miss=(~hit & ~ignored)[..., order],
        found_in=np.repeat(images, [len(f.extra) for f in found])[order],
        counted=counted,
        lies_in=np.repeat(images, [len(t.extra) for t in truth]),
    )


def _match_image(truth: Regions, found: Regions, overlap: Overlap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Greedy matching in one image: hit (A, T, d), ignored (A, T, d), counted (A, g)."""
    crowd = truth.extra.astype(bool)
    counted = _in_range(truth.areas) & ~crowd
    shape = (len(AREAS), len(THRESHOLDS), len(found.extra))
    hit = np.zeros(shape, bool)
    ignored = np.repeat(~_in_range(found.areas)[:, None], len(THRESHOLDS), axis=1)
    if not len(crowd) or not len(found.extra):
        return hit, ignored, counted
    iou = overlap(found.shapes, truth.shapes, crowd)
    taken = np.zeros((*shape[:2], len(crowd)), bool)
    # Every area range and threshold at once; only detections that overlap something can match.
    for d in np.flatnonzero(iou.max(1) >= THRESHOLDS[0]):
        free = (iou[d] >= THRESHOLDS[:, None]) & (~taken | crowd)
        wanted = free & counted[:, None]
        # Objects that don't count in this range are taken only where no other is left.
        pool = np.where(wanted.any(-1, keepdims=True), wanted, free)
        # Of equal overlaps the reference takes the last.
        choice = len(crowd) - 1 - np.where(pool, iou[d], -1.0)[..., ::-1].argmax(-1)
        matched = pool.any(-1)
        area, threshold = np.nonzero(matched)
        chosen = choice[matched]
        taken[area, threshold, chosen] = True
        hit[area, threshold, d] = True
        ignored[area, threshold, d] = ~counted[area, chosen]
    return hit, ignored, counted


def _accumulate(m: Matches, weights: np.ndarray) -> np.ndarray:
    """(A, T) average precision of one class: precision at 101 recalls, made non-increasing; NaN without objects."""
    total = m.counted @ weights[m.lies_in]
    each = weights[m.found_in]
    hits, misses = np.cumsum(m.hit * each, axis=-1), np.cumsum(m.miss * each, axis=-1)
    precision = hits / np.maximum(hits + misses, np.spacing(1.0))
    precision = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = hits / total[:, None, None]
    area = np.full(hits.shape[:2], np.nan)
    for a in np.flatnonzero(total > 0):
        for t in range(hits.shape[1]):
            at = np.searchsorted(recall[a, t], RECALLS)
            area[a, t] = precision[a, t, at[at < len(each)]].sum() / len(RECALLS)
    return area


def _in_range(areas: np.ndarray) -> np.ndarray:
    """(A, k): which of the areas lie in each range, ends included."""
    return np.stack([(areas >= low) & (areas <= high) for low, high in AREAS.values()])
