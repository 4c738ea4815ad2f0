"""Semantic segmentation from two folders: images, and label images of the same names."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ...backbones.errors import BadInput
from ..task import Kind
from .card import DatasetCard
from .dataset import IGNORE, Dataset, Split
from .faults import Faults
from .integrity import content_digest, recalled
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
    listed_ids = [i for file in spec.lists for i in listed(card.root / file)]
    faults, ids = Faults(card, name), list[str]()
    for stem in listed_ids or sorted(pictures.keys() | labels.keys()):
        with faults.of("image", stem):
            for folder, found in ((spec.images, pictures), (spec.masks, labels)):
                if stem not in found:
                    raise BadInput(f"{card.root / folder}: there is no {stem!r}; images and masks are matched by stem")
            ids.append(stem)
    images, masks = [pictures[i] for i in ids], [labels[i] for i in ids]
    says = [ids, card.classes, sorted(card.label_map.items())]
    digest = content_digest(faults, [*ids, *ids], [*images, *masks], says)
    targets = LabelImages(masks, card.label_map, len(card.classes))
    values = recalled(card, "label", _values, masks)
    for row, (stem, picture, label) in enumerate(zip(ids, images, masks, strict=True)):
        if not faults.spoiled(stem):
            with faults.of("image", stem):
                if (image := picture_size(picture)) != (mask := picture_size(label)):
                    raise BadInput(f"{label}: a mask of {mask} for an image of {image} pixels (H, W)")
                told = values[row]
                targets.check(label, json.loads(told) if told else np.unique(_plain(label)).tolist())
    return faults.spare(Split(Pictures(images), targets, digest, ids))


def _values(path: Path) -> bytes | None:
    """Which values a label image has, as JSON."""
    try:
        return json.dumps(np.unique(_plain(path)).tolist()).encode()
    except BadInput:
        return None


def _plain(path: Path) -> np.ndarray:
    """The values of a label image, (H, W) int64. Raises BadInput."""
    image = open_picture(path)
    if len(image.getbands()) != 1 or image.mode == "F":
        raise BadInput(f"{path}: a label image has one channel of whole numbers, this is {image.mode}")
    return np.asarray(image).astype(np.int64)


@dataclass(frozen=True)
class LabelImages(Sequence):
    """Label images as (H, W) uint8 classes, decoded one at a time; a value without a class raises BadInput."""

    paths: Sequence[Path]
    label_map: dict[int, int]
    classes: int

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index) -> np.ndarray:
        values = _plain(self.paths[index])
        found, where = np.unique(values, return_inverse=True)
        known = self.check(self.paths[index], found.tolist())
        return np.array([known[v] for v in found.tolist()], np.uint8)[where].reshape(values.shape)

    def check(self, path: Path, found: Sequence[int]) -> dict[int, int]:
        """The class of each value, of a file that has the `found` ones. Raises BadInput for one without a class."""
        known = self.label_map or {label: label for label in (*range(self.classes), IGNORE)}
        if stray := [value for value in found if value not in known]:
            raise BadInput(
                f"{path}: value {stray[0]} stands for no class; add it to `label_map` ({stray[0]}: {IGNORE})"
            )
        return known
