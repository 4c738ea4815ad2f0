"""Class folders: `<split>/<class>/<image>`, the layout of ImageNet and of torchvision's ImageFolder."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ...backbones.errors import BadInput
from ..task import Kind
from .card import DatasetCard
from .dataset import Dataset, Split
from .pictures import SUFFIXES, Pictures

NAMED = 3  # broken images that a message names


def open_imagefolder(card: DatasetCard, kind: Kind) -> Dataset:
    """The data set of a card whose splits are folders of class folders; classes sorted, or as the card lists them."""
    folders = {name: card.images(name) for name in card.splits}
    if not folders:
        raise BadInput(f"dataset {card.name}: splits: say where the images are, such as `splits: {{train: train}}`")
    classes = card.classes or tuple(sorted({name for folder in folders.values() for name in _subfolders(folder)}))
    if not classes:
        raise BadInput(f"dataset {card.name}: {next(iter(folders.values()))} has no class folders with images in them")
    builders = {name: partial(_split, card, folder, classes) for name, folder in folders.items()}
    return Dataset(card.name, kind, classes, builders, prompts=card.prompts)


def _subfolders(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]


def _split(card: DatasetCard, folder: Path, classes: Sequence[str]) -> Split:
    if strangers := sorted(set(_subfolders(folder)) - set(classes)):
        raise BadInput(f"dataset {card.name}: {folder / strangers[0]} is none of the card's classes; add or move it")
    paths, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise BadInput(f"dataset {card.name}: {folder} has no images ({', '.join(sorted(SUFFIXES))}) in class folders")
    ids = [p.relative_to(folder).as_posix() for p in paths]
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(_digest, paths))
    if broken := [p for p, digest in zip(paths, digests, strict=True) if digest is None]:
        some = ", ".join(str(p) for p in broken[:NAMED]) + (", …" if len(broken) > NAMED else "")
        raise BadInput(f"dataset {card.name}: {len(broken)} of {len(paths)} images are broken: {some}; mend or remove")
    content = "\n".join(f"{i} {label} {d}" for i, label, d in zip(ids, labels, digests, strict=True))
    return Split(Pictures(paths), np.array(labels), hashlib.sha256(content.encode()).hexdigest(), ids)


def _digest(path: Path) -> str | None:
    """sha256 of a file's content, or None if it does not decode to the end as an image."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (1, 1))  # a JPEG decodes several times faster at an eighth of its size
            image.load()
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
