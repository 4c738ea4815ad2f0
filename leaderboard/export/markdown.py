"""The board as a Markdown table, for a README: the best of every column in bold."""

from ..board import Board
from ..listing import shown, sorted_rows

SPECIAL = {ord(c): f"\\{c}" for c in "\\`*_[]|<>~"} | {ord("&"): "&amp;"}


def as_markdown(board: Board, sort: str | None = None) -> str:
    """A table for a README. Raises BadInput for an unknown column to sort by."""
    rows, columns = sorted_rows(board, sort), shown(board, sort)
    lines = [
        "| " + " | ".join(_plain(f.label) for f in columns) + " |",
        "|" + "|".join("---" if f.words else "---:" for f in columns) + "|",
    ]
    best = {f.key: f.best_rows(rows) for f in columns}
    for row in rows:
        texts = [(_plain(f.text(row)), row.backbone in best[f.key]) for f in columns]
        lines.append("| " + " | ".join(f"**{t}**" if bold and t else t for t, bold in texts) + " |")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """A text that means nothing to Markdown or HTML."""
    return " ".join(text.split()).translate(SPECIAL)
