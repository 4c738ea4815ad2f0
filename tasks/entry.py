"""An entry of the feature bank on disk: a folder of tensor files, an index of what is durable in them, and a lock.

Nothing here needs torch: `backbench cache` lists, checks and removes entries with it.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from ..backbones.reading import digest

INDEX = "index.json"
PART = ".part"  # of the name of an entry that is not finished
BLOCK = 1 << 20  # bytes that are hashed at a time


@dataclass
class File:
    """One tensor: bytes before its rows, bytes a row, and the sha256 of each shard (the head belongs to the first)."""

    head: int
    row: int
    sha256: list[str] = field(default_factory=list)

    def size(self, rows: int) -> int:
        """Bytes of the file once it holds so many rows."""
        return self.head + rows * self.row


@dataclass
class Index:
    """What is durable of an entry. `made_of` decides its bits (its digest is the key), `about` names it for people."""

    made_of: dict[str, Any]
    about: dict[str, str]
    rows: int  # of the whole entry
    step: int  # rows a shard
    files: dict[str, File] = field(default_factory=dict)

    @property
    def shards(self) -> int:
        """Of a whole entry."""
        return -(-self.rows // self.step)

    @classmethod
    def read(cls, folder: Path) -> "Index | None":
        """The index in a folder; None where there is none, or not as it was written."""
        try:
            found = json.loads((folder / INDEX).read_bytes())
            if found.pop("sha256") != digest(found):
                return None
            return cls(**found | {"files": {name: File(**file) for name, file in found["files"].items()}})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, folder: Path) -> None:
        """Puts the index in a folder, whole and durable, in the place of the one before."""
        content = asdict(self)
        part = folder / f"{INDEX}.part"
        with part.open("w", encoding="utf-8") as file:
            json.dump(content | {"sha256": digest(content)}, file, default=str)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, folder / INDEX)
        sync_folder(folder)

    def sound(self, folder: Path) -> int:
        """How many shards, from the first, hold in every file the bytes that were written; every byte is read."""
        return min((self._sound(folder / f"{name}.safetensors", file) for name, file in self.files.items()), default=0)

    def whole(self, folder: Path) -> bool:
        """Whether the entry is finished, no file is longer than it should be, and every byte is as it was written."""
        try:
            sizes = [(folder / f"{n}.safetensors").stat().st_size == f.size(self.rows) for n, f in self.files.items()]
        except OSError:
            return False
        return bool(sizes) and all(sizes) and self.sound(folder) == self.shards

    def _sound(self, path: Path, file: File) -> int:
        try:
            with path.open("rb", buffering=0) as source:
                for shard, sha in enumerate(file.sha256):
                    first = file.size(shard * self.step) if shard else 0
                    if _sha256(source, file.size(min((shard + 1) * self.step, self.rows)) - first) != sha:
                        return shard
        except OSError:
            return 0
        return len(file.sha256)


@dataclass(frozen=True)
class Entry:
    """An entry's folder `<key[:2]>/<key>`, or the same with `.part` while it is not finished."""

    place: Path

    @classmethod
    def all(cls, bank: Path) -> Iterator["Entry"]:
        """Every entry of a bank, finished or not."""
        for place in sorted(bank.glob("[0-9a-f][0-9a-f]/*")):
            if place.is_dir():
                yield cls(place)

    @property
    def key(self) -> str:
        """The digest of all that the entry was made of."""
        return self.place.name.removesuffix(PART)

    @property
    def finished(self) -> bool:
        """Whether it was moved into its place."""
        return not self.place.name.endswith(PART)

    @property
    def size(self) -> int:
        """Bytes that it takes on disk; 0 once it is gone."""
        return sum(status.st_size for path in self.place.glob("*") if (status := _status(path)))

    @property
    def used(self) -> float:
        """When it was last read or written, in seconds since 1970; 0 once it is gone."""
        status = _status(self.place / INDEX) or _status(self.place)
        return status.st_mtime if status else 0.0

    @property
    def lock(self) -> FileLock:
        """Held by whoever makes or removes the entry."""
        return FileLock(self.place.with_name(f"{self.key}.lock"))

    def hold(self) -> IO[bytes]:
        """Marks the entry as used now, and as in use until the file that comes back is closed. Raises OSError."""
        file = (self.place / INDEX).open("rb")
        fcntl.flock(file, fcntl.LOCK_SH)
        os.utime(self.place / INDEX)
        return file

    def remove(self) -> bool:
        """Removes the entry, unless somebody makes or reads it: then False."""
        try:
            with self.lock.acquire(blocking=False), self._unread():
                (self.place / INDEX).unlink(missing_ok=True)  # what is left by a kill from here on is no entry
                shutil.rmtree(self.place, ignore_errors=True)
        except (Timeout, BlockingIOError):
            return False
        return True

    @contextmanager
    def _unread(self) -> Iterator[None]:
        try:
            file = (self.place / INDEX).open("rb")
        except OSError:
            yield
            return
        with file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield


def prune(
    bank: Path, *, to: int | None = None, before: float | None = None, backbone: str | None = None
) -> tuple[list[Entry], int]:
    """Removes entries, least recently used first: until all take `to` bytes, or of those last used `before` a time.

    With `backbone` only its own. Gives those removed and how many were spared as they are in use.
    """
    entries = sorted(Entry.all(bank), key=lambda entry: entry.used)
    left = sum(entry.size for entry in entries)
    removed, spared = [], 0
    for entry in entries:
        if backbone is not None and ((index := Index.read(entry.place)) is None or index.about["backbone"] != backbone):
            continue
        asked = (to is None and before is None) or (before is not None and entry.used < before)
        if not asked and (to is None or left <= to):
            continue
        size = entry.size
        if entry.remove():
            removed.append(entry)
            left -= size
        else:
            spared += 1
    return removed, spared


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None  # removed meanwhile


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(source: Any, length: int) -> str | None:
    """Of the next `length` bytes; None where there are fewer."""
    sha, block = hashlib.sha256(), memoryview(bytearray(min(BLOCK, max(1, length))))
    while length:
        if not (got := source.readinto(block[: min(len(block), length)])):
            return None
        sha.update(block[:got])
        length -= got
    return sha.hexdigest()
