"""Cityscapes: a class for each pixel, or instances of the eight that can be counted (Cordts et al., arXiv 1604.01685);
and ACDC, which has its classes in other weather (Sakaridis et al., arXiv 2104.13395).

Instances are read from the published instance images, as in what others report on them: masks and boxes hold what is
seen of an object, and what its authors drew as one group of many (`cargroup`) is a crowd.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.ndimage import find_objects

from ...backbones.errors import BadInput
from ..task import Kind
from .card import DatasetCard
from .dataset import IGNORE, Dataset, Objects, Split
from .faults import Faults
from .integrity import content_digest
from .masks import LabelImages
from .pictures import Pictures, open_picture, picture_size, pictures_in

NAMES = {  # number in label images → class, in the order of the benchmark; other numbers are not evaluated
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
FIRST_THING, LAST = 24, 33  # among the numbers of all classes
THINGS = [number for number in NAMES if number >= FIRST_THING]
SHARE = 1000  # in instance images: the number of the class, times this, plus that of the object; the bare class a group
STYLES = {"_leftImg8bit": "_gtFine", "_rgb_anon": "_gt"}  # end of an image's name → of its labels'
LABELS = {"segmentation": "_labelIds.png", "detection": "_instanceIds.png"}


def open_cityscapes(card: DatasetCard, kind: Kind) -> Dataset:
    """Splits of two folders with a folder a city (of ACDC, a recording) each: `images`, and `annotations`.

    Images of one folder are a group. Raises BadInput naming the file.
    """
    if card.classes:
        raise BadInput(f"dataset {card.name}: classes: Cityscapes has its own; a `combined` card may choose among them")
    classes = NAMES.values() if kind == "segmentation" else [NAMES[number] for number in THINGS]
    return Dataset(card.name, kind, tuple(classes), {name: partial(_split, card, kind, name) for name in card.splits})


def _split(card: DatasetCard, kind: Kind, name: str) -> Split:
    folder, told = card.images(name), card.at(name, "annotations")
    pictures = pictures_in(folder)
    ids, labels = [], []
    for stem, path in pictures.items():
        style = next((end for end in STYLES if stem.endswith(end)), None)
        if style is None or "/" not in stem:
            raise BadInput(f"{path}: images of Cityscapes are CITY/CITY_…{next(iter(STYLES))}.png below {folder}")
        ids.append(stem.removesuffix(style))
        labels.append(told / f"{ids[-1]}{STYLES[style]}{LABELS[kind]}")
    images = list(pictures.values())
    faults = Faults(card, name)
    digest = content_digest(faults, [*ids, *ids], [*images, *labels], [kind, ids])
    for place, image, label in zip(ids, images, labels, strict=True):
        if not faults.spoiled(place):
            with faults.of("image", place):
                if (seen := picture_size(image)) != (said := picture_size(label)):
                    raise BadInput(f"{label}: labels of {said} for an image of {seen} pixels (H, W)")
    if kind == "segmentation":
        known = dict.fromkeys(range(LAST + 1), IGNORE) | {number: i for i, number in enumerate(NAMES)}
        targets: Sequence = LabelImages(labels, known, len(NAMES))
    else:
        targets = Instances(labels)
    cities = np.array([place.split("/")[0] for place in ids])
    return faults.spare(Split(Pictures(images), targets, digest, ids, cities))


@dataclass(frozen=True)
class Instances(Sequence):
    """Instance images as objects, decoded one at a time; a number without a class raises BadInput."""

    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index) -> Objects:
        path = self.paths[index]
        values = np.asarray(open_picture(path)).astype(np.int64)
        if values.ndim != 2 or values.min() < 0 or values.max() >= SHARE * (LAST + 1):
            raise BadInput(f"{path}: an instance image has one channel of numbers below {SHARE * (LAST + 1)}")
        numbers = [n for n in np.flatnonzero(np.bincount(values.ravel())).tolist() if _class_of(n) in THINGS]
        order = np.zeros(SHARE * (LAST + 1), np.int32)
        order[numbers] = np.arange(1, len(numbers) + 1)
        places = order[values]  # 0 where there is no object, then 1…k
        masks = np.zeros((len(numbers), *values.shape), bool)
        boxes = np.zeros((len(numbers), 4))
        for i, (rows, columns) in enumerate(find_objects(places)):
            masks[i, rows, columns] = places[rows, columns] == i + 1
            boxes[i] = columns.start, rows.start, columns.stop, rows.stop
        return Objects(
            boxes=boxes,
            labels=np.array([THINGS.index(_class_of(n)) for n in numbers], np.int64),
            masks=masks,
            crowd=np.array([n < SHARE for n in numbers], bool),
            size=(values.shape[0], values.shape[1]),
        )


def _class_of(number: int) -> int:
    return number // SHARE if number >= SHARE else number
