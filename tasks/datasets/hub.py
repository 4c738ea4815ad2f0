"""Data sets of the Hugging Face hub at one commit, and Parquet files in the hub's layout, read with `datasets`."""

import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from ...backbones.errors import BadInput, Unavailable
from ...backbones.hub import reachable
from ..task import Kind
from .card import DatasetCard
from .dataset import Dataset, Split

HOST = "huggingface.co"
COMMIT = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]{40})")


def open_hub(card: DatasetCard, kind: Kind) -> Dataset:
    """The data set of a card with `hub: org/name@commit`; the data's own names of classes are used if it gives none."""
    found = COMMIT.fullmatch(card.hub or "")
    if not found:
        raise BadInput(
            f"dataset {card.name}: hub: give org/name@commit with all 40 digits of the commit (the data set's page "
            f"lists them under History), as branches move; got {card.hub!r}"
        )

    def part(name: str) -> str:
        return card.splits[name].split or name

    def rows(name: str) -> Any:
        # Out of reach, the hub's client would go on trying for half a minute: let it look at its cache alone.
        offline = not reachable(HOST)
        try:
            return _load(found["id"], revision=found["commit"], split=part(name), offline=offline)
        except ValueError as error:
            raise BadInput(f"dataset {card.name}: splits.{name}: {_line(error)}") from None
        except (OSError, RuntimeError) as error:
            why = f"no network to {HOST}" if offline else _line(error)
            raise Unavailable(
                f"dataset {card.name}: {card.hub} cannot be downloaded ({why}); "
                "run again with a network, or use a card with files of your own"
            ) from None

    def content(name: str) -> str:
        return f"{card.hub} {part(name)}"  # a commit's content can't change

    return _dataset(card, kind, rows, content)


def open_parquet(card: DatasetCard, kind: Kind) -> Dataset:
    """The data set of a card whose splits are Parquet files, or folders of them, with an image and a label column."""
    files = {name: _parquet_files(card, name) for name in card.splits}

    def rows(name: str) -> Any:
        try:
            return _load("parquet", data_files=[str(p) for p in files[name]], split="train", offline=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise BadInput(f"dataset {card.name}: splits.{name}: cannot be read as Parquet: {_line(error)}") from None

    def content(name: str) -> str:
        return " ".join(_file_digest(p) for p in files[name])

    return _dataset(card, kind, rows, content)


@dataclass(frozen=True)
class ImageColumn(Sequence):
    """The images of a table, decoded when asked for; a broken one raises BadInput with its row."""

    rows: Any
    column: str
    where: str

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):
        try:
            return self.rows[index][self.column]
        except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
            raise BadInput(f"{self.where}: row {index} cannot be decoded as an image: {_line(error)}") from None

    def encoded(self, index) -> bytes | None:
        """The image's file as the table holds it; None where it holds a path."""
        return self._files[int(index)][self.column]["bytes"]

    @cached_property
    def _files(self) -> Any:
        from datasets import Image

        return self.rows.cast_column(self.column, Image(decode=False))


def _dataset(
    card: DatasetCard,
    kind: Kind,
    rows: Callable[[str], Any],
    content: Callable[[str], str],
) -> Dataset:
    if not card.splits:
        raise BadInput(
            f"dataset {card.name}: splits: say which there are, such as `splits: {{train: {{split: train}}}}`"
        )
    image, label = (card.columns.get(what, what) for what in ("image", "label"))

    def table(name: str) -> Any:
        from datasets import Image

        found = rows(name)
        if missing := [column for column in (image, label) if column not in found.column_names]:
            there = ", ".join(found.column_names)
            raise BadInput(f"dataset {card.name}: columns: there is no {missing[0]!r} in split {name}, but: {there}")
        return found.cast_column(image, Image())

    def build(name: str) -> Split:
        found = table(name)
        labels = np.asarray(found[label][:])
        if labels.dtype.kind not in "iu":
            raise BadInput(f"dataset {card.name}: columns.label: {label!r} holds {labels.dtype}, not class numbers")
        if len(labels) and not -1 <= labels.min() <= labels.max() < len(classes):
            raise BadInput(
                f"dataset {card.name}: classes: {len(classes)} are named, labels are {labels.min()}…{labels.max()}"
            )
        where = f"dataset {card.name}: splits.{name}"
        pictures = found.data.column(image)
        if pictures.null_count:
            first = pictures.is_null().index(True).as_py()
            raise BadInput(f"{where}: {pictures.null_count} of {len(found)} rows have no image, such as row {first}")
        sha = hashlib.sha256(f"{content(name)} {image} {label}".encode()).hexdigest()
        ids = [str(i) for i in range(len(found))]
        return Split(ImageColumn(found.select_columns([image]), image, where), labels.astype(np.int64), sha, ids)

    classes = card.classes
    if not classes:
        names = getattr(table(next(iter(card.splits))).features[label], "names", None)
        if not names:
            raise BadInput(f"dataset {card.name}: classes: {label!r} has no names of its own; list them, label 0 first")
        classes = [name.replace("_", " ") for name in names]
    return Dataset(card.name, kind, classes, {n: partial(build, n) for n in card.splits})


def _load(path: str, *, offline: bool, **what: Any) -> Any:
    """`datasets.load_dataset`, without progress bars and log (what is wrong is raised), `offline` without retries."""
    from datasets import config, load_dataset
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from huggingface_hub import constants

    hidden, before = are_progress_bars_disabled(), (constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE)
    disable_progress_bars()
    muted = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        if offline:
            constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = True
        return load_dataset(path, **what)
    finally:
        constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = before
        logging.disable(muted)
        if not hidden:
            enable_progress_bars()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parquet_files(card: DatasetCard, split: str) -> list[Path]:
    start = card.images(split)
    files = [start] if start.is_file() else sorted(start.glob("*.parquet"))
    if not files:
        raise BadInput(f"dataset {card.name}: splits.{split}: no .parquet file in {start}; correct `images`")
    return files


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__
