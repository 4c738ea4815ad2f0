"""Any table: one row a backbone and one column a data set, or one row a figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ...backbones.errors import BadInput, did_you_mean, unknown
from ..board import FAMILIES
from ..result import Identity
from .collecting import About, Collector, Given, Measure, source_of
from .names import known
from .reading import Line, Table

NAMES = ("backbone", "model", "name")  # what the column of names is called, where nobody says
ANYTHING = 1e300


@dataclass(frozen=True)
class Layout:
    """How to read a table that nobody knows.

    `name`: the column of backbones. `dataset`, `value`: in a table with a row a figure, the columns of data set and
    figure; without, every column of numbers is a data set. `only`: these data sets alone. `family`, `task`, `metric`:
    what was measured. `unit`: fraction, percent, or a word of your own; else seen from the figures. `lower`: data sets
    in which lower is better.
    """

    name: str | None = None
    dataset: str | None = None
    value: str | None = None
    only: tuple[str, ...] = ()
    family: str | None = None
    task: str | None = None
    metric: str | None = None
    unit: str | None = None
    lower: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """Where a figure is, and of which backbone and data set."""

    line: Line
    column: str
    backbone: str
    dataset: str


def read(tables: Sequence[Table], about: About, layout: Layout) -> list[Given]:
    """The figures of each table. Raises BadInput, also where only a person can say what the figures are."""
    if not about.name:
        raise BadInput("backbench import csv: say --source, a short name for where the table is from")
    if not layout.family or not layout.metric:
        raise BadInput("backbench import csv: say --family and --metric: what was measured (such as retrieval and mrr)")
    if layout.family not in FAMILIES:
        raise unknown("family of tasks", layout.family, FAMILIES, where="--family")
    for option, word in (("--metric", layout.metric), ("--task", layout.task), ("--unit", layout.unit)):
        if word is not None and not (word.isprintable() and 0 < len(word) <= 40):
            raise BadInput(f"backbench import csv: {option} {word[:40]!r}: say it in 1 to 40 visible characters")
    if (layout.dataset is None) != (layout.value is None):
        raise BadInput("a table with a row a figure needs both --dataset-column and --value-column")
    return [_read(table, about, layout) for table in tables]


def _read(table: Table, about: About, layout: Layout) -> Given:
    column = _column(table, layout.name) if layout.name else _names(table)
    cells, ignored = _long(table, column, layout) if layout.dataset else _wide(table, column)
    datasets = list(dict.fromkeys(cell.dataset for cell in cells))
    if not datasets:
        raise BadInput(f"{table.path}: no column of numbers beside {column!r}")
    for option, asked in (("--only", layout.only), ("--lower", layout.lower)):
        if missing := [name for name in asked if name not in datasets]:
            raise unknown("data set", missing[0], datasets, where=f"{table.path}: {option}")
    if layout.only:
        ignored = (*ignored, *(d for d in datasets if d not in layout.only)) if not layout.dataset else ignored
        cells = [cell for cell in cells if cell.dataset in layout.only]
    unit, scale, low, high, note = _unit(table, cells, layout.unit)
    collector = Collector(table, source_of(table, about))
    backbones: dict[str, Identity] = {}
    for cell in cells:
        backbone = backbones.setdefault(cell.backbone, _backbone(cell.backbone))
        measure = Measure(
            task=layout.task or str(layout.family),
            family=str(layout.family),
            dataset=cell.dataset,
            metric=str(layout.metric),
            unit=unit,
            low=low,
            high=high,
            higher_is_better=cell.dataset not in layout.lower,
            scale=scale,
        )
        collector.take(cell.line, cell.column, backbone, measure)
    return collector.given(ignored, (f"backbones are in column {column!r}", *note))


def _column(table: Table, name: str) -> str:
    if name not in table.columns:
        raise BadInput(f"{table.path}:1: there is no column {name!r}{did_you_mean(name, table.columns)}")
    return name


def _names(table: Table) -> str:
    """The column that seems to have the backbones' names."""
    lower = {column.lower(): column for column in reversed(table.columns)}
    found = next((lower[name] for name in NAMES if name in lower), table.columns[0])
    if table.lines[0].is_figure(found):
        raise BadInput(f"{table.path}:1: which column names the backbones? say --name-column")
    return found


def _wide(table: Table, names: str) -> tuple[list[Cell], tuple[str, ...]]:
    """A figure a cell; a column without any number is a text and is left out."""
    rest = [column for column in table.columns if column != names]
    numbers = [column for column in rest if any(line.is_figure(column) for line in table.lines)]
    cells = [Cell(line, column, line.name(names), column) for line in table.lines for column in numbers]
    return cells, tuple(column for column in rest if column not in numbers)


def _long(table: Table, names: str, layout: Layout) -> tuple[list[Cell], tuple[str, ...]]:
    """A figure a row."""
    dataset, value = _column(table, str(layout.dataset)), _column(table, str(layout.value))
    cells = [Cell(line, value, line.name(names), line.name(dataset)) for line in table.lines]
    return cells, tuple(column for column in table.columns if column not in (names, dataset, value))


def _unit(table: Table, cells: list[Cell], said: str | None) -> tuple[str, int, float, float, tuple[str, ...]]:
    """Unit, scale, both ends of the range, and what to tell; raises where shares and percent cannot be told apart."""
    if said == "fraction":
        return "%", 100, 0.0, 100.0, ()
    if said in ("percent", "%"):
        return "%", 1, 0.0, 100.0, ()
    found = [
        (cell, figure) for cell in cells if (figure := cell.line.figure(cell.column, -ANYTHING, ANYTHING)) is not None
    ]
    values = [figure for _, figure in found]
    low, high = min(values, default=Decimal(0)), max(values, default=Decimal(0))
    if said:
        ends = float(min(low, 0)), float(max(high, 0))  # the metric's own range is not said
        return said, 1, ends[0], ends[1] if ends != (0, 0) else 1.0, ()
    if low >= 0 and high <= 1:
        return "%", 100, 0.0, 100.0, ("all figures are within 0..1: read as shares, kept in percent",)
    large = {cell.dataset for cell, figure in found if figure > 1}
    if low >= 0 and high <= 100 and large == {cell.dataset for cell in cells}:
        return "%", 1, 0.0, 100.0, ("figures are above 1 in every data set and within 0..100: read as percent",)
    raise BadInput(
        f"{table.path}: figures from {low:g} to {high:g}: say --unit fraction, percent, or what they are "
        "(--only names the data sets where not every column of numbers is one)"
    )


def _backbone(name: str) -> Identity:
    """A row by the name that the table gives it; what the roster knows of that name, it knows of the row."""
    row: dict[str, Any] = known(name) or {}
    pretraining = {key: row[key] for key in ("method", "data") if row.get(key)}
    facts = {"name": name, "family": row.get("family"), "license": row.get("license"), "pretraining": pretraining}
    return Identity(name=name, card={key: value for key, value in facts.items() if value})
