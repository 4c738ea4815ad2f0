"""A CSV file as it was published: every cell read strictly, every complaint with file, line and column."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

from ...backbones.errors import BadInput, did_you_mean

LARGEST = 16 << 20  # bytes; the largest table known is a hundredth of it
MOST_ROWS = 100_000
LONGEST_NAME = 150  # of a backbone, a data set, a column
MISSING = {"", "-", "–", "—", "n/a", "na", "none", "null"}  # what people write where there is no figure
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)
_GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", re.ASCII)
_MENDS = (  # what a cell that is no number looks like, and how to mend it
    (re.compile(r"[+-]?(nan|inf(inity)?)", re.I), "is not a figure; leave the cell empty where there is none"),
    (re.compile(r"[+-]?\d+,\d+", re.ASCII), "has a comma; write decimals with a point and thousands without a mark"),
    (re.compile(r"\S+\s*%"), "has a percent sign; write the number alone"),
)


@dataclass(frozen=True)
class Table:
    """A file of comma-separated values: its digest, its columns, and its rows from the second line on."""

    path: Path
    sha256: str
    columns: tuple[str, ...]
    lines: tuple["Line", ...]

    def expect(self, needed: Iterable[str], known: Iterable[str], kind: str) -> None:
        """Raises BadInput for a column that is `needed` and not here, or is here and not `known` of such a `kind`."""
        needed = list(needed)
        known = [*needed, *known]
        for column in self.columns:
            if column not in known:
                hint = did_you_mean(column, known) or "; a table of your own comes in by `backbench import csv`"
                raise BadInput(f"{self.path}:1: column {column!r}: {kind} has no such column{hint}")
        if absent := [column for column in needed if column not in self.columns]:
            raise BadInput(f"{self.path}:1: column {absent[0]!r}: not there; {kind} has it")


@dataclass(frozen=True)
class Line:
    """A row: its cells, stripped, and the line of the file on which it begins."""

    path: Path
    number: int
    cells: dict[str, str]

    def error(self, column: str, problem: str) -> BadInput:
        """What to raise for a cell."""
        return BadInput(f"{self.path}:{self.number}: column {column!r}: {problem}")

    def name(self, column: str) -> str:
        """A name. Raises BadInput where the cell is empty, long, or has characters that cannot be seen."""
        text = self.cells[column]
        if not text:
            raise self.error(column, "there is no name here; give one or take the row out")
        if len(text) > LONGEST_NAME or not text.isprintable():
            raise self.error(column, f"{text[:30]!r}… is no name: up to {LONGEST_NAME} visible characters in one line")
        return text

    def figure(self, column: str, low: float, high: float, grouped: bool = False) -> Decimal | None:
        """A number in `low`..`high`, None where the table has none. Raises BadInput.

        `grouped`: thousands may be marked, as in 1,014.45; elsewhere that could as well be a decimal comma.
        """
        text = self.cells[column]
        if text.lower() in MISSING:
            return None
        if grouped and _GROUPED.fullmatch(text):
            text = text.replace(",", "")
        if not _NUMBER.fullmatch(text):
            mend = next((mend for looks, mend in _MENDS if looks.fullmatch(text)), "is not a number")
            raise self.error(column, f"{text[:40]!r} {mend}")
        value = Decimal(text)
        if not low <= value <= high:
            raise self.error(column, f"{text[:40]} is not within {low:g}..{high:g}")
        return value

    def is_figure(self, column: str) -> bool:
        """Whether the cell holds a number, or tries to."""
        text = self.cells[column]
        return bool(_NUMBER.fullmatch(text)) or any(looks.fullmatch(text) for looks, _ in _MENDS)


def read_table(path: Path) -> Table:
    """The table in a file. Raises BadInput for one that is not there, too large, not UTF-8, ragged or empty."""
    content = _content(path)
    lines = _lines(_text(content, path), path)
    head, names = next(lines, (0, []))
    if not names:
        raise BadInput(f"{path}: empty; a table begins with a line that names its columns")
    columns = tuple(name.strip() for name in names)
    _check_columns(columns, path, head)
    rows = []
    for number, cells in lines:
        if len(cells) != len(columns):
            raise BadInput(f"{path}:{number}: {len(cells)} cells in a table of {len(columns)} columns")
        if len(rows) == MOST_ROWS:
            raise BadInput(f"{path}:{number}: more than {MOST_ROWS:,} rows; no table of backbones is so long")
        rows.append(Line(path, number, dict(zip(columns, map(str.strip, cells), strict=True))))
    if not rows:
        raise BadInput(f"{path}: no rows below the line that names its columns")
    return Table(path, sha256(content).hexdigest(), columns, tuple(rows))


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise BadInput(f"{path}: {'not a file' if path.exists() else 'no such file'}; give a table (CSV)")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > LARGEST:
        raise BadInput(f"{path}: over {LARGEST >> 20} MiB; no table of backbones is so large")
    return content


def _text(content: bytes, path: Path) -> str:
    try:
        text = content.decode("utf-8-sig")  # with the mark that spreadsheets put before it, or without
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BadInput(f"{path}:{line}: not UTF-8 text; save the table as CSV in UTF-8") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise BadInput(f"{path}:{line}: not a text: it has a zero byte")
    return text


def _lines(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, each with the line on which it begins; a quoted cell may go over several."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise BadInput(f"{path}:{number}: not comma-separated values: {error}") from None
        if any(cell.strip() for cell in row):
            yield number, row


def _check_columns(columns: tuple[str, ...], path: Path, line: int) -> None:
    if len(columns) == 1 and (mark := next((mark for mark in ";\t|" if mark in columns[0]), None)):
        raise BadInput(f"{path}:{line}: columns are separated by {mark!r}; save the table with commas")
    for place, column in enumerate(columns, 1):
        if not column or len(column) > LONGEST_NAME or not column.isprintable():
            raise BadInput(f"{path}:{line}: column {place} has no proper name: {column[:30]!r}")
        if columns.index(column) != place - 1:
            raise BadInput(f"{path}:{line}: two columns are named {column!r}")
