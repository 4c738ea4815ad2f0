"""Images and labels in NumPy archives (.npz), one a split; nothing pickled is read."""

import hashlib
import zipfile
from functools import partial
from pathlib import Path

import numpy as np

from ...backbones.errors import BadInput
from ..task import Kind
from .card import DatasetCard
from .dataset import Dataset, Split

COLUMNS = {"image": "images", "label": "labels"}  # unless the card's `columns` say other names


def open_arrays(card: DatasetCard, kind: Kind) -> Dataset:
    """The data set of a card whose splits are .npz files: images (n, H, W[, 3]) uint8, labels (n,) whole numbers."""
    files = {name: card.images(name) for name in card.splits}
    if not card.classes:
        raise BadInput(f"dataset {card.name}: classes: list the names of the classes, label 0 first")
    builders = {name: partial(_split, card, path) for name, path in files.items()}
    return Dataset(card.name, kind, card.classes, builders)


def _split(card: DatasetCard, path: Path) -> Split:
    images, labels = (_column(card, path, what) for what in ("image", "label"))
    if images.ndim not in (3, 4) or images.dtype != np.uint8 or (images.ndim == 4 and images.shape[-1] != 3):
        raise BadInput(f"{path}: images are (n, H, W) or (n, H, W, 3) uint8, got {images.shape} {images.dtype}")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise BadInput(f"{path}: labels are ({len(images)},) whole numbers, got {labels.shape} {labels.dtype}")
    if len(labels) and not -1 <= labels.min() <= labels.max() < len(card.classes):
        raise BadInput(f"{path}: labels are 0…{len(card.classes) - 1}, got {labels.min()}…{labels.max()}")
    sha = hashlib.sha256(f"{images.shape}".encode())
    sha.update(np.ascontiguousarray(images).data)
    labels = labels.astype(np.int64)
    sha.update(labels.data)
    return Split(images, labels, sha.hexdigest(), [str(i) for i in range(len(images))])


def _column(card: DatasetCard, path: Path, what: str) -> np.ndarray:
    name = card.columns.get(what, COLUMNS[what])
    try:
        with np.load(path, allow_pickle=False) as archive:
            if name not in archive:
                raise BadInput(f"{path}: no array {name!r}, there are: {', '.join(archive.files)}; see `columns`")
            return archive[name]
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path}: not an .npz archive of plain arrays: {error}") from None
