"""What else a board tells than the ranking: the Pareto front, and what goes along with what."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...backbones.errors import BadInput, unknown
from .output import FORMATS, pick_format, print_rows
from .robustness import robustness_rows

if TYPE_CHECKING:
    from ...leaderboard import Board

RANKING = "ranking"
VIEWS = (RANKING, "pareto", "correlations", "sizes", "robustness")
CHOOSING = ("pareto", "robustness")  # of which columns, `--objective` says


def pick_view(show: str, objectives: Sequence[str]) -> str:
    """The view, if there is such a one. Raises BadInput, also for objectives that it has no use for."""
    if show not in VIEWS:
        raise unknown("view", show, VIEWS, where="--show")
    if objectives and show not in CHOOSING:
        raise BadInput(f"--objective {objectives[0]}: goes with --show {' or '.join(CHOOSING)}")
    return show


def print_view(
    board: "Board",
    show: str,
    objectives: Sequence[str],
    format: str,
    line: Sequence[str] = (),
    plot: Path | None = None,
) -> None:
    """A view of the board on stdout; a table is rounded, and of a front alone, the other formats have everything.

    `line`, `plot`: of robustness, whom the line is fitted over and where its picture goes.
    """
    pick_format(format, FORMATS)
    views = {"pareto": _pareto, "correlations": _correlations, "sizes": _sizes}
    views["robustness"] = partial(robustness_rows, line=line, plot=plot)
    rows, title = views[show](board, objectives, format)
    if rows or format == "json":
        print_rows(rows, format, title)
    else:
        print(f"{board.title}: too few backbones or tasks for {show}")


def _pareto(board: "Board", objectives: Sequence[str], format: str) -> tuple[list[dict[str, Any]], str]:
    from ...leaderboard.pareto import OBJECTIVES, pareto_front

    keys = list(objectives) or list(OBJECTIVES)
    found = pareto_front(board, keys)
    rows = [{"backbone": c.backbone, **c.values, "front": c.front} for c in found]
    title = f"{sum(c.front for c in found)} of {len(found)} backbones are beaten by no other in {' and '.join(keys)}"
    if format == "table":
        rows = [{k: _short(v) for k, v in row.items() if k != "front"} for row in rows if row["front"]]
    return rows, title


def _correlations(board: "Board", _: Sequence[str], format: str) -> tuple[list[dict[str, Any]], str]:
    from ...leaderboard import task_correlations

    found = task_correlations(board)
    title = "Spearman's correlation of tasks, over the backbones that have both; intervals are in json and csv"
    if format != "table":
        return [asdict(c) for c in found], title
    rho = {(c.a, c.b): _short(c.rho) for c in found}
    keys = [c.key for c in board.columns]
    return [{"task": a, **{b: rho.get((b, a)) for b in keys[:-1]}} for a in keys[1:]], title


def _sizes(board: "Board", _: Sequence[str], format: str) -> tuple[list[dict[str, Any]], str]:
    from ...leaderboard import size_correlations

    rows = [asdict(c) for c in size_correlations(board)]
    if format == "table":
        rows = [{k: _short(v) for k, v in row.items()} for row in rows if row["rho"] is not None]
    return rows, "Spearman's correlation of scores with parameters and pretraining images, by family of backbones"


def _short(value: Any) -> Any:
    return round(value, 2) if isinstance(value, float) else value
