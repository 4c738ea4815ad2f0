"""The board as CSV, for spreadsheets: text that one would run as a formula is made harmless."""

import csv
from io import StringIO
from typing import Any

from ..board import Board
from .flat import by_row, flat

FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # how a cell begins that a spreadsheet may run (OWASP, CSV injection)


def as_csv(board: Board, sort: str | None = None) -> str:
    """A line a backbone, under a header; see `flat`. Numbers stay numbers. Raises BadInput."""
    table, out = flat(board, sort), StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([harmless(series.name) for series in table])
    writer.writerows([harmless(value) for value in row] for row in by_row(table))
    return out.getvalue()


def harmless(value: Any) -> Any:
    """The value; text that begins like a formula with an apostrophe before it, which a spreadsheet does not show."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
