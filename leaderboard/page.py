"""The board as one HTML file: opens from disk, needs no network, loads nothing."""

import os
import re
from base64 import b64encode
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from . import scatter
from .board import DRAWS, Board, Row
from .export import as_data
from .listing import count, fields, number

FOLDER = Path(__file__).parent / "page"
LANES = 3  # side by side in which the bars of tied groups are drawn; more than three rarely overlap


def write_page(board: Board, path: Path) -> None:
    """Writes the page of `board` to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(render_page(board), encoding="utf-8")
    part.replace(path)


def render_page(board: Board) -> str:
    """The page as a text, the same for the same board: no clock is read."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (number, count, flat, duration, heat, signed, breakable, tags):
        environment.filters[function.__name__] = function
    script = (FOLDER / "board.js").read_text(encoding="utf-8")
    return environment.get_template("board.html").render(
        **_numbers(board),
        style=Markup((FOLDER / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        # Only this script may run: whatever a name or a card smuggles in is not it.
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
    )


def _numbers(board: Board) -> dict[str, Any]:
    """What the template fills in."""
    shown = {r.id: r for r in board.shown}
    standings = [row.standing for row in board.rows if row.standing]
    widest = max((max(s.overall_high, -s.overall_low) for s in standings), default=0)
    return {
        "board": board,
        "data": as_data(board),
        "results": shown,
        "newest": max((r.created for r in shown.values()), default=None),
        "anchors": {row.backbone: f"backbone-{i}" for i, row in enumerate(board.rows, 1)},
        "groups": _groups(board),
        "leaders": _leaders(board),
        "best": {f.key: f.best_rows(board.rows) for f in fields(board)},
        "reach": 100 / (widest or 1),  # from a z-score to the half-width of its bar
        "max_lanes": LANES,
        "lanes": {mark: i % LANES for i, mark in enumerate(dict.fromkeys(m for s in standings for m in s.ties))},
        "draws": DRAWS,
        "reasons": Counter(board.left_out.values()),
        "plots": scatter.plots(board),
        "frame": scatter,
        "kinds": sorted({scatter.kind(row) for row in board.rows}),
    }


def _groups(board: Board) -> list[dict]:
    """The columns by task family; `mean`: whether its mean z-score says more than the one score, or the overall one."""
    families = {f: [c for c in board.columns if c.family == f] for f in dict.fromkeys(c.family for c in board.columns)}
    return [
        {"family": f, "columns": columns, "mean": len(board.families) > 1 and sum(c.ranked for c in columns) > 1}
        for f, columns in families.items()
    ]


def _leaders(board: Board) -> list[dict]:
    """Who is best overall (and tied with whom), then in each family, by z-score."""
    ranked = [(r.backbone, r.standing) for r in board.rows if r.standing]
    if not ranked:
        return []
    first, best = ranked[0]
    tied = [name for name, s in ranked[1:] if set(s.ties) & set(best.ties)]
    found = [{"what": "overall", "name": first, "z": best.overall, "tied": tied}]
    for family in board.families if len(board.families) > 1 else ():
        name, s = max(ranked, key=lambda r: r[1].families[family])
        found.append({"what": family, "name": name, "z": s.families[family], "tied": []})
    return found


def tags(row: Row) -> list[str]:
    """What the card says in a word each: kind of network, pretraining method, source."""
    card = row.facts.card
    pretraining = card.get("pretraining")
    method = pretraining.get("method") if isinstance(pretraining, dict) else None
    return [str(tag) for tag in (card.get("family"), method, card.get("source"), *row.facts.loading.values()) if tag]


def flat(value: object, path: str = "") -> list[tuple[str, str]]:
    """Nested JSON as (dotted key, text) pairs; what is empty is left away."""
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in flat(inner, f"{path}.{key}" if path else str(key))]
    if value is None or value in ("", [], ()):
        return []
    return [(path, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))]


def duration(seconds: float) -> str:
    """Seconds for people: 0.4 s, 12 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def signed(z: float) -> str:
    """A z-score with its sign, the minus as wide as the plus."""
    return f"{z:+.2f}".replace("-", "−")


def breakable(name: str) -> Markup:
    """A name that a narrow column may break after `/` and `_`."""
    return Markup("<wbr>").join(re.split(r"(?<=[/_])", name))


def heat(z: float | None) -> Markup:
    """The attributes of a z-score's colour: full at two standard deviations, none below a tenth of one."""
    if z is None or abs(z) < 0.1:
        return Markup("")
    return Markup(f'class="{"up" if z > 0 else "down"}" style="--heat: {min(100, round(50 * abs(z)))}%"')
