"""`backbench list`: what there is, narrowed down and in the wanted form."""

from collections.abc import Mapping
from typing import Any

from ...backbones import roster
from ...backbones.errors import BadInput, unknown
from .output import FORMATS, cell, console, pick_format, print_rows


def list_(
    what: str, grep: str | None, sort: str | None, format: str, filters: Mapping[str, str | None], everything: bool
) -> None:
    """Rows of one kind; `filters` and `everything` (names that libraries ship, too) are for backbones alone."""
    listings = {"tasks": _tasks, "datasets": _datasets, "suites": _suites}
    listings["backbones"] = lambda: roster.rows(libraries=everything)
    if what not in listings:
        raise unknown("listing", what, listings, where="backbench list")
    pick_format(format, FORMATS)
    given = [f"--{key}" for key, value in {**filters, "all": everything or None}.items() if value is not None]
    if given and what != "backbones":
        raise BadInput(f"backbench list {what}: {given[0]} is for backbones; --grep goes with everything")
    every = listings[what]()
    rows = roster.select(every, **filters) if given else every
    if grep:
        rows = [row for row in rows if grep.lower() in " ".join(str(value) for value in row.values()).lower()]
    if sort and every:
        if sort not in every[0]:
            raise unknown("column", sort, every[0], where="--sort")
        rows = sorted(rows, key=lambda row: (row[sort] is None, row[sort]))
    if format in ("json", "csv"):
        print_rows(rows, format)
    elif not rows:
        print(f"none of the {len(every)} {what} here is like that")
    elif what == "backbones":
        short = [_in_short(row) for row in rows]
        print_rows(_as_wide_as_fits(short) if format == "table" else short, format)
    else:
        print_rows(rows, format)
    if what == "backbones" and format == "table":
        more = "" if everything else "; --all adds every name of weights that timm, open_clip and torchvision ship"
        print(f"\n{len(rows)} of {len(every)} backbones{more}.")
        print(
            "Any timm/NAME, open_clip/ARCH@TAG, transformers/ORG/NAME, torchvision/NAME@WEIGHTS or CARD.yaml works too."
        )


def _in_short(row: Mapping[str, Any]) -> dict[str, Any]:
    """A backbone as a table shows it; a dash is what nobody knows before its weights are here."""
    shown = {
        "name": row["name"],
        "family": row["family"],
        "method": row["method"],
        "data": row["data"],
        "params": _count(row["params"], ((1e9, "B"), (1e6, "M"), (1e3, "K"))),
        "macs": _count(row["macs"], ((1e9, "G"), (1e6, "M"))),
        "input": row["input_size"],
        "dim": row["embed_dim"],
        "text": {True: "yes", False: "no", None: None}[row["text_tower"]],
        "license": "own terms" if "://" in str(row["license"]) else row["license"],  # an address is for JSON
    }
    return {key: "–" if value is None else value for key, value in shown.items()}


def _as_wide_as_fits(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without the columns that a narrow terminal has no room for, the least asked for first."""
    widths = {key: max(len(word) for row in rows for word in [key, *cell(row[key]).split()]) + 2 for key in rows[0]}
    for key in ("license", "text", "dim", "input", "family", "macs", "data", "method"):
        if sum(widths.values()) - 2 > console().width:
            del widths[key]
    return [{key: row[key] for key in widths} for row in rows]


def _count(number: int | None, units: tuple[tuple[float, str], ...]) -> str | None:
    if number is None:
        return None
    size, unit = next((u for u in units if number >= u[0]), units[-1])
    return f"{number / size:.3g}{unit}" if number < 100 * size else f"{number / size:,.0f}{unit}"


def _tasks() -> list[dict[str, Any]]:
    from ...tasks.registry import list_tasks

    return [
        {"name": t.name, "family": t.family, "version": t.version, "description": t.description} for t in list_tasks()
    ]


def _datasets() -> list[dict[str, Any]]:
    from ...tasks.datasets.registry import list_datasets

    return [
        {"name": card.name, "kind": ", ".join(card.kind), "source": card.source, "description": card.description or ""}
        for card in list_datasets()
    ]


def _suites() -> list[dict[str, Any]]:
    from ..suite import find_suite, list_suites

    rows = []
    for name in list_suites():
        suite = find_suite(name)
        rows.append(
            {
                "name": name,
                "tasks": len(suite.entries),
                "backbones": len(suite.backbones),
                "description": suite.description,
            }
        )
    return rows
