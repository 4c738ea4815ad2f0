"""One page a pair of a run's backbones, or for one alone: a single file that needs nothing and asks nobody."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ...backbones.errors import BadInput
from ...leaderboard import Result, stored_measure
from ..picture import data_of, picture_of, stored_predictions
from .disagreement import first_disagreement
from .figures import as_uri, depth_curves, has_depth
from .sides import Row, Side, compared, consistencies, pair_of, rows_of
from .words import count, figure, in_short, interval

if TYPE_CHECKING:
    from ..runner import Report

HERE = Path(__file__).parent
LONGEST = 100  # letters of a name in a file's name
WIDE = 8.0  # inches of a picture that is not readable at half the width of the page
TITLES = {  # of the parts of a page that show pictures, by family
    "analysis": "How they see",
    "classification": "How sure, and how rightly so",
    "ood": "Under stress",
    "human": "Beside people",
    "efficiency": "What they cost",
}


@dataclass(frozen=True)
class Picture:
    """What one side of a row looks like, or why there is no picture of it."""

    backbone: str
    uri: str = ""
    reason: str = ""
    wide: bool = False


def write_reports(run: "Report", home: Path, watch: bool = False) -> list[Path]:
    """A page under `reports/` for every two backbones of the run, or for the only one; the same bytes each time.
    `watch` shows progress on a terminal."""
    from rich.console import Console
    from rich.progress import track

    names = list(dict.fromkeys(cell.card.name for cell in run.cells))
    groups = list(combinations(names, 2)) or [(name,) for name in names]
    screen = Console(stderr=True)
    quiet = not (watch and screen.is_terminal)
    shown = track(groups, "writing reports", console=screen, transient=True, disable=quiet)
    return [write_report(run, group, home) for group in shown]


def write_report(run: "Report", names: Sequence[str], home: Path) -> Path:
    """The page on one or two backbones of a run, written whole or not at all."""
    path = home / "reports" / ("--".join(slug(name) for name in names) + ".html")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(_page(run, names, home), encoding="utf-8")
    part.replace(path)
    return path


def slug(name: str) -> str:
    """A name as part of a file's name, / as -. What else is lost of it, a digest makes up for."""
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")[:LONGEST]
    return plain if plain == name.replace("/", "-") else f"{plain}-{sha256(name.encode()).hexdigest()[:8]}".strip("-")


def _page(run: "Report", names: Sequence[str], home: Path) -> str:
    measure_of = _remembered(stored_measure(home, lambda result: data_of(result, home)))
    rows = compared(rows_of(run, names), measure_of)
    alike = list(consistencies(rows, measure_of))
    together = pair_of(run, names) if len(names) == 2 else []
    across = next((side.results[0] for task, side in together if task.name == "similarity" and side.results), None)
    depths = [row for row in rows if has_depth(row)]
    agreeing = [[side.results for side in row.sides] for row, _ in alike]
    loader = FileSystemLoader(HERE)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"figure": figure, "interval": interval, "coloured": lambda text: coloured(text, names)}
    return environment.get_template("page.html").render(
        style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        names=names,
        summary=in_short(
            names, rows, alike[0] if alike else None, stored_predictions(across, home) if across else None
        ),
        subjects=[_facts(rows, place) for place in range(len(names))],
        rows=rows,
        alike=alike,
        disagreement=first_disagreement(agreeing, home),
        together=[(task, _picture(" and ".join(names), side, home)) for task, side in together],
        depths=depths,
        curves=as_uri(depth_curves(depths, names)) if depths else "",
        parts=_parts(rows, names, bool(across), home),
        made=_made(run, rows),
    )


def coloured(text: str, names: Sequence[str]) -> Markup:
    """A sentence as HTML with the names in it in their colours; whatever else it has of HTML stays text."""
    place = {name: number for number, name in enumerate(names)}
    pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    parts = [
        Markup('<span class="name side{}">{}</span>').format(place[part], part) if part in place else escape(part)
        for part in re.split(f"({pattern})", text)
    ]
    return Markup("").join(parts)


def _remembered(measure_of: Callable[[Result], Any]) -> Callable[[Result], Any]:
    """The same, but every result is measured once."""
    found: dict[str, Any] = {}

    def measured(result: Result) -> Any:
        if result.id not in found:
            found[result.id] = measure_of(result)
        return found[result.id]

    return measured


def _facts(rows: Sequence[Row], place: int) -> dict[str, str]:
    """Who a backbone is, from any of its results."""
    results = [result for row in rows for result in row.sides[place].results]
    if not results:
        return {}
    of = results[0].backbone
    data = " on " + of.fact("data") if of.fact("data") else ""  # type: ignore[operator]
    size = of.transform.get("size")
    facts = {
        "architecture": of.fact("family"),
        "pretraining": f"{of.fact('method')}{data}" if of.fact("method") else None,
        "parameters": count(of.parameters),
        "multiply-accumulates": count(of.macs) if of.macs else None,
        "embedding": f"{of.embed_dim} dimensions",
        "image": f"{size} × {size} px" if size else None,
        "licence": of.fact("license"),
    }
    return {key: value for key, value in facts.items() if value}


def _parts(rows: Sequence[Row], names: Sequence[str], across: bool, home: Path) -> list[tuple[str, list[Any]]]:
    """(title, [(row, pictures)]) of the parts of the page that show what tasks draw; a part without any is left out."""
    parts: dict[str, list[Any]] = {title: [] for title in TITLES.values()}
    for row in rows:
        if across and row.task.name == "similarity":
            continue  # the picture of both shows each alone too
        pictures = [_picture(name, side, home) for name, side in zip(names, row.sides, strict=True)]
        if any(picture.uri for picture in pictures):
            parts.setdefault(TITLES.get(row.task.family, row.task.family), []).append((row, pictures))
    return [(title, shown) for title, shown in parts.items() if shown]


def _picture(name: str, side: Side, home: Path) -> Picture:
    if not side.results:
        return Picture(name, reason=side.reason)
    try:
        drawn = picture_of(side.results[0], home)
    except BadInput as error:
        return Picture(name, reason=str(error))
    if drawn is None:
        return Picture(name, reason="no picture")
    return Picture(name, as_uri(drawn), wide=drawn.get_figwidth() > WIDE)


def _made(run: "Report", rows: Sequence[Row]) -> dict[str, Any]:
    """What the page was made from."""
    results = [result for row in rows for side in row.sides for result in side.results]
    return {
        "suite": run.suite.name,
        "datasets": sorted({result.dataset.name for result in results}),
        "limits": sorted({result.dataset.limit for result in results if result.dataset.limit}),
        "devices": sorted({result.cost.device for result in results}),
        "versions": sorted({result.code_version for result in results}),
        "seconds": sum(result.cost.seconds for result in results),
    }
