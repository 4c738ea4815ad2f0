"""Images named by lists: text or CSV tables with columns for image, label, group; or files whose names tell the label.

It reads the layouts in which FGVC-Aircraft, CUB-200, CheXpert, Google Landmarks and Copydays are published.
"""

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Formatter

import numpy as np

from ...backbones.errors import BadInput, unknown
from ..task import Kind
from .card import DatasetCard, TableFormat
from .dataset import Dataset, Judgement, Split
from .faults import Faults
from .integrity import content_digest
from .pictures import SUFFIXES, Pictures

SLOT = re.compile(r"(?P<column>\w+)(\[\d+\])?")
PRESENCE = {"1": 1, "0": 0, "-1": -1, "": -1}  # of a label of a multilabel table, unless the card maps it otherwise


@dataclass(frozen=True)
class Listed:
    """The rows of a split: image ids, their files, and what columns or file names say (label, group, answers, junk)."""

    ids: list[str]
    paths: list[Path]
    said: dict[str, list[str]]
    rows: list[Mapping[str, str]]


def open_lists(card: DatasetCard, kind: Kind) -> Dataset:
    """The data set of a card whose splits have a `list`, or a folder whose file names match the card's `pattern`.

    Labels that are whole numbers are put in their order, others are sorted, unless the card names the classes.
    Raises BadInput naming file, line and column.
    """
    for name, spec in card.splits.items():
        if spec.images is None or not (spec.lists or card.pattern):
            raise BadInput(
                f"dataset {card.name}: splits.{name}: give `images`, a folder, and `list`, a table (or a `pattern`)"
            )
    if kind == "multilabel" and not card.classes:
        raise BadInput(f"dataset {card.name}: classes: name the columns of the labels")
    classes = card.classes
    if not classes:
        there = [n for n, s in card.splits.items() if all((card.root / f).exists() for f in (s.images, *s.lists) if f)]
        labels = {label for name in there or card.splits for label in listed_rows(card, name).said.get("label", ())}
        classes = tuple(sorted(labels, key=_order))
    builders = {name: partial(_split, card, kind, name, classes) for name in card.splits}
    return Dataset(card.name, kind, classes, builders)


def _order(label: str) -> tuple[int, str]:
    return (int(label), label) if label.isdecimal() else (-1, label)


def _split(card: DatasetCard, kind: Kind, name: str, classes: tuple[str, ...]) -> Split:
    listed = listed_rows(card, name)
    judged = None
    if kind == "retrieval" and "answers" in listed.said:
        junk = listed.said.get("junk", [""] * len(listed.ids))
        pairs = zip(listed.said["answers"], junk, strict=True)
        judged = [Judgement(tuple(right.split()), tuple(left_out.split())) for right, left_out in pairs]
    if kind == "multilabel":
        targets = np.array([_present(card, name, row, classes) for row in listed.rows], np.int8)
    elif "label" in listed.said:
        numbers = {label: i for i, label in enumerate(classes)}
        if strange := [label for label in listed.said["label"] if label not in numbers]:
            raise unknown("class", strange[0], classes, where=f"dataset {card.name}: splits.{name}")
        targets = np.array([numbers[label] for label in listed.said["label"]], np.int64)
    elif kind == "retrieval":
        targets = np.full(len(listed.ids), -1)  # its queries name their answers
    else:
        raise BadInput(f"dataset {card.name}: columns.label: say which column is the label")
    groups = np.array(listed.said["group"]) if "group" in listed.said else None
    answers = None if judged is None else [[j.positive, j.junk] for j in judged]
    says = [listed.ids, targets.tolist(), listed.said.get("group"), answers]
    faults = Faults(card, name)
    digest = content_digest(faults, listed.ids, listed.paths, says)
    return faults.spare(Split(Pictures(listed.paths), targets, digest, listed.ids, groups, judgements=judged))


def _present(card: DatasetCard, name: str, row: Mapping[str, str], classes: tuple[str, ...]) -> list[int]:
    """1, 0 or -1 of each class in a row of a table."""
    found = []
    for label in classes:
        if label not in row:
            raise unknown("column", label, row, where=f"dataset {card.name}: classes: splits.{name}")
        values = PRESENCE | card.value_map.get("*", {}) | card.value_map.get(label, {})
        text = _plain(row[label])
        if text not in values or values[text] not in (-1, 0, 1):
            raise BadInput(
                f"dataset {card.name}: splits.{name}: column {label!r} has {row[label]!r}; say in `value_map` whether "
                "that is 1, 0 or -1"
            )
        found.append(values[text])
    return found


def _plain(text: str) -> str:
    """1.0 and 1 are one value."""
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


def listed_rows(card: DatasetCard, name: str) -> Listed:
    """What a split of `lists` holds, without reading an image. Raises BadInput."""
    spec = card.splits[name]
    folder = card.images(name)
    if not spec.lists:
        rows: list[dict[str, str]] = [
            {"image": p.relative_to(folder).as_posix()}
            for p in sorted(folder.rglob("*"))
            if p.suffix.lower() in SUFFIXES and p.is_file()
        ]
        files = [row["image"] for row in rows]
    else:
        rows = _chosen(card, name, _joined(card, name))
        files = [_file(card, name, row) for row in rows]
    if not rows:
        raise BadInput(f"dataset {card.name}: splits.{name}: no image is listed")
    image = _columns(card)["image"]
    if image not in rows[0]:
        raise unknown("column", image, rows[0], where=f"dataset {card.name}: columns.image: splits.{name}")
    said = {what: [r[c] for r in rows] for what, c in _columns(card).items() if what != "image" and c in rows[0]}
    if card.pattern:
        said |= _told_by_names(card, name, files)
    ids = [row[image] for row in rows]
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise BadInput(f"dataset {card.name}: splits.{name}: {twice!r} is listed twice")
    return Listed(ids, [folder / file for file in files], said, list(rows))


def _columns(card: DatasetCard) -> dict[str, str]:
    return {"image": "image", "label": "label"} | card.columns


def _told_by_names(card: DatasetCard, name: str, files: Sequence[str]) -> dict[str, list[str]]:
    found = [re.search(card.pattern or "", file) for file in files]
    if None in found:
        file = files[found.index(None)]
        raise BadInput(f"dataset {card.name}: splits.{name}: pattern {card.pattern!r} finds nothing in {file!r}")
    each = [match.groupdict("") for match in found if match]
    return {what: [groups[what] for groups in each] for what in each[0]}


def _chosen(card: DatasetCard, name: str, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    for column, wanted in card.splits[name].where.items():
        if rows and column not in rows[0]:
            raise unknown("column", column, rows[0], where=f"dataset {card.name}: splits.{name}.where")
        values = (wanted,) if isinstance(wanted, str) else wanted
        rows = [row for row in rows if row[column] in values]
    return rows


def _file(card: DatasetCard, name: str, row: Mapping[str, str]) -> str:
    """An image's file below the folder of images. Raises BadInput where a column is missing, or leads out of it."""
    columns = _columns(card)
    row = dict(row) | {what: row[column] for what, column in columns.items() if column in row}
    for _, slot, _, _ in Formatter().parse(card.file):
        found = SLOT.fullmatch(slot or "image")
        if not found or found["column"] not in row:
            raise unknown("column", str(slot), row, where=f"dataset {card.name}: file, or columns.image: splits.{name}")
    try:
        file = card.file.format(**row)
    except (IndexError, ValueError) as error:
        raise BadInput(f"dataset {card.name}: file: {card.file!r} does not fit {row['image']!r}: {error}") from None
    if Path(file).is_absolute() or ".." in Path(file).parts or "\0" in file:
        raise BadInput(f"dataset {card.name}: splits.{name}: {file!r} leads out of the folder of images")
    return file


def _joined(card: DatasetCard, name: str) -> list[dict[str, str]]:
    """Rows of the first table, with what the others say of the same first column."""
    rows: list[dict[str, str]] = []
    for number, file in enumerate(card.splits[name].lists):
        path = card.root / file
        if not path.is_file():
            raise BadInput(f"dataset {card.name}: splits.{name}.list: there is no {path}; {card.mend}")
        table = read_table(path, card.table, number)
        if not number:
            rows = table
            continue
        keyed = {next(iter(row.values())): row for row in table}
        for row in rows:
            key = next(iter(row.values()))
            if key not in keyed:
                raise BadInput(f"{path}: says nothing of {key!r}, which the table before it lists")
            row.update(keyed[key])
    return rows


def read_table(path: Path, form: TableFormat, number: int = 0) -> list[dict[str, str]]:
    """The rows of a table by column. Raises BadInput with file and line.

    Without a separator words are parted by white space, and the last column has all that is left of its line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = text.splitlines()
        if form.separator:
            cells = list(csv.reader(lines, delimiter=form.separator, strict=True))
        else:
            width = 0 if form.header else len(_names(form, number))
            cells = [line.split(None, width - 1) if width else line.split() for line in lines]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: cannot be read as a table: {error}") from None
    filled = [(n, [value.strip() for value in row]) for n, row in enumerate(cells, 1) if any(v.strip() for v in row)]
    names = filled.pop(0)[1] if form.header and filled else list(_names(form, number))
    if len(set(names)) < len(names):
        raise BadInput(f"{path}: two columns have one name: {', '.join(names)}")
    for line, row in filled:
        if len(row) != len(names):
            raise BadInput(f"{path}:{line}: {len(row)} columns, but {len(names)} are named: {', '.join(names)}")
    if not filled:
        raise BadInput(f"{path}: lists no image")
    return [dict(zip(names, row, strict=True)) for _, row in filled]


def _names(form: TableFormat, number: int) -> tuple[str, ...]:
    return form.names[min(number, len(form.names) - 1)]
