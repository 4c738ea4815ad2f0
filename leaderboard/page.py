"""The boards as one static folder: opens from disk, needs no network, and a server serves it as it is."""

import json
import re
import shutil
import sys
from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from filelock import FileLock
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..backbones.errors import BadInput
from .board import Board
from .columnar import columnar, runs_of
from .export import as_data
from .published import Source
from .ranking import DRAWS
from .result import Result

ASSETS = Path(__file__).parent / "page"
# One scope, in this order: each file is one idea and uses what stands before it.
SCRIPTS = (
    *(
        "dom",
        "format",
        "state",
        "data",
        "filters",
        "cells",
        "table",
        "paper",
        "plots",
        "scatter",
        "heatmap",
        "correlation",
    ),
    *("radar", "row", "compare", "head", "theme", "main"),
)
LIBRARIES = ("tabulator.min.js", "plotly.min.js")
MARK = '<meta name="generator" content="backbench">'  # by which a folder is known to be a page, and may be replaced
BATCH = 1000  # results that are in memory at once

Fetch = Callable[[Sequence[str]], list[Result]]


def write_page(boards: Sequence[Board], folder: Path, fetch: Fetch, sources: Iterable[Source] = ()) -> Path:
    """Writes the page of `boards`, the first of which is shown at first, whole or not at all; its `index.html`.

    `fetch` gives full results by id, for the pages of backbones; `sources` say where published boards are from. The
    same boards give the same bytes: no clock is read. Raises BadInput for a folder that holds something else.
    """
    with _replaced(folder) as part:
        places, newest = _write_records(boards, part / "rows", fetch)
        known = {source.name: source for source in sources}
        listing = []
        (part / "boards").mkdir()
        for number, board in enumerate(boards):
            data = columnar(board, known.get(board.source), places, newest[number])
            (part / "boards" / f"{number}.js").write_text(f"backbench.board({_json(data)});\n", encoding="utf-8")
            (part / "boards" / f"{number}.json").write_text(_json(as_data(board)), encoding="utf-8")
            listing.append({"key": _key(board, boards), "title": board.title, "published": bool(board.source)})
        for name in LIBRARIES:
            shutil.copyfile(ASSETS / "vendor" / name, part / name)
        for licence in (ASSETS / "vendor").glob("LICENSE.*"):
            shutil.copyfile(licence, part / licence.name)
        (part / "app.js").write_text(_script(), encoding="utf-8")
        (part / "index.html").write_text(_index(listing), encoding="utf-8")
    return folder / "index.html"


def _index(listing: list[dict[str, Any]]) -> str:
    environment = Environment(loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined)
    loader = (ASSETS / "loader.js").read_text(encoding="utf-8")
    style = [(ASSETS / name).read_text(encoding="utf-8") for name in ("vendor/tabulator.min.css", "style.css")]
    return environment.get_template("index.html").render(
        mark=Markup(MARK),
        style=Markup("\n".join(style)),
        loader=Markup(loader),
        # Only the loader may run, and what it loads: whatever a name or a card smuggles in is neither.
        loader_hash=b64encode(sha256(loader.encode()).digest()).decode(),
        # Between script tags `<` could end them.
        about=Markup(_json({"boards": listing, "draws": DRAWS}).replace("<", "\\u003c")),
    )


def _script() -> str:
    parts = [(ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"


def _write_records(
    boards: Sequence[Board], folder: Path, fetch: Fetch
) -> tuple[dict[str, tuple[int, int]], list[str | None]]:
    """A file of results for each backbone that was run, and the index of ids; where each result went (number of the
    file, index in it), and when each board's newest was made."""
    folder.mkdir()
    wanted: dict[str, dict[str, list[int]]] = defaultdict(dict)  # of a backbone its results, of these their boards
    for number, board in enumerate(boards):
        for row in () if board.source else board.rows:
            for id in runs_of(board, row):
                wanted[row.backbone].setdefault(id, []).append(number)
    places: dict[str, tuple[int, int]] = {}
    newest: list[str | None] = [None] * len(boards)
    number_of = {name: number for number, name in enumerate(sorted(wanted))}
    for names in _batches(list(number_of), lambda name: len(wanted[name])):
        found = {r.id: r for r in fetch([id for name in names for id in wanted[name]])}
        for name in names:
            records = [found[id] for id in wanted[name]]
            text = ",".join(r.to_json() for r in records)
            (folder / f"{number_of[name]}.js").write_text(f"backbench.row([{text}]);\n", encoding="utf-8")
            places |= {r.id: (number_of[name], place) for place, r in enumerate(records)}
            for r in records:
                for on in wanted[name][r.id]:
                    newest[on] = max(newest[on] or "", r.created.isoformat())
    (folder / "index.json").write_text(_json({id: number for id, (number, _) in places.items()}), encoding="utf-8")
    return places, newest


def _batches(names: list[str], size: Callable[[str], int]) -> Iterable[list[str]]:
    """Names in groups of about BATCH results, with a progress bar where somebody is looking."""
    from rich.console import Console
    from rich.progress import track

    groups: list[list[str]] = [[]]
    held = 0
    for name in names:
        if held + size(name) > BATCH and groups[-1]:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size(name)
    quiet = not sys.stderr.isatty() or len(groups) < 3
    return track(groups, "writing the page", console=Console(stderr=True), transient=True, disable=quiet)


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` when all went well."""
    if folder.exists() and not _is_page(folder):
        raise BadInput(f"{folder}: holds something else than a page of ours; name an empty or a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        part.chmod(0o755)
        new, old = part / "new", part / "old"
        new.mkdir()
        yield new
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if folder.exists():
                folder.replace(old)
            new.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _is_page(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    index = folder / "index.html"
    return not any(folder.iterdir()) or (
        index.is_file() and MARK in index.read_text(encoding="utf-8", errors="replace")
    )


def _key(board: Board, boards: Sequence[Board]) -> str:
    """What an address calls a board: its title, or its table's name, in letters that need no escape."""
    keys = [re.sub(r"[^a-z0-9.]+", "-", (b.source or b.title).lower()).strip("-") or "board" for b in boards]
    number = next(i for i, b in enumerate(boards) if b is board)
    return keys[number] if keys.index(keys[number]) == number else f"{keys[number]}-{number}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
