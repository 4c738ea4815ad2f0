"""A board as columns of plain JSON: what the page's scripts read, small and quick to parse at thousands of rows."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .board import Board, Row
from .published import Source
from .selection import Column
from .snapshot import TRUSTS

FACTS = ("family", "method", "data", "license", "model", "source")  # of a card, by which rows are told apart


def columnar(
    board: Board,
    source: Source | None = None,
    places: Mapping[str, tuple[int, int]] | None = None,
    newest: str | None = None,
) -> dict[str, Any]:
    """The board as JSON values: a list over rows for every fact, standing and score, in the board's order.

    `source`: of the published table that it shows; `places`: of each result the number of its file and its index in
    there; `newest`: when the newest of its results was made.
    """
    rows, places = board.rows, places or {}
    marks = list(dict.fromkeys(mark for row in rows if row.standing for mark in row.standing.ties))
    number = {mark: i for i, mark in enumerate(marks)}
    names = {row.backbone: i for i, row in enumerate(rows)}
    return {
        "title": board.title,
        "source": source and source.model_dump(mode="json"),
        "published": bool(board.source),
        "families": list(board.families),
        "newest": newest,
        "results": sum(len(cell.results) for row in rows for cell in row.cells.values()),
        "left_out": dict(Counter(board.left_out.values())),
        "name": [row.backbone for row in rows],
        "parameters": [row.facts.parameters for row in rows],
        "macs": [row.facts.macs for row in rows],
        "facts": {key: _coded([row.facts.fact(key) for row in rows]) for key in FACTS},
        "trust": _coded([row.trust if row.cells else None for row in rows], TRUSTS),
        "loading": {i: row.loading for i, row in enumerate(rows) if row.loading},
        "twins": {i: [names[name] for name in twins] for i, row in enumerate(rows) if (twins := board.twins(row))},
        "card": [row.facts.card for row in rows] if board.source else None,
        "record": [next((places[id][0] for id in runs_of(board, row) if id in places), None) for row in rows],
        "standing": {
            key: _numbers(row.standing and getattr(row.standing, key) for row in rows)
            for key in ("rank", "rank_low", "rank_high", "overall", "overall_low", "overall_high")
            + ("borda", "mean_rank", "win_rate")
        },
        # Groups of ties are runs of neighbours, so the first and the last of a row's own name them all.
        "ties": [[number[s.ties[0]], number[s.ties[-1]]] if (s := row.standing) and s.ties else None for row in rows],
        "letters": marks,
        "z": {
            family: _numbers(row.standing and row.standing.families[family] for row in rows)
            for family in board.families
        },
        "columns": [_column(board, column, places) for column in board.columns],
    }


def runs_of(board: Board, row: Row) -> list[str]:
    """Ids of the results behind a row, by column and seed."""
    return [id for c in board.columns if c.key in row.cells for id in row.cells[c.key].results]


def _column(board: Board, column: Column, places: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    cells = [row.cells.get(column.key) for row in board.rows]
    ends = next((cell for cell in cells if cell), None)
    facts = {name: getattr(column, name) for name in ("key", "task", "dataset", "family", "metric", "unit", "ranked")}
    return facts | {
        "higher": column.higher_is_better,
        "ends": [ends.low_end, ends.high_end] if ends else [0, 1],
        "value": _numbers(cell and cell.value for cell in cells),
        **{end: _numbers((cell and getattr(cell, end) for cell in cells), 5) for end in ("low", "high")},
        "z": _numbers((cell and cell.z for cell in cells), 4),
        "runs": _same([[places[id][1] for id in cell.results if id in places] if cell else [] for cell in cells]),
        "trust": _coded([cell and cell.trust for cell in cells], TRUSTS),
    }


def _numbers(values: Iterable[float | None], digits: int = 6) -> list[float | None] | None:
    """So many digits of each, more than anybody is shown; None where nothing has a value."""
    short = [value if value is None or isinstance(value, int) else float(f"{value:.{digits}g}") for value in values]
    return None if all(value is None for value in short) else short


def _coded(values: Sequence[str | None], words: Sequence[str] = ()) -> dict[str, Any]:
    """Texts as indices into the words among them; a single index where all are the same, -1 for none."""
    words = [word for word in words if word in values] or sorted({value for value in values if value is not None})
    place: dict[str | None, int] = {word: i for i, word in enumerate(words)}
    return {"words": words, "at": _same([place.get(value, -1) for value in values])}


def _same(values: list[Any]) -> Any:
    """The one value where all are the same, else the list."""
    return values[0] if values and all(value == values[0] for value in values) else values
