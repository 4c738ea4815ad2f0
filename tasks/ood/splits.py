"""Predictions over several splits in one table, with a column that says which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...backbones.errors import BadInput
from ..classification.accuracy import check_ids
from ..datasets import Dataset, Split
from ..predictions import Predictions


@dataclass(frozen=True)
class Rows:
    """What the data says of each row of predictions: index of its split, label, and group (or None)."""

    split: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None


def together(parts: Mapping[str, Predictions]) -> Predictions:
    """Predictions of several splits, one after the other, with the column `split`."""
    first = next(iter(parts.values()))
    columns = {name: np.concatenate([part[name] for part in parts.values()]) for name in first}
    split = np.repeat(np.array(list(parts), dtype=object), [len(part["id"]) for part in parts.values()])
    return {"split": split, **columns}


def rows(predictions: Predictions, data: Dataset, names: Sequence[str]) -> Rows:
    """The data's side of predictions `together` of these splits. Raises BadInput when they are of other images."""
    parts = [data[name] for name in names]
    for name, part in zip(names, parts, strict=True):
        check_ids(predictions["id"][predictions["split"] == name], part)
    split = np.repeat(np.arange(len(names)), [len(part) for part in parts])
    if not np.array_equal(predictions["split"], np.array(names, dtype=object)[split]):
        raise BadInput(
            f"predictions are not those of the splits {', '.join(names)} of {data.name}, one after the other"
        )
    groups = None
    if any(part.groups is not None for part in parts):
        groups = np.concatenate([_groups(name, part) for name, part in zip(names, parts, strict=True)])
    return Rows(split, np.concatenate([np.asarray(part.targets) for part in parts]), groups)


def _groups(name: str, split: Split) -> np.ndarray:
    """One thing keeps its group across splits; an image without group is one by itself."""
    if split.groups is not None:
        return np.array([f"group {g}" for g in split.groups])
    return np.array([f"{name} {i}" for i in range(len(split))])
