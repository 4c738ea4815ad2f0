"""The board as named fields, one value and one text a row: what the terminal, Markdown and LaTeX print and sort by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..backbones.errors import unknown
from .board import Board, Cell, Row
from .selection import Column

NONE = "–"
SHORT = {"classification": "class", "detection": "det", "segmentation": "seg", "retrieval": "retr"}
TRUST = {"reported": "unverified"}  # what a person is told instead: nobody has looked at it yet
ON_DEMAND = ("macs", "borda", "mean-rank", "win-rate")  # shown when sorted by: they crowd, or agree with the first rank


@dataclass(frozen=True)
class Field:
    """One named value of a row. `best`: which end of it is the better one; None for plain facts. `words`: is text."""

    key: str
    label: str
    value: Callable[[Row], float | str | None]
    text: Callable[[Row], str]
    best: Literal["high", "low"] | None = None
    words: bool = False

    def best_rows(self, rows: Sequence[Row]) -> set[str]:
        """Names of the rows that are best in this field, all of them where several are."""
        values = {r.backbone: v for r in rows if (v := self.value(r)) is not None}
        if not self.best or not values:
            return set()
        top = (max if self.best == "high" else min)(values.values())  # type: ignore[type-var]
        return {name for name, v in values.items() if v == top}


def fields(board: Board) -> list[Field]:
    """Every field of a board: place, name, trust, overall and family z-scores, scores, size, and the other rankings."""
    families = board.families if len(board.families) > 1 else ()  # of a single one, the overall z is its z
    return [
        Field("rank", "#", *_standing("rank", "{}"), best="low"),
        Field("ties", "tie", _ties, _ties, words=True),
        Field("backbone", "backbone", lambda r: r.backbone, lambda r: r.backbone, words=True),
        Field("trust", "trust", _trust, _trust, words=True),
        Field("rank-interval", "ranks 95%", _standing("rank_low", "")[0], _rank_interval),
        Field("overall", "overall z", *_standing("overall", "{:+.2f}"), best="high"),
        *(Field(f"z-{f}", f"z {SHORT.get(f, f)}", *_family(f), best="high") for f in families),
        *(_score(c) for c in board.columns),
        Field("parameters", "params", lambda r: r.facts.parameters, lambda r: count(r.facts.parameters)),
        Field("macs", "MACs", lambda r: r.facts.macs, lambda r: count(r.facts.macs)),
        Field("borda", "Borda", *_standing("borda", "{:.1f}"), best="high"),
        Field("mean-rank", "mean rank", *_standing("mean_rank", "{:.2f}"), best="low"),
        Field("win-rate", "win rate", *_standing("win_rate", "{:.2f}"), best="high"),
    ]


def shown(board: Board, sort: str | None = None) -> list[Field]:
    """The fields that a table of limited width has: without rankings that nobody sorts by, and without what says the
    same, or nothing, in every row."""
    every = fields(board)
    always = {"rank", "backbone", *(c.key for c in board.columns)}
    silent = {f.key for f in every if f.key not in always and all(f.text(r) in ("", NONE) for r in board.rows)}
    if len({row.trust for row in board.rows}) < 2:
        silent.add("trust")
    return [f for f in every if f.key == sort or f.key not in {*silent, *ON_DEMAND}]


def sorted_rows(board: Board, sort: str | None = None) -> list[Row]:
    """Rows by a field's key, best first (names and sizes ascending); incomplete rows stay below the ranked ones.

    Raises BadInput for a key that is not there.
    """
    by_key = {f.key: f for f in fields(board)}
    if sort is not None and sort not in by_key:
        raise unknown("column", sort, by_key)
    field = by_key[sort or "rank"]
    ranked, rest = [r for r in board.rows if r.standing], [r for r in board.rows if not r.standing]
    return [*_by(field, ranked), *_by(field, rest)]


def number(value: float, unit: str) -> str:
    """A score for people: percent with one decimal, anything else with three digits."""
    return f"{value:.1f}" if unit == "%" else f"{value:.3g}"


def count(n: int | None) -> str:
    """A number of parameters or operations for people: 950, 12 k, 1.25 M, 304 M, 1.01 G; a dash for an unknown one."""
    if n is None:
        return NONE
    for size, letter in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if n >= size * 0.9995:
            return f"{n / size:.3g} {letter}"
    return str(n)


def with_half(cell: Cell, unit: str) -> str:
    """A score with half the width of its interval, as in 63.1 ±1.2; alone where it came without."""
    return number(cell.value, unit) + ("" if cell.half is None else f" ±{number(cell.half, unit)}")


def _by(field: Field, rows: Sequence[Row]) -> list[Row]:
    known = [r for r in rows if field.value(r) is not None]
    known.sort(key=lambda r: r.backbone)
    known.sort(key=field.value, reverse=field.best == "high")  # type: ignore[arg-type]
    return [*known, *(r for r in rows if field.value(r) is None)]


def _standing(name: str, form: str) -> tuple[Callable, Callable]:
    def value(row: Row):
        return getattr(row.standing, name) if row.standing else None

    return value, lambda row: form.format(value(row)) if row.standing else NONE


def _ties(row: Row) -> str:
    return "".join(row.standing.ties) if row.standing else ""


def _trust(row: Row) -> str:
    return TRUST.get(row.trust, row.trust)


def _rank_interval(row: Row) -> str:
    s = row.standing
    return f"{s.rank_low}–{s.rank_high}" if s and s.rank_low is not None else NONE


def _family(family: str) -> tuple[Callable, Callable]:
    def value(row: Row) -> float | None:
        return row.standing.families[family] if row.standing else None

    return value, lambda row: f"{value(row):+.2f}" if row.standing else NONE


def _score(column: Column) -> Field:
    def value(row: Row) -> float | None:
        cell = row.cells.get(column.key)
        return cell.value if cell else None

    def text(row: Row) -> str:
        cell = row.cells.get(column.key)
        return with_half(cell, column.unit) if cell else NONE

    label = column.key + ("" if column.higher_is_better else " ↓")
    return Field(column.key, label, value, text, best="high" if column.higher_is_better else "low")
