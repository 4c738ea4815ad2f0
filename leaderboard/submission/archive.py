"""Opening what a stranger sends, a folder or a zip: nothing is read before its name and size are known to be fit."""

import re
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...backbones.errors import BadInput

NAMES = {  # what a bundle may hold, and how many bytes a file of the kind may have
    r"manifest\.json": 1 << 20,
    r"environment\.json": 1 << 16,
    r"backbone\.yaml": 1 << 18,
    r"datasets/[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.yaml": 1 << 18,
    r"results/[0-9a-f]{16}\.json": 1 << 20,
    r"predictions/[0-9a-f]{16}\.parquet": 256 << 20,
    r"weights/[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.safetensors": 4 << 30,
}
FOLDERS = ("datasets", "results", "predictions", "weights")
ARCHIVES = (".zip", ".gz", ".bz2", ".xz", ".zst", ".7z", ".tar", ".rar", ".tgz")
SQUEEZED = 1 << 20  # bytes from which a file must not have been squeezed to less than a part in RATIO
RATIO = 100
DIRECTORY = 1 << 20  # bytes that a zip's own listing may take


@dataclass(frozen=True)
class Limits:
    """Most bytes that a bundle may have, as it comes and unpacked, and most files."""

    packed: int = 500 << 20
    unpacked: int = 900 << 20
    files: int = 2000


LIMITS = Limits()


@dataclass(frozen=True)
class Opened:
    """A bundle on disk: `root`, and the size in bytes of each of its files, all of known kinds."""

    root: Path
    sizes: dict[str, int]

    def read(self, name: str) -> bytes:
        """The bytes of a small file."""
        return (self.root / name).read_bytes()


@contextmanager
def opened(bundle: Path, limits: Limits = LIMITS, scratch: Path | None = None) -> Iterator[Opened]:
    """The bundle in a folder or a zip file, for as long as the block lasts. Raises BadInput, naming the file inside.

    A zip is unpacked into a folder of its own below `scratch`, and what was unpacked is removed afterwards.
    """
    if bundle.is_dir():
        yield Opened(bundle, _of_folder(bundle, limits))
        return
    if not bundle.is_file():
        raise BadInput(f"{bundle}: no such file or folder; give a bundle, as `backbench submit` writes it")
    if (size := bundle.stat().st_size) > limits.packed:
        raise BadInput(f"{bundle.name}: {_mb(size)}, a bundle may have {_mb(limits.packed)}; leave weights out")
    with tempfile.TemporaryDirectory(dir=scratch, prefix="bundle-") as folder:
        yield Opened(Path(folder), _unpacked(bundle, Path(folder), limits))


def _of_folder(folder: Path, limits: Limits) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode) and name in FOLDERS:
            continue
        _check_kind(name, mode)
        sizes[_checked(name)] = path.stat().st_size
        _check_size(name, sizes[name])
        _check_all(sizes, limits)
    return sizes


def _unpacked(bundle: Path, folder: Path, limits: Limits) -> dict[str, int]:
    _check_directory(bundle, limits)
    try:
        with zipfile.ZipFile(bundle) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.rstrip("/") not in FOLDERS]
            sizes: dict[str, int] = {}
            for entry in entries:
                _check_entry(entry, sizes)
                sizes[entry.filename] = entry.file_size
                _check_all(sizes, limits)
            for entry in entries:
                _extract(archive, entry, folder)
    except BadInput:
        raise
    # zipfile tells of harm by many kinds of error, by its own and by those of what it calls
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, struct.error, RuntimeError, EOFError) as error:
        raise BadInput(f"{bundle.name}: not a zip file that can be unpacked: {error}") from None
    return sizes


def _check_directory(bundle: Path, limits: Limits) -> None:
    """The zip's own listing is read whole by any reader, so its size is looked at before."""
    with bundle.open("rb") as file:
        file.seek(max(0, bundle.stat().st_size - (1 << 16) - 22))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise BadInput(f"{bundle.name}: not a zip file, or only a part of one; send it again")
    count, size = struct.unpack("<HI", tail[at + 10 : at + 16])
    if count > limits.files or size > DIRECTORY:
        raise BadInput(f"{bundle.name}: it lists {count} files, a bundle has {limits.files} at most")


def _check_entry(entry: zipfile.ZipInfo, seen: dict[str, int]) -> None:
    # What zipfile makes of a name is not what is in the file: it cuts at a zero byte and turns separators.
    name = entry.orig_filename
    if entry.flag_bits & 1:
        raise BadInput(f"{_shown(name)}: is encrypted; a bundle is open to read")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadInput(f"{_shown(name)}: is compressed by method {entry.compress_type}; use deflate")
    _check_kind(name, entry.external_attr >> 16)
    if name in seen:
        raise BadInput(f"{_shown(name)}: is in the archive twice")
    _check_size(_checked(name), entry.file_size)
    if entry.file_size > SQUEEZED and entry.file_size > RATIO * max(1, entry.compress_size):
        raise BadInput(
            f"{name}: unpacks to {_mb(entry.file_size)} from {entry.compress_size} bytes, more than {RATIO} to 1"
        )


def _check_kind(name: str, mode: int) -> None:
    if stat.S_IFMT(mode) and not stat.S_ISREG(mode):
        what = "a link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "a special file"
        raise BadInput(f"{_shown(name)}: is {what}; a bundle holds plain files")


def _checked(name: str) -> str:
    """The name, if a bundle has such a file."""
    parts = re.split(r"[/\\]", name)
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        raise BadInput(f"{_shown(name)}: is an absolute path; names are relative to the bundle")
    if ".." in parts:
        raise BadInput(f"{_shown(name)}: leads out of the bundle")
    if any(re.fullmatch(pattern, name) for pattern in NAMES):
        return name
    if any(re.fullmatch(pattern, name, re.IGNORECASE) for pattern in NAMES):
        raise BadInput(f"{_shown(name)}: names are in lower case, where two must not differ by case alone")
    if name.lower().endswith(ARCHIVES):
        raise BadInput(f"{_shown(name)}: is an archive within the archive")
    raise BadInput(f"{_shown(name)}: no such file is part of a bundle (manifest, cards, results, predictions)")


def _check_size(name: str, size: int) -> None:
    largest = next(most for pattern, most in NAMES.items() if re.fullmatch(pattern, name))
    if size > largest:
        raise BadInput(f"{name}: {_mb(size)}, such a file may have {_mb(largest)}")


def _check_all(sizes: dict[str, int], limits: Limits) -> None:
    if len(sizes) > limits.files:
        raise BadInput(f"{list(sizes)[-1]}: is file number {len(sizes)}, a bundle has {limits.files} at most")
    if (total := sum(sizes.values())) > limits.unpacked:
        raise BadInput(f"{list(sizes)[-1]}: with it the bundle has {_mb(total)}, it may have {_mb(limits.unpacked)}")
    clash = {name.lower() for name in sizes}
    if len(clash) < len(sizes):
        raise BadInput(f"{list(sizes)[-1]}: differs from another name by case alone")


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    """Writes one file; zipfile stops at the size that was declared and compares the checksum."""
    target = folder / entry.filename
    target.parent.mkdir(exist_ok=True)
    try:
        with archive.open(entry) as source, target.open("xb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise BadInput(f"{entry.filename}: cannot be unpacked: {error}") from None
    if target.stat().st_size != entry.file_size:
        raise BadInput(f"{entry.filename}: unpacks to {target.stat().st_size} bytes, {entry.file_size} were declared")


def _mb(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _shown(name: str) -> str:
    """A stranger's text in a message: one line, not long, nothing that a terminal obeys."""
    return shown(name, 120)


def shown(text: object, most: int = 80) -> str:
    """A stranger's text, fit to be printed: one line of printable characters, at most `most` of them."""
    said = str(text)
    plain = said if said.isprintable() else ascii(said)[1:-1]
    return plain if len(plain) <= most else plain[: most - 1] + "…"
