"""The board as a flat table: named columns of one type each, a value a row. What CSV and Parquet are written from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..board import Board, Cell, Row
from ..filters import architecture
from ..listing import sorted_rows

STANDING = ("overall", "overall_low", "overall_high")
FACTS = ("family", "method", "data", "license")


@dataclass(frozen=True)
class Series:
    """One column: `values` are all of `kind` or None."""

    name: str
    kind: Literal["whole", "number", "text"]
    values: list[Any]


def flat(board: Board, sort: str | None = None) -> list[Series]:
    """A row a backbone; every score with the ends of its interval in `KEY_low` and `KEY_high`. Raises BadInput."""
    rows = sorted_rows(board, sort)
    found: dict[str, Series] = {}

    def add(name: str, kind: Literal["whole", "number", "text"], value: Callable[[Row], Any]) -> None:
        while name in found:  # a task may be called as one of ours is
            name += "@score"
        found[name] = Series(name, kind, [value(row) for row in rows])

    for name in ("rank", "rank_low", "rank_high"):
        add(name, "whole", _of_standing(name))
    add("ties", "text", lambda row: "".join(row.standing.ties) if row.standing else None)
    add("backbone", "text", lambda row: row.backbone)
    add("parameters", "whole", lambda row: row.facts.parameters)
    for name in STANDING:
        add(name, "number", _of_standing(name))
    for family in board.families:
        add(f"z-{family}", "number", lambda row, of=family: row.standing.families[of] if row.standing else None)
    for column in board.columns:
        add(column.key, "number", _of_cell(column.key, lambda cell: cell.value))
        add(f"{column.key}_low", "number", _of_cell(column.key, lambda cell: cell.low))
        add(f"{column.key}_high", "number", _of_cell(column.key, lambda cell: cell.high))
    add("borda", "number", _of_standing("borda"))
    add("mean-rank", "number", _of_standing("mean_rank"))
    add("win-rate", "number", _of_standing("win_rate"))
    add("missing", "text", lambda row: " ".join(row.missing))
    add("weights_digest", "text", lambda row: row.weights_digest)
    add("same_weights_as", "text", lambda row: " ".join(board.twins(row)))
    for name in FACTS:
        add(name, "text", lambda row, of=name: row.facts.fact(of))
    add("architecture", "text", lambda row: architecture(row.facts))
    add("macs", "whole", lambda row: row.facts.macs)
    add("trust", "text", lambda row: row.trust)
    return list(found.values())


def _of_standing(name: str) -> Callable[[Row], Any]:
    return lambda row: getattr(row.standing, name) if row.standing else None


def _of_cell(key: str, value: Callable[[Cell], Any]) -> Callable[[Row], Any]:
    return lambda row: value(row.cells[key]) if key in row.cells else None


def by_row(table: Sequence[Series]) -> list[tuple]:
    """The values of a flat table, a tuple a row."""
    return list(zip(*(series.values for series in table), strict=True))
