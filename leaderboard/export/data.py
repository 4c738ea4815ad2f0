"""The board as plain JSON values: what the page, the API and `--format json` give."""

import json
from dataclasses import asdict
from typing import Any

from typing_extensions import TypedDict

from ..board import Board, Row
from ..filters import architecture
from ..listing import sorted_rows

VERSION = 2  # of the shape below. 2: the source of a board, what is known of a row's network, win rates, trust


class ColumnData(TypedDict):
    """A score of a task on a data set; a recipe, where the same pair is there several times."""

    key: str
    task: str
    dataset: str
    recipe: dict[str, Any]
    ranked: bool
    family: str
    metric: str
    unit: str
    higher_is_better: bool


class CellData(TypedDict):
    """A score with its 95 % interval, null where it came without; `results`: ids of the runs behind it, a seed each."""

    value: float
    low: float | None
    high: float | None
    low_end: float
    high_end: float
    results: list[str]
    z: float | None
    trust: str


class StandingData(TypedDict):
    """A place; intervals are null where the scores have none."""

    rank: int
    rank_low: int | None
    rank_high: int | None
    ties: list[str]
    overall: float
    overall_low: float | None
    overall_high: float | None
    families: dict[str, float]
    borda: float
    mean_rank: float
    win_rate: float


class RowData(TypedDict):
    """A backbone; facts that nobody states are null. `standing` is null where a ranked score is `missing`."""

    backbone: str
    parameters: int | None
    macs: int | None
    family: str | None
    method: str | None
    data: str | None
    license: str | None
    architecture: str | None
    trust: str
    weights_digest: str | None
    same_weights_as: list[str]
    loading: dict[str, str | bool]
    standing: StandingData | None
    missing: list[str]
    scores: dict[str, CellData]


class BoardData(TypedDict):
    """`source`: empty for runs, else the published table. `left_out`: id of a result that is not shown, and why."""

    schema_version: int
    title: str
    source: str
    columns: list[ColumnData]
    rows: list[RowData]
    left_out: dict[str, str]


def as_data(board: Board, sort: str | None = None) -> BoardData:
    """The board as plain JSON values. Raises BadInput for an unknown column to sort by."""
    return {
        "schema_version": VERSION,
        "title": board.title,
        "source": board.source,
        "columns": [ColumnData(**asdict(c)) for c in board.columns],
        "rows": [_row(board, row) for row in sorted_rows(board, sort)],
        "left_out": dict(board.left_out),
    }


def as_json(board: Board, sort: str | None = None) -> str:
    """The board as indented JSON. Raises BadInput for an unknown column to sort by."""
    return json.dumps(as_data(board, sort), indent=2, allow_nan=False) + "\n"


def _row(board: Board, row: Row) -> RowData:
    # By hand, not by `asdict`, which copies every value deeply: a board may have a hundred thousand cells.
    standing = row.standing and _plain(row.standing, ties=list(row.standing.ties))
    return {
        "backbone": row.backbone,
        "parameters": row.facts.parameters,
        "macs": row.facts.macs,
        "family": row.facts.fact("family"),
        "method": row.facts.fact("method"),
        "data": row.facts.fact("data"),
        "license": row.facts.fact("license"),
        "architecture": architecture(row.facts),
        "trust": row.trust,
        "weights_digest": row.weights_digest,
        "same_weights_as": board.twins(row),
        "loading": row.loading,
        "standing": standing,
        "missing": list(row.missing),
        "scores": {key: _plain(cell, results=list(cell.results)) for key, cell in row.cells.items()},
    }


def _plain(record: Any, **changed: Any) -> Any:
    return vars(record) | changed
