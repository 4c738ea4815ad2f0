"""A data set whose splits are those of others: trained on one, tested on another, say simulated and real streets."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...backbones.errors import BadInput, unknown
from ...backbones.reading import digest
from ..task import Kind
from .card import DatasetCard
from .dataset import IGNORE, Dataset, Objects, Split
from .registry import find_dataset, load_dataset

CHOOSING = ("detection", "segmentation")  # kinds in which an image may be kept without some of its labels


def open_combined(card: DatasetCard, kind: Kind) -> Dataset:
    """Each split is a `split` (of its own name, unless said) of a `card`: a packaged one, or a path from this card.

    `classes` chooses by name among those that all cards have, in its own order: objects of other classes are left out,
    their pixels ignored. Without it the classes of all cards are the same. Raises BadInput.
    """
    if not card.splits:
        raise BadInput(f"dataset {card.name}: splits: say which there are, such as `train: {{card: coco-2017}}`")
    opened: dict[str, Dataset] = {}
    parts: dict[str, tuple[Dataset, str]] = {}
    for name, spec in card.splits.items():
        other, split = part(card, name)
        data = opened[str(spec.card)] = opened.get(str(spec.card)) or load_dataset(other, kind)
        if split not in data.split_names:
            raise unknown("split", split, data.split_names, where=f"dataset {card.name}: splits.{name}: {data.name}")
        parts[name] = data, split
    classes = _classes(card, kind, list(opened.values()))
    return Dataset(
        card.name,
        kind,
        classes,
        {name: partial(_split, *where, classes) for name, where in parts.items()},
        stamp=partial(_stamp, parts),
    )


def part(card: DatasetCard, name: str) -> tuple[DatasetCard, str]:
    """The card and the split that a split of a combined card is. Raises BadInput."""
    spec = card.splits[name]
    if not spec.card:
        raise BadInput(f"dataset {card.name}: splits.{name}: give the `card` whose `split` it is")
    own = Path(spec.card).suffix in (".yaml", ".yml")
    other = find_dataset(card.folder / spec.card if own else spec.card, card.home)
    if not card.strict:
        other = other.model_copy(update={"strict": False})
    if other.source == "combined":
        raise BadInput(
            f"dataset {card.name}: splits.{name}.card: {spec.card} is combined itself; name what it combines"
        )
    return other, spec.split or name


def _classes(card: DatasetCard, kind: Kind, opened: Sequence[Dataset]) -> tuple[str, ...]:
    """The chosen classes, or those of all cards."""
    first = opened[0].classes
    if card.classes:
        for data in opened:
            if missing := [name for name in card.classes if name not in data.classes]:
                raise unknown("class", missing[0], data.classes, where=f"dataset {card.name}: classes: {data.name}")
    elif differing := [data for data in opened if data.classes != first]:
        shared = ", ".join(name for name in first if all(name in data.classes for data in opened))
        raise BadInput(
            f"dataset {card.name}: {opened[0].name} and {differing[0].name} have different classes; name in `classes` "
            f"which are meant, of those that all have: {shared or 'none'}"
        )
    if kind not in CHOOSING and any(data.classes != (card.classes or first) for data in opened):
        raise BadInput(f"dataset {card.name}: classes: they are chosen only for {' and '.join(CHOOSING)}; leave it out")
    return card.classes or first


def _split(data: Dataset, name: str, classes: tuple[str, ...]) -> Split:
    split = data[name]
    if classes == data.classes:
        return split
    numbers = np.array([classes.index(c) if c in classes else -1 for c in data.classes])
    content = digest([split.fingerprint, numbers.tolist()])
    return replace(split, targets=Chosen(split.targets, numbers), fingerprint=content)


def _stamp(parts: dict[str, tuple[Dataset, str]], name: str) -> Any:
    data, split = parts[name]
    return data.stamp(split) if data.stamp else data[split].fingerprint


@dataclass(frozen=True)
class Chosen(Sequence):
    """Targets with other numbers for their classes; `numbers` (C,) is the new one of each class, -1 for none."""

    targets: Any
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index) -> Objects | np.ndarray:
        found = self.targets[index]
        if not isinstance(found, Objects):
            table = np.full(IGNORE + 1, IGNORE, np.uint8)
            table[: len(self.numbers)] = np.where(self.numbers < 0, IGNORE, self.numbers)
            return table[found]
        labels = self.numbers[found.labels]
        each = {f.name: getattr(found, f.name) for f in fields(found) if f.name != "size"} | {"labels": labels}
        return replace(found, **{key: value[labels >= 0] for key, value in each.items() if value is not None})
