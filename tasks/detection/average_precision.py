"""COCO average precision as a function of image weights: match once, accumulate at any weights.

Matching and interpolation follow the COCO protocol (Lin et al. 2014, arXiv 1405.0312; its reference is pycocotools).
A weight counts an image's objects and detections that many times, so integer weights are a resample with repetition
and the bootstrap needs no second matching.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # intersection over union at which a detection is a hit
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
LARGEST_COUNT = 100  # detections scored per image and class, the best ones
REPLICATES = 1000  # resamples of the interval: matching is done once

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


@dataclass(frozen=True, eq=False)
class Matches:
    """What matching found, A area ranges and T thresholds at once; a curve is one class at one range and threshold.

    d detections by class, then falling score: found_in (d,) the image, rank (d,) among those of its image and class,
    sized (A, d) whether its area lies in the range. g true objects: counted (A, g) whether it is to be found, lies_in
    (g,) the image, label (g,). m matches by curve, then falling score: curve (m,), place (m,) of the detection,
    hit (m,) whether its object counts (if not, the match says that the detection is to be ignored).
    """

    classes: int
    found_in: np.ndarray
    rank: np.ndarray
    sized: np.ndarray
    before: np.ndarray  # (m,) place of the first detection of the match's class
    counted: np.ndarray
    lies_in: np.ndarray
    label: np.ndarray
    curve: np.ndarray
    place: np.ndarray
    hit: np.ndarray
    first: np.ndarray  # (m,) index of the first match on the same curve

    def totals(self, weights: np.ndarray) -> np.ndarray:
        """(classes, A, 1) the weight of what is to be found."""
        each = weights[self.lies_in]
        found = [np.bincount(self.label, each * counted, minlength=self.classes) for counted in self.counted]
        return np.stack(found, axis=1)[..., None]

    def by_curve(self, values: np.ndarray) -> np.ndarray:
        """(classes, A, T) sums of values (m,)."""
        shape = (self.classes, len(AREAS), len(THRESHOLDS))
        return np.bincount(self.curve, values, minlength=math.prod(shape)).reshape(shape)


def match(truth: Sequence[Regions], found: Sequence[Regions], classes: int, overlap: Overlap) -> Matches:
    """The matches between true and detected regions of the same images, class by class."""
    images, labels, areas, shapes, crowd = _flat(truth)
    cell = images * classes + labels  # an image and class
    order = np.argsort(cell, kind="stable")
    images, labels, areas, shapes, crowd = (v[order] for v in (images, labels, areas, shapes, crowd.astype(bool)))
    counted = _in_range(areas) & ~crowd

    found_in, guessed, sizes, guesses, scores = _flat(found)
    cells = found_in * classes + guessed
    best = np.lexsort((-scores, cells))
    rank = _within(cells[best])
    best, rank = best[rank < LARGEST_COUNT], rank[rank < LARGEST_COUNT]
    d, g, iou = _overlapping(cells[best], guesses[best], cell[order], shapes, crowd, overlap)
    area, threshold, d, g = _match(d, g, iou, cells[best], counted, crowd)

    by_class = np.lexsort((-scores[best], guessed[best]))
    place = np.argsort(by_class)[d]
    sized, hit = _in_range(sizes[best][by_class]), counted[area, g]
    useful = hit | sized[area, place]
    area, threshold, place, hit = (v[useful] for v in (area, threshold, place, hit))
    label = guessed[best][by_class]
    curve = (label[place] * len(AREAS) + area) * len(THRESHOLDS) + threshold
    rising = np.lexsort((place, curve))
    curve, place, hit = curve[rising], place[rising], hit[rising]
    return Matches(
        classes=classes,
        found_in=found_in[best][by_class],
        rank=rank[by_class],
        sized=sized,
        before=np.searchsorted(label, label[place]),
        counted=counted,
        lies_in=images,
        label=labels,
        curve=curve,
        place=place,
        hit=hit,
        first=np.searchsorted(curve, curve),
    )


def average_precision(matches: Matches, weights: np.ndarray) -> np.ndarray:
    """(A, T) average precision in 0..1 at image weights (n,), mean over the classes present; NaN where none is.

    Of each curve precision at 101 recalls, made non-increasing.
    """
    m, totals = matches, matches.totals(weights)
    each = weights[m.found_in]
    area = m.curve // len(THRESHOLDS) % len(AREAS)
    seen = np.zeros((len(AREAS), len(each) + 1))
    np.cumsum(m.sized * each, axis=1, out=seen[:, 1:])
    matched = each[m.place]
    hits = _running(matched * m.hit, m.first)
    # What is seen and not matched is a miss: those in the range up to here, without the matched ones among them.
    misses = seen[area, m.place + 1] - seen[area, m.before] - _running(matched * m.sized[area, m.place], m.first)
    precision = hits / np.maximum(hits + misses, np.spacing(1.0))
    # The best precision from here to the end of the curve: each curve is lifted above all that come after it.
    lift = 2.0 * (m.curve[-1:] - m.curve)
    precision = np.maximum.accumulate((precision + lift)[::-1])[::-1] - lift
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = hits / totals.repeat(len(THRESHOLDS), axis=2).ravel()[m.curve]
    reached = np.searchsorted(RECALLS, recall, side="right")
    newly = reached - np.where(np.arange(len(recall)) > m.first, np.roll(reached, 1), 0)
    return _over_classes(m.by_curve(newly * precision) / len(RECALLS), totals)


def average_recall(matches: Matches, weights: np.ndarray, most: int = LARGEST_COUNT) -> np.ndarray:
    """(A, T) recall in 0..1 of the `most` best detections an image and class, mean over the classes present."""
    m, totals = matches, matches.totals(weights)
    hits = weights[m.found_in[m.place]] * (m.hit & (m.rank[m.place] < most))
    with np.errstate(invalid="ignore"):
        return _over_classes(m.by_curve(hits) / totals, totals)


def summary(matches: Matches, weights: np.ndarray) -> dict[str, float]:
    """ap, ap50, ap75 and ap_small, ap_medium, ap_large in percent, the sizes only where objects of that size exist.

    A resample that happens to hold no object at all scores 0.
    """
    table = 100 * np.nan_to_num(average_precision(matches, weights))
    mean = table.mean(1)
    scores = {"ap": mean[0], "ap50": table[0, 0], "ap75": table[0, 5]}
    for index, name in enumerate(AREAS):
        if name != "all" and matches.counted[index].any():
            scores[f"ap_{name}"] = mean[index]
    return {name: float(value) for name, value in scores.items()}


def _flat(regions: Sequence[Regions]) -> list[np.ndarray]:
    """The image of each region, and what is told of it, over all images."""
    images = np.repeat(np.arange(len(regions)), [len(r.labels) for r in regions])
    return [images, *(np.concatenate([getattr(r, n) for r in regions]) for n in ("labels", "areas", "shapes", "extra"))]


def _within(groups: np.ndarray) -> np.ndarray:
    """The number of each element among those of its group; groups come one after the other."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)


def _running(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Running sums, begun anew at each curve."""
    sums = np.cumsum(values)
    return sums - (sums - values)[first]


def _over_classes(values: np.ndarray, totals: np.ndarray) -> np.ndarray:
    present = totals > 0
    with np.errstate(invalid="ignore"):
        return np.where(present, values, 0).sum(0) / present.sum(0)


def _overlapping(cells, guesses, cell, shapes, crowd, overlap: Overlap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detections d, true objects g and their IoU, of all pairs that could match; by detection, then rising IoU."""
    pairs = [(np.zeros(0, int), np.zeros(0, int), np.zeros(0))]
    both = np.intersect1d(cells, cell)
    edges = (np.searchsorted(of, both, side) for of in (cells, cell) for side in ("left", "right"))
    for a, b, c, e in zip(*edges, strict=True):
        iou = overlap(guesses[a:b], shapes[c:e], crowd[c:e])
        d, g = np.nonzero(iou >= THRESHOLDS[0])
        pairs.append((d + a, g + c, iou[d, g]))
    d, g, iou = map(np.concatenate, zip(*pairs, strict=True))
    order = np.lexsort((g, iou, d))
    return d[order], g[order], iou[order]


def _match(d, g, iou, cells, counted, crowd) -> list[np.ndarray]:
    """Greedy matching: area range, threshold, detection and true object of each match.

    The best detection of every image and class chooses first, then the second best of every one, and so on.
    """
    taken = np.zeros((len(AREAS), len(THRESHOLDS), len(crowd)), bool)
    new = np.diff(d, prepend=-1) > 0
    turn = _within(cells[d[new]])[np.cumsum(new) - 1]
    by_turn = np.argsort(turn, kind="stable")
    found = [[np.zeros(0, int)] * 4]
    for pairs in np.split(by_turn, np.cumsum(np.bincount(turn)))[:-1]:
        to, count = g[pairs], len(pairs)
        free = (iou[pairs] >= THRESHOLDS[:, None]) & (~taken[:, :, to] | crowd[to])
        # Objects that don't count in this range are taken only where no other is left; of equal overlaps the last is.
        worth = np.where(free, np.arange(count) + count * counted[:, None, to], -1)
        best = np.maximum.reduceat(worth, np.flatnonzero(new[pairs]), axis=-1)
        area, threshold, _ = matched = np.nonzero(best >= 0)
        chosen = pairs[best[matched] % count]
        taken[area, threshold, g[chosen]] = True
        found.append([area, threshold, d[chosen], g[chosen]])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def _in_range(areas: np.ndarray) -> np.ndarray:
    """(A, k): which of the areas lie in each range, ends included."""
    return np.stack([(areas >= low) & (areas <= high) for low, high in AREAS.values()])
