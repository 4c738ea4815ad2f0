"""Trials of an experiment: what people, or networks before, answered to the images of a split.

Tables as of Geirhos et al. (2019, 2021): a row a trial, its observer in `subj`, the answer in `object_response`, the
image's own class in `category`; `imagename` ends in `_` and the name of the image that was shown.
"""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from ...backbones.errors import BadInput, did_you_mean
from .card import DatasetCard
from .dataset import Split

COLUMNS = ("subj", "object_response", "category", "imagename")
SILENT = ("na", "")  # what stands for no answer in time
NO_ANSWER, NOT_ASKED = -1, -2


def with_trials(card: DatasetCard, name: str, split: Split, classes: Sequence[str]) -> Split:
    """The split with the answers in all tables of a folder; of images that are not in it they are left out.

    Raises BadInput naming file and line: for a column or class there is not, an image of another class, one answered
    twice by the same observer.
    """
    folder = card.at(name, "trials")
    tables = sorted(folder.glob("*.csv"))
    if not tables:
        raise BadInput(f"dataset {card.name}: splits.{name}.trials: no table (.csv) in {folder}")
    place = {PurePosixPath(str(image)).stem: row for row, image in enumerate(split.ids)}
    number = {c: i for i, c in enumerate(classes)}
    trials: dict[str, np.ndarray] = {}
    seen, sha = 0, hashlib.sha256()
    for table in tables:
        sha.update(table.read_bytes())
        for line, row in _rows(table):
            for column in ("category", "object_response"):
                if row[column] not in number and (column == "category" or row[column] not in SILENT):
                    hint = did_you_mean(row[column], number)
                    raise BadInput(f"{table}: line {line}: {column} {row[column]!r} is no class of {card.name}{hint}")
            at = place.get(PurePosixPath(row["imagename"]).stem.rpartition("_")[2])
            if at is None:
                continue
            if number[row["category"]] != split.targets[at]:
                own = classes[split.targets[at]]
                told = f"category is {row['category']!r}, the image {split.ids[at]!r} is in class {own!r}"
                raise BadInput(f"{table}: line {line}: {told}")
            answers = trials.setdefault(row["subj"], np.full(len(split), NOT_ASKED))
            if answers[at] != NOT_ASKED:
                raise BadInput(f"{table}: line {line}: {row['subj']} answers to {split.ids[at]!r} for the second time")
            answers[at] = number.get(row["object_response"], NO_ANSWER)
            seen += 1
    if not seen:
        raise BadInput(f"{folder}: no trial is of an image of split {name} of {card.name}; are the tables of this set?")
    return replace(split, trials=trials, fingerprint=f"{split.fingerprint}:{sha.hexdigest()[:16]}")


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows with their line numbers. Raises BadInput for what is no such table."""
    try:
        with table.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if lacking := [column for column in COLUMNS if column not in (reader.fieldnames or ())]:
                there = ", ".join(reader.fieldnames or ()) or "none"
                raise BadInput(f"{table}: line 1: there is no column {lacking[0]!r}; its columns are: {there}")
            found = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{table}: cannot be read as a table: {error}") from None
    if short := next((line for line, row in found if None in row or None in row.values()), None):
        raise BadInput(f"{table}: line {short}: has another number of fields than line 1")
    return found
