"""Image files read to their end, once ever: each decoded and digested; missing and broken ones counted and named."""

import hashlib
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from PIL import Image

from ..home import where_home
from .card import DatasetCard
from .faults import Faults, Id

CHUNK = 512  # images after which what was read is kept
SHOWN = 2000  # images to read from which on a terminal sees how far it is

Stamp = tuple[str, int, int]
"""A file's absolute path, size in bytes and date in nanoseconds."""


def content_digest(
    faults: Faults, ids: Sequence[Id], paths: Sequence[Path], says: Any, whole: Sequence[Path] = ()
) -> str:
    """sha256 over `says` (JSON), every byte of the images in their order, and of the `whole` other files.

    An image is read and decoded again only when its size or date changed (`files.db` in home), so that a million of
    them take long once. Missing and broken ones are `faults` of the images `ids`. Raises BadInput.
    """
    sha = hashlib.sha256(json.dumps(says, ensure_ascii=True).encode())
    for path in whole:
        with path.open("rb") as file:
            sha.update(hashlib.file_digest(file, "sha256").digest())
    digests = recalled(faults.card, "file", _read, paths)
    if bad := [(id, path) for id, path, digest in zip(ids, paths, digests, strict=True) if digest is None]:
        gone = {path for _, path in bad if not path.exists()}
        lines = {("image", id): f"{path}: image {id} is {'missing' if path in gone else 'broken'}" for id, path in bad}
        faults.add(lines, _complaint(faults, [path for _, path in bad], gone, len(paths)) if faults.strict else "")
    for digest in digests:
        sha.update(digest or b"")
    return sha.hexdigest()


def recalled(
    card: DatasetCard, table: str, read: Callable[[Path], bytes | None], paths: Sequence[Path]
) -> list[bytes | None]:
    """What `read` finds in each file: remembered in a table of `files.db` where it did not change, else read now."""
    stamps = [_stamp(path) for path in paths]
    with closing(_memory(where_home(card.home), table)) as known:
        found = [_recall(known, table, stamp) for stamp in stamps]
        unread = [i for i, stamp in enumerate(stamps) if stamp and found[i] is None]
        with ThreadPoolExecutor() as pool:
            for start in _watched(card, range(0, len(unread), CHUNK), len(unread)):
                rows = unread[start : start + CHUNK]
                for row, told in zip(rows, pool.map(read, (paths[i] for i in rows)), strict=True):
                    found[row] = told
                # What does not decode is not kept: it is looked at again once it was mended.
                fresh = [(*stamps[i], found[i]) for i in rows if found[i] is not None]  # pyright: ignore
                with known:
                    known.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?)", fresh)
    return found


def _stamp(path: Path) -> Stamp | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return os.path.abspath(path), stat.st_size, stat.st_mtime_ns


def _memory(home: Path, table: str) -> sqlite3.Connection:
    """The table of what was read before; one in memory where home cannot be written or the file is something else."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        return _with(sqlite3.connect(home / "files.db", timeout=60), table)
    except (OSError, sqlite3.Error):
        return _with(sqlite3.connect(":memory:"), table)


def _with(memory: sqlite3.Connection, table: str) -> sqlite3.Connection:
    memory.execute(f"CREATE TABLE IF NOT EXISTS {table} (path PRIMARY KEY, size, date, found) WITHOUT ROWID")
    return memory


def _recall(memory: sqlite3.Connection, table: str, stamp: Stamp | None) -> bytes | None:
    if stamp is None:
        return None
    row = memory.execute(f"SELECT * FROM {table} WHERE path = ? AND size = ? AND date = ?", stamp).fetchone()
    return row[-1] if row else None


def _read(path: Path) -> bytes | None:
    """sha256 of a file's content, or None if it does not decode to the end as an image."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (1, 1))  # a JPEG decodes several times faster at an eighth of its size
            image.load()
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _watched(card: DatasetCard, chunks: range, images: int):
    if images < SHOWN or not sys.stderr.isatty():
        return chunks
    from rich.console import Console
    from rich.progress import track

    what = f"reading {images:,} images of {card.name}, once"
    return track(chunks, what, console=Console(stderr=True), transient=True)


def _complaint(faults: Faults, bad: Sequence[Path], gone: set[Path], count: int) -> str:
    missing = sum(path in gone for path in bad)
    what = {0: "broken", len(bad): "missing"}.get(missing, f"missing ({missing}) or broken ({len(bad) - missing})")
    mend = faults.card.mend if missing == len(bad) else "mend or remove"
    some = faults.named([str(path) for path in bad])
    return f"dataset {faults.card.name}: {len(bad)} of {count} images are {what}: {some}; {mend}"
