"""Semantic segmentation from two folders: images, and label images of the same names."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ...backbones.errors import BadInput
from ..task import Kind
from .card import DatasetCard
from .dataset import IGNORE, Dataset, Split
from .integrity import content_digest
from .pictures import Pictures, listed, open_picture, picture_size, pictures_in


def open_masks(card: DatasetCard, kind: Kind) -> Dataset:
    """Splits of `images` and `masks` folders matched by stem; pixel values go through `label_map`. Raises BadInput."""
    if not 0 < len(card.classes) <= IGNORE:
        raise BadInput(f"dataset {card.name}: classes: name 1 to {IGNORE} classes, in the order of their numbers")
    for value, label in card.label_map.items():
        if not (0 <= label < len(card.classes) or label == IGNORE):
            raise BadInput(
                f"dataset {card.name}: label_map.{value}: {label} is no class of the {len(card.classes)}; "
                f"give 0 to {len(card.classes) - 1}, or {IGNORE} to ignore it"
            )
    builders = {name: partial(_split, card, name) for name in card.splits}
    return Dataset(card.name, kind, card.classes, builders)


def _split(card: DatasetCard, name: str) -> Split:
    spec = card.splits[name]
    if spec.images is None or spec.masks is None:
        raise BadInput(f"dataset {card.name}: splits.{name}: a split of masks has `images` and `masks`, two folders")
    pictures, labels = pictures_in(card.root / spec.images), pictures_in(card.root / spec.masks)
    ids = [i for file in spec.lists for i in listed(card.root / file)] or sorted(pictures.keys() | labels.keys())
    for stem in ids:
        for folder, found in ((spec.images, pictures), (spec.masks, labels)):
            if stem not in found:
                raise BadInput(f"{card.root / folder}: there is no {stem!r}; images and masks are matched by stem")
    images, masks = [pictures[i] for i in ids], [labels[i] for i in ids]
    digest = content_digest(card, [*images, *masks], [ids, card.classes, sorted(card.label_map.items())])
    for picture, label in zip(images, masks, strict=True):
        if (image := picture_size(picture)) != (mask := picture_size(label)):
            raise BadInput(f"{label}: a mask of {mask} for an image of {image} pixels (H, W)")
    targets = LabelImages(masks, card.label_map, len(card.classes))
    return Split(Pictures(images), targets, digest, ids)


@dataclass(frozen=True)
class LabelImages(Sequence):
    """Label images as (H, W) uint8 classes, decoded one at a time; a value without a class raises BadInput."""

    paths: Sequence[Path]
    label_map: dict[int, int]
    classes: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index) -> np.ndarray:
        path = self.paths[index]
        image = open_picture(path)
        if len(image.getbands()) != 1 or image.mode == "F":
            raise BadInput(f"{path}: a label image has one channel of whole numbers, this is {image.mode}")
        values = np.asarray(image).astype(np.int64)
        known = self.label_map or {label: label for label in (*range(self.classes), IGNORE)}
        found, where = np.unique(values, return_inverse=True)
        if stray := [v for v in found.tolist() if v not in known]:
            raise BadInput(
                f"{path}: value {stray[0]} stands for no class; add it to `label_map` ({stray[0]}: {IGNORE})"
            )
        return np.array([known[v] for v in found.tolist()], np.uint8)[where].reshape(values.shape)
