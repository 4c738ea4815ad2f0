"""`backbench compare A B --errors`: whether backbones fail on the same examples."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ...backbones.errors import BadInput
from .output import FORMATS, console, pick_format, print_rows


def compare_errors(
    backbones: Sequence[str], suite: str | None, format: str, home: Path | None, database: str | None, plot: Path | None
) -> None:
    """Error consistency of every two of the backbones, task by task, from stored predictions."""
    from ...leaderboard import error_consistency
    from ..board import leaderboard as build

    pick_format(format, FORMATS)
    if plot:
        raise BadInput(f"--plot {plot}: is of ranks, not of errors; leave out --plot or --errors")
    if len(set(backbones)) < max(2, len(backbones)):
        raise BadInput("name two different backbones or more: backbench compare A B [C…] --errors")
    found = build(suite, home=home, database=database)
    with console(stderr=True).status("comparing stored predictions"):
        pairs = error_consistency([found.results_of(name) for name in backbones], found.measure)
    several = len(backbones) > 2
    rows = []
    for pair in pairs:
        row = asdict(pair)
        if format == "table":
            hidden = {"family", "seeds_a", "seeds_b", *(() if several else ("backbone_a", "backbone_b"))}
            row = {key: _short(key, value) for key, value in row.items() if key not in hidden}
        rows.append(row)
    of = "" if several else f"a = {backbones[0]}, b = {backbones[1]}: "
    print_rows(rows, format, title=f"{of}error consistency (Cohen's kappa) with 95 % intervals; a, b, agreement in %")


def _short(key: str, value: object) -> object:
    if isinstance(value, float):
        return f"{value:.1f}" if key in ("a", "b", "agreement") else f"{value:.3f}"
    return "–" if value is None else value
