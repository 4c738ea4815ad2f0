"""The board as data: JSON with everything, CSV for spreadsheets, Markdown for a README. Keys are stable."""

import csv
import json
from dataclasses import asdict
from io import StringIO
from typing import Any

from .board import Board
from .listing import fields, sorted_rows


def as_data(board: Board, sort: str | None = None) -> dict[str, Any]:
    """The board as plain JSON values; `results` of a score are the ids of the runs behind it. Raises BadInput."""
    return {
        "schema_version": 1,
        "title": board.title,
        "columns": [asdict(c) for c in board.columns],
        "rows": [
            {
                "backbone": row.backbone,
                "parameters": row.facts.parameters,
                "weights_digest": row.facts.weights_digest,
                "same_weights_as": board.twins(row),
                "loading": row.facts.loading,
                "standing": asdict(row.standing) if row.standing else None,
                "missing": list(row.missing),
                "scores": {key: asdict(cell) for key, cell in row.cells.items()},
            }
            for row in sorted_rows(board, sort)
        ],
        "left_out": board.left_out,
    }


def as_json(board: Board, sort: str | None = None) -> str:
    """The board as indented JSON. Raises BadInput for an unknown column to sort by."""
    return json.dumps(as_data(board, sort), indent=2, allow_nan=False)


def as_csv(board: Board, sort: str | None = None) -> str:
    """A line a backbone; every score with the ends of its interval in `KEY_low` and `KEY_high`. Raises BadInput."""
    lines = []
    for row in sorted_rows(board, sort):
        s = row.standing
        line: dict[str, Any] = {"rank": s and s.rank, "rank_low": s and s.rank_low, "rank_high": s and s.rank_high}
        line |= {"ties": s and "".join(s.ties), "backbone": row.backbone, "parameters": row.facts.parameters}
        line |= {"overall": s and s.overall, "overall_low": s and s.overall_low, "overall_high": s and s.overall_high}
        line |= {f"z-{f}": s and s.families[f] for f in board.families}
        for c in board.columns:
            cell = row.cells.get(c.key)
            line |= {c.key: cell and cell.value, f"{c.key}_low": cell and cell.low, f"{c.key}_high": cell and cell.high}
        line |= {"borda": s and s.borda, "mean-rank": s and s.mean_rank, "missing": " ".join(row.missing)}
        line |= {"weights_digest": row.facts.weights_digest, "same_weights_as": " ".join(board.twins(row))}
        lines.append(line)
    out = StringIO()
    writer = csv.DictWriter(out, list(lines[0]) if lines else ["rank", "backbone"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def as_markdown(board: Board, sort: str | None = None) -> str:
    """A table for a README, the best of every column in bold. Raises BadInput for an unknown column to sort by."""
    rows, columns = sorted_rows(board, sort), fields(board)
    right = [f.key not in ("ties", "backbone") for f in columns]
    lines = [
        "| " + " | ".join(_plain(f.label) for f in columns) + " |",
        "|" + "|".join("---:" if r else "---" for r in right) + "|",
    ]
    best = {f.key: f.best_rows(rows) for f in columns}
    for row in rows:
        texts = [(_plain(f.text(row)), row.backbone in best[f.key]) for f in columns]
        lines.append("| " + " | ".join(f"**{t}**" if bold and t else t for t, bold in texts) + " |")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """A text that means nothing to Markdown or HTML."""
    text = " ".join(text.split())
    for special in "\\`*_[]|<>~":
        text = text.replace(special, "\\" + special)
    return text.replace("&", "&amp;")
