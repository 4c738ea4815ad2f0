"""The board as a LaTeX table, for a paper: booktabs, the best of every column in bold, ties as letters at the rank."""

import re

from ..board import Board, Row
from ..listing import Field, shown, sorted_rows

SPECIAL = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",  # is a command of its own in some languages
    "`": r"\symbol{96}",
    "\0": "{}",
    **{c: f"\\{c}" for c in "{}$&#%_"},
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "↓": r"$\downarrow$",
}
TABLE = str.maketrans(SPECIAL)


def as_latex(board: Board, sort: str | None = None) -> str:
    r"""A `table` environment that needs `\usepackage{booktabs}`. Names beyond Latin need XeLaTeX or LuaLaTeX.

    Raises BadInput for an unknown column to sort by.
    """
    rows = sorted_rows(board, sort)
    columns = [f for f in shown(board, sort) if f.key != "ties"]
    best = {f.key: f.best_rows(rows) for f in columns}
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(_caption(board, rows))}}}",
        rf"\begin{{tabular}}{{{''.join('l' if f.words else 'r' for f in columns)}}}",
        r"\toprule",
        _line([escaped(f.label) for f in columns]),
        r"\midrule",
    ]
    for i, row in enumerate(rows):
        if i and row.standing is None and rows[i - 1].standing is not None:
            lines.append(r"\midrule")
        lines.append(_line([_cell(f, row, row.backbone in best[f.key]) for f in columns]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def escaped(text: str) -> str:
    """A text that LaTeX prints as it is: no character of it is a command."""
    plain = "".join(c for c in " ".join(text.split()) if c.isprintable())
    return re.sub("-(?=-)", "-\0", plain).translate(TABLE)  # two hyphens in a row would be a dash


def _cell(field: Field, row: Row, bold: bool) -> str:
    text = escaped(field.text(row))
    text = rf"\textbf{{{text}}}" if bold and text else text
    marks = "".join(row.standing.ties) if field.key == "rank" and row.standing else ""
    return text + (rf"\textsuperscript{{{escaped(marks)}}}" if marks else "")


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _caption(board: Board, rows: list[Row]) -> str:
    parts = [f"{board.title}."]
    if any(cell.half is not None for row in rows for cell in row.cells.values()):
        parts.append("± is half a 95% interval.")
    if any(row.standing and row.standing.ties for row in rows):
        parts.append("Rows that share a letter cannot be told apart.")
    return " ".join(parts)
