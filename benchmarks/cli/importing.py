"""`backbench import`: published tables into the store."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .output import console, pick_format, print_json

if TYPE_CHECKING:
    from ...leaderboard.importing.collecting import Given
    from ...leaderboard.importing.keeping import Change


def import_(
    format: str,
    files: Sequence[Path],
    about: dict[str, str | None],
    layout: dict[str, Any],
    dry_run: bool,
    output: str,
    home: Path | None,
    database: str | None,
) -> None:
    """Reads every file before anything is kept. `about`: fields of `About`; `layout`: those of `Layout`, for csv."""
    from ...leaderboard.importing.collecting import About
    from ...leaderboard.importing.keeping import keep
    from ...leaderboard.importing.registry import read_files
    from ...leaderboard.importing.table import Layout
    from ..home import home_folder, store_of

    pick_format(output, ("table", "json"))
    with console(stderr=True).status(f"reading {len(files)} tables"):  # drawn on a terminal only
        given = read_files(format, files, About(**about), Layout(**layout))
        changes = keep(given, store_of(home_folder(home), database), dry_run)
    if output == "json":
        return print_json(
            {
                "files": [_file_facts(one) for one in given],
                "sources": [_source_facts(change) for change in changes],
                "dry_run": dry_run,
            }
        )
    for one in given:
        print(_told(one))
    for change in changes:
        print(_changed(change, dry_run))


def _file_facts(given: "Given") -> dict[str, Any]:
    return {
        "file": given.file,
        "source": given.source.name,
        "rows": given.rows,
        "figures": len(given.figures),
        "datasets": sorted({figure.dataset for figure in given.figures}),
        "ignored": list(given.ignored),
        "notes": list(given.notes),
    }


def _source_facts(change: "Change") -> dict[str, Any]:
    counts = {"added": change.added, "removed": change.removed, "total": change.total}
    return change.source.model_dump(mode="json") | counts


def _told(given: "Given") -> str:
    """A file in a few lines: what was found in it, what was left out, and what should be known of the reading."""
    datasets = list(dict.fromkeys(figure.dataset for figure in given.figures))
    of = f" on {', '.join(datasets)}" if 0 < len(datasets) <= 8 else f" on {len(datasets)} data sets"
    lines = [f"{given.file}: {given.rows:,} rows, {len(given.figures):,} figures{of}"]
    if given.ignored:
        lines.append(f"  left out: {', '.join(given.ignored)}")
    return "\n".join([*lines, *(f"  {note}" for note in given.notes)])


def _changed(change: "Change", dry_run: bool) -> str:
    if not change.added and not change.removed:
        done = f"{change.total:,} figures, all of them here already"
    else:
        verb = "would be " if dry_run else ""
        done = f"{change.added:,} figures {verb}added"
        done += f", {change.removed:,} older ones {verb}removed" if change.removed else ""
        done += f", {change.total:,} in all"
    return f"{change.source.name}: {done}; `backbench leaderboard --published {change.source.name}`"
