"""Image files read to their end, once ever: each decoded and digested; missing and broken ones counted and named."""

import hashlib
import json
import os
import sqlite3
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from PIL import Image

from ...backbones.errors import BadInput
from ..home import where_home
from .card import DatasetCard

NAMED = 3  # images that a message names; a file has all of them
CHUNK = 512  # images after which what was read is kept
SHOWN = 2000  # images to read from which on a terminal sees how far it is

Stamp = tuple[str, int, int]
"""A file's absolute path, size in bytes and date in nanoseconds."""


def content_digest(card: DatasetCard, paths: Sequence[Path], says: Any, whole: Sequence[Path] = ()) -> str:
    """sha256 over `says` (JSON), every byte of the images in their order, and of the `whole` other files.

    An image is read and decoded again only when its size or date changed (`files.db` in home), so that a million of
    them take long once. Raises BadInput, naming what is missing or broken.
    """
    sha = hashlib.sha256(json.dumps(says, ensure_ascii=True).encode())
    for path in whole:
        with path.open("rb") as file:
            sha.update(hashlib.file_digest(file, "sha256").digest())
    for digest in _digests(card, paths):
        sha.update(digest)
    return sha.hexdigest()


def _digests(card: DatasetCard, paths: Sequence[Path]) -> list[bytes]:
    """sha256 of each image, known or read now."""
    stamps = [_stamp(path) for path in paths]
    with closing(_memory(where_home(card.home))) as known:
        found = [_recall(known, stamp) for stamp in stamps]
        unread = [i for i, stamp in enumerate(stamps) if stamp and found[i] is None]
        with ThreadPoolExecutor() as pool:
            for start in _watched(card, range(0, len(unread), CHUNK), len(unread)):
                rows = unread[start : start + CHUNK]
                for row, digest in zip(rows, pool.map(_read, (paths[i] for i in rows)), strict=True):
                    found[row] = digest
                # What does not decode is not kept: it is looked at again once it was mended.
                fresh = [(*stamps[i], found[i]) for i in rows if found[i] is not None]  # pyright: ignore
                with known:
                    known.executemany("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?)", fresh)
    if bad := [path for path, digest in zip(paths, found, strict=True) if digest is None]:
        raise BadInput(_complaint(card, bad, len(paths)))
    return [digest for digest in found if digest]


def _stamp(path: Path) -> Stamp | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return os.path.abspath(path), stat.st_size, stat.st_mtime_ns


def _memory(home: Path) -> sqlite3.Connection:
    """The table of what was read before; one in memory where home cannot be written or the file is something else."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        return _table(sqlite3.connect(home / "files.db", timeout=60))
    except (OSError, sqlite3.Error):
        return _table(sqlite3.connect(":memory:"))


def _table(memory: sqlite3.Connection) -> sqlite3.Connection:
    memory.execute("CREATE TABLE IF NOT EXISTS file (path PRIMARY KEY, size, date, sha256) WITHOUT ROWID")
    return memory


def _recall(memory: sqlite3.Connection, stamp: Stamp | None) -> bytes | None:
    if stamp is None:
        return None
    row = memory.execute("SELECT sha256 FROM file WHERE path = ? AND size = ? AND date = ?", stamp).fetchone()
    return row[0] if row else None


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


def _complaint(card: DatasetCard, bad: Sequence[Path], count: int) -> str:
    """The one line that names the first few, and the file that names all."""
    gone = sum(not path.exists() for path in bad)
    what = {0: "broken", len(bad): "missing"}.get(gone, f"missing ({gone}) or broken ({len(bad) - gone})")
    some = ", ".join(map(str, bad[:NAMED]))
    mend = card.mend if gone == len(bad) else "mend or remove"
    if len(bad) > NAMED:
        record = where_home(card.home) / "broken" / f"{card.name.replace('/', '-') or 'images'}.txt"
        try:
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text("\n".join(map(str, bad)) + "\n", encoding="utf-8")
            some += f", … (all are named in {record})"
        except OSError:
            some += ", …"
    return f"dataset {card.name}: {len(bad)} of {count} images are {what}: {some}; {mend}"
