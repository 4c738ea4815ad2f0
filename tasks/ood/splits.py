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
    lengths = [len(next(iter(part.values()))) for part in parts.values()]
    return {"split": np.repeat(np.array(list(parts), dtype=object), lengths), **columns}


def apart(predictions: Predictions, names: Sequence[str]) -> dict[str, Predictions]:
    """The predictions of each split. Raises BadInput naming the first row that is of none of them."""
    if "split" not in predictions:
        raise BadInput(f"predictions: column 'split' is missing; there are: {', '.join(predictions)}")
    split = predictions["split"]
    if (wrong := np.flatnonzero(~np.isin(split.astype(str), names))).size:
        raise BadInput(f"predictions: row {wrong[0]}: 'split' is one of {', '.join(names)}, got {split[wrong[0]]!r}")
    others = {column: values for column, values in predictions.items() if column != "split"}
    return {name: {column: values[split == name] for column, values in others.items()} for name in names}


def rows(predictions: Predictions, data: Dataset, names: Sequence[str]) -> Rows:
    """The data's side of predictions `together` of these splits, a row an image. Raises BadInput when they are of
    other images."""
    parts = [data[name] for name in names]
    for name, part in zip(names, parts, strict=True):
        check_ids(predictions["id"][predictions["split"] == name], part)
    split = split_of_each(data, names)
    if not np.array_equal(predictions["split"], np.array(names, dtype=object)[split]):
        raise BadInput(
            f"predictions are not those of the splits {', '.join(names)} of {data.name}, one after the other"
        )
    return Rows(split, np.concatenate([np.asarray(part.targets) for part in parts]), group_of_each(data, names))


def split_of_each(data: Dataset, names: Sequence[str]) -> np.ndarray:
    """(n,) index of the split of each image of several, one split after the other."""
    return np.repeat(np.arange(len(names)), [len(data[name]) for name in names])


def group_of_each(data: Dataset, names: Sequence[str]) -> np.ndarray | None:
    """(n,) group of each image of several splits, one after the other, or None where there are none.

    One thing keeps its group across splits; an image without group is one by itself.
    """
    if all(data[name].groups is None for name in names):
        return None
    return np.concatenate([_groups(name, data[name]) for name in names])


def _groups(name: str, split: Split) -> np.ndarray:
    if split.groups is not None:
        return np.array([f"group {g}" for g in split.groups])
    return np.array([f"{name} {i}" for i in range(len(split))])
