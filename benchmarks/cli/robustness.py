"""`backbench leaderboard --show robustness`: lines of accuracies, and how far networks are from them."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...backbones.errors import BadInput

if TYPE_CHECKING:
    from ...leaderboard import Board

TITLE = "Points of top-1 above the line that clean accuracy foretells (probit axes), with 95 % intervals"


def robustness_rows(
    board: "Board", objectives: Sequence[str], format: str, line: Sequence[str] = (), plot: Path | None = None
) -> tuple[list[dict[str, Any]], str]:
    """As a table the lines, and the mean of each kind of pretraining; in other formats a row a network and shift.

    `objectives`: the clean column, then the shifted ones; without, all that the board has. Raises BadInput.
    """
    from ...leaderboard import effective_robustness, shifts_of, write_robustness_picture

    if len(objectives) == 1:
        raise BadInput(f"--objective {objectives[0]}: name the clean column, then the shifted ones")
    pairs = [(objectives[0], shifted) for shifted in objectives[1:]] if objectives else shifts_of(board)
    if not pairs:
        raise BadInput(f"{board.title}: no accuracy under shift beside a clean one; name columns with --objective")
    found = [one for clean, shifted in pairs if (one := effective_robustness(board, clean, shifted, line_of=line))]
    if plot and found:
        write_robustness_picture(found, plot)
    if format != "table":
        return [
            {"clean_column": one.clean, "shift": one.shifted, **asdict(row)} for one in found for row in one.rows
        ], TITLE
    rows = []
    for one in found:
        logit = effective_robustness(board, one.clean, one.shifted, "logit", line)
        for group in one.groups:
            fit = {"slope": f"{one.line.slope:.2f}", "R²": f"{one.line.r2:.3f}", "R² logit": ""}
            fit["R² logit"] = f"{logit.line.r2:.3f}" if logit else ""
            whole = group is one.groups[0]
            rows.append(
                {"shift": one.shifted if whole else "", "clean": one.clean if whole else "", "pretraining": group.kind}
                | {"networks": group.n, "above": f"{group.effective:+.1f}", "low": f"{group.low:+.1f}"}
                | {"high": f"{group.high:+.1f}"}
                | {key: value if whole else "" for key, value in fit.items()}
            )
    return rows, TITLE + (f"; drawn in {plot}" if plot and found else "")
