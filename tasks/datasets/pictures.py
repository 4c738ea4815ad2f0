"""Image files of a data set: found by name, decoded when asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ...backbones.errors import BadInput
from .dataset import Rows

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}


@dataclass(frozen=True)
class Pictures(Sequence):
    """Files as RGB images, decoded one at a time; a broken one raises BadInput with its path."""

    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index) -> Image.Image:
        return open_picture(self.paths[index]).convert("RGB")

    def encoded(self, index) -> bytes:
        """The file as it is, for decoders that take bytes. Raises OSError."""
        return self.paths[index].read_bytes()


def encoded(images: Any, index: int) -> bytes | None:
    """An image's file as bytes where the sequence offers `encoded(index)`, as files and tables can, else None."""
    while isinstance(images, Rows):
        images, index = images.of, int(images.rows[index])
    return images.encoded(index) if hasattr(images, "encoded") else None


def open_picture(path: Path) -> Image.Image:
    """A decoded image, in the mode of its file. Raises BadInput."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise BadInput(f"{path}: no such image file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"{path}: cannot be decoded as an image: {error}") from None


def picture_size(path: Path) -> tuple[int, int]:
    """(H, W) as the file's header has it, pixels not read. Raises BadInput."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except FileNotFoundError:
        raise BadInput(f"{path}: no such image file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"{path}: cannot be read as an image: {error}") from None


def pictures_in(folder: Path) -> dict[str, Path]:
    """Image files below a folder by path without suffix, sorted. Raises BadInput for no folder, no image, one twice."""
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; correct `path` or `images` in the card's splits")
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise BadInput(f"{folder}: {found[stem].name} and {path.name} have one stem; keep one of them")
        found[stem] = path
    if not found:
        raise BadInput(f"{folder}: holds no image; files end in {', '.join(sorted(SUFFIXES))}")
    return found


def listed(path: Path) -> list[str]:
    """The first word of each line: image ids, as VOC lists them. Raises BadInput for none, or one twice."""
    try:
        words = [line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read as a list of images: {error}") from None
    if not words:
        raise BadInput(f"{path}: lists no image")
    if len(set(words)) < len(words):
        twice = next(w for i, w in enumerate(words) if w in words[:i])
        raise BadInput(f"{path}: {twice!r} is listed twice")
    return words
