"""Splits that are made of others: at most so many images a class, a part of a split, more right answers an image."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...backbones.errors import BadInput
from .card import DatasetCard
from .dataset import Dataset, Split
from .trials import with_trials


def carve(card: DatasetCard, opened: Dataset, name: str) -> Split:
    """One split as its card wants it, of the splits that a reader opened.

    Each `from` takes its part of what earlier ones left: evenly spread, the first of each class, or whole groups.
    """
    spec = card.splits[name]
    source = spec.from_ or name
    whole = _capped(opened[source], card.splits[source].per_class)
    rest = np.arange(len(whole))
    for other, cut in card.splits.items():
        if cut.from_ == source and cut.fraction:
            places = WAYS[cut.take](whole, rest, cut.fraction)
            if other == name:
                rest = rest[places]
                break
            rest = np.delete(rest, places)
    made = whole if len(rest) == len(whole) else whole.rows(rest, f"{whole.fingerprint}:{_short(rest.tobytes())}")
    made = _accepting(card, name, made, opened.classes) if spec.accepted else made
    return with_trials(card, name, made, opened.classes) if spec.trials else made


def _even(whole: Split, rest: np.ndarray, fraction: float) -> np.ndarray:
    return _spread(round(fraction * len(whole)), len(rest))


def _spread(count: int, total: int) -> np.ndarray:
    """So many of 0…total-1, evenly spread."""
    count = min(count, total)
    return ((np.arange(count) + 0.5) * total / max(count, 1)).astype(int)


def _first(whole: Split, rest: np.ndarray, fraction: float) -> np.ndarray:
    """Places in `rest` of the first of each class by name, their number rounded down."""
    _, group, sizes = np.unique(_labels(whole), return_inverse=True, return_counts=True)
    ordinal = _ordinal(group[rest], [whole.ids[i] for i in rest])
    return np.flatnonzero(ordinal < np.floor(fraction * sizes + 1e-9)[group[rest]])  # 0.2 of 5 is 1, whatever rounds


def _groups(whole: Split, rest: np.ndarray, fraction: float) -> np.ndarray:
    """Places in `rest` of that part of the groups, evenly spread by name, so that no group is in two splits."""
    if whole.groups is None:
        raise BadInput(
            "splits: `take: groups` needs groups of images, which `pattern` or `columns` may tell; leave it out"
        )
    names, group = np.unique(whole.groups[rest], return_inverse=True)
    taken = _spread(round(fraction * len(np.unique(whole.groups))), len(names))
    return np.flatnonzero(np.isin(group, taken))


WAYS = {"even": _even, "first": _first, "groups": _groups}


def _labels(split: Split) -> np.ndarray:
    if not isinstance(split.targets, np.ndarray) or split.targets.ndim != 1:
        raise BadInput("splits: `take: first` and `per_class` need one label an image; leave them out")
    return split.targets


def _ordinal(group: np.ndarray, names: Any) -> np.ndarray:
    """How many of its own class come before each by name."""
    order = np.lexsort((np.asarray(names, str), group))
    starts = np.r_[0, np.flatnonzero(np.diff(group[order])) + 1]
    runs = np.diff(np.r_[starts, len(group)])
    found = np.empty(len(group), int)
    found[order] = np.arange(len(group)) - np.repeat(starts, runs)
    return found


def _capped(split: Split, most: int | None) -> Split:
    if most is None or not len(split):
        return split
    labels = np.unique(_labels(split), return_inverse=True)[1]
    kept = np.flatnonzero(_ordinal(labels, split.ids) < most)
    return split if len(kept) == len(split) else split.rows(kept, f"{split.fingerprint}:per-class-{most}")


def _accepting(card: DatasetCard, name: str, split: Split, classes: Sequence[str]) -> Split:
    """The split with all right classes of each image, from a json: in the order of file names, or by file name."""
    path = card.at(name, "accepted")
    raw = path.read_bytes()
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: cannot be read as json: {error}") from None
    names = [Path(str(i)).name for i in split.ids]
    if isinstance(content, list):
        if len(content) != len(split):
            raise BadInput(f"{path}: tells of {len(content)} images, split {name} of {card.name} has {len(split)}")
        told: dict[str, Any] = dict(zip(sorted(names), content, strict=True))
    elif isinstance(content, dict):
        told = content.get("initial_annots", content)  # the layout of Shankar et al. 2020
        told = {image: right for image, right in told.items() if image not in content.get("problematic_images", ())}
    else:
        raise BadInput(f"{path}: a list of lists of class numbers, or an object of them by file name, is needed")
    numbers = {c: i for i, c in enumerate(classes)}
    accepted = []
    for image in names:
        found = [numbers.get(c, -1) if isinstance(c, str) else c for c in _listed(path, image, told.get(image, []))]
        if bad := [c for c in found if isinstance(c, bool) or not isinstance(c, int) or not 0 <= c < len(classes)]:
            raise BadInput(f"{path}: {image}: {bad[0]!r} is none of the {len(classes)} classes of {card.name}")
        accepted.append(found)
    return replace(split, accepted=accepted, fingerprint=f"{split.fingerprint}:{_short(raw)}")


def _listed(path: Path, image: str, entry: Any) -> list:
    """The right classes of an entry: a list, or under `correct` as Shankar et al. (2020) tell them from wrong ones."""
    right = entry.get("correct", []) if isinstance(entry, dict) else entry
    if not isinstance(right, list):
        raise BadInput(f"{path}: {image}: a list of classes is needed, got {right!r:.60}")
    return right


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
