"""Commands over the feature bank: what is kept, what may go, what is harmed."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...backbones.errors import BadInput
from ...backbones.reading import digest
from ...tasks.entry import Entry, Index
from ...tasks.entry import prune as prune_bank
from ..home import home_folder
from .output import console, print_rows

SIZES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
SIZES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
AGES = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def size_of(text: str, option: str) -> int:
    """Bytes that `10GB` or `500 MiB` stand for. Raises BadInput."""
    return round(_measured(text, option, SIZES, "a size, such as 500MB or 10GB"))


def seconds_of(text: str, option: str) -> float:
    """Seconds that `12h` or `30d` stand for. Raises BadInput."""
    return _measured(text, option, AGES, "an age, such as 12h or 30d")


def list_(format: str, home: Path | None) -> None:
    """`backbench cache list`."""
    rows = [_row(entry, Index.read(entry.place)) for entry in _entries(home)]
    print_rows(rows, format)
    if format == "table":
        print(f"{len(rows)} entries, {sum(row['mb'] for row in rows):,.1f} MB in {_bank(home)}")


def prune(to: str | None, older_than: str | None, backbone: str | None, home: Path | None) -> None:
    """`backbench cache prune`."""
    if to is None and older_than is None and backbone is None:
        raise BadInput("cache prune: say what may go: --to 10GB, --older-than 30d or --backbone NAME")
    age = None if older_than is None else seconds_of(older_than, "--older-than")
    before = None if age is None else time.time() - age
    size = None if to is None else size_of(to, "--to")
    sizes = {entry.place: entry.size for entry in _entries(home)}
    removed, spared = prune_bank(_bank(home), to=size, before=before, backbone=backbone)
    freed = sum(sizes.get(entry.place, 0) for entry in removed) / 1e6
    in_use = f", {spared} spared as they are in use" if spared else ""
    print(f"{len(removed)} of {len(sizes)} entries removed, {freed:,.1f} MB freed{in_use}")


def verify(format: str, home: Path | None) -> int:
    """`backbench cache verify`: exit code 1 when an entry is harmed."""
    rows = []
    with console(stderr=True).status("reading every byte"):
        for entry in _entries(home):
            index = Index.read(entry.place)
            row = _row(entry, index)
            if index and entry.finished and not (digest(index.made_of) == entry.key and index.whole(entry.place)):
                row["state"] = "harmed"
            rows.append(row)
    harmed = [row for row in rows if row["state"] in ("harmed", "unreadable")]
    if shown := harmed if format == "table" else rows:
        print_rows(shown, format)
    if format == "table":
        advice = "; what is harmed is made again when it is next asked for" if harmed else ""
        print(f"{len(rows)} entries, {len(harmed)} harmed{advice}")
    return 1 if harmed else 0


def _row(entry: Entry, index: Index | None) -> dict[str, Any]:
    state = "unfinished" if not entry.finished else "ready" if index else "unreadable"
    about = index.about if index else {}
    return {
        "entry": entry.key[:12],
        "backbone": about.get("backbone"),
        "split": about.get("split"),
        "what": about.get("what"),
        "rows": index.rows if index else None,
        "mb": round(entry.size / 1e6, 1),
        "used": datetime.fromtimestamp(entry.used, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "state": state,
    }


def _entries(home: Path | None) -> Iterator[Entry]:
    return Entry.all(_bank(home))


def _bank(home: Path | None) -> Path:
    return home_folder(home) / "features"


def _measured(text: str, option: str, units: dict[str, int], example: str) -> float:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text.lower())
    if not found or found[2] not in units:
        raise BadInput(f"{option} {text}: not {example}")
    return float(found[1]) * units[found[2]]
