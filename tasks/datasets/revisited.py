"""Revisited Oxford and Paris: cropped queries, answers by difficulty (Radenović et al., arXiv 1803.11285)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from ...backbones.errors import BadInput, unknown
from ..task import Kind
from .card import DatasetCard
from .dataset import Dataset, Judgement, Split
from .faults import Faults
from .integrity import content_digest
from .pictures import Pictures

PROTOCOLS = {  # of a query split: which of its lists are answers, which are left out of the ranking
    "easy": (("easy",), ("hard", "junk")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("easy", "junk")),
}


@dataclass(frozen=True)
class Cropped(Sequence):
    """Images cut out by a box of pixels: left, top, right, bottom."""

    images: Pictures
    boxes: Sequence[tuple[float, float, float, float]]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index) -> Image.Image:
        return self.images[index].crop(tuple(round(v) for v in self.boxes[index]))  # pyright: ignore


def open_revisited(card: DatasetCard, kind: Kind) -> Dataset:
    """`gallery`, and queries whose `split` is easy, medium or hard; `annotations` is the authors' gnd_*.mat.

    Answers and junk are the same for all who measure; queries are no part of the gallery. Raises BadInput.
    """
    for name, spec in card.splits.items():
        if spec.images is None or spec.annotations is None:
            raise BadInput(f"dataset {card.name}: splits.{name}: give `images`, a folder, and `annotations`, the .mat")
        if name != "gallery" and spec.split not in PROTOCOLS:
            raise unknown("protocol", str(spec.split), PROTOCOLS, where=f"dataset {card.name}: splits.{name}.split")
    return Dataset(card.name, kind, (), {name: partial(_split, card, name) for name in card.splits})


def _split(card: DatasetCard, name: str) -> Split:
    truth = read_truth(card, name)
    folder, gallery = card.images(name), _names(truth["imlist"])
    ids = gallery if name == "gallery" else _names(truth["qimlist"])
    paths = [folder / f"{i}.jpg" for i in ids]
    faults = Faults(card, name, whole=True)
    if name == "gallery":
        return Split(Pictures(paths), np.full(len(ids), -1), content_digest(faults, ids, paths, ids), ids)
    right, junk = PROTOCOLS[str(card.splits[name].split)]
    judged, boxes = [], []
    for query, entry in zip(ids, truth["gnd"], strict=True):
        where = f"{card.root / str(card.splits[name].annotations)}: query {query}"
        judged.append(Judgement(_listed(where, entry, right, gallery), _listed(where, entry, junk, gallery)))
        box = np.ravel(entry.get("bbx", ()))
        if box.shape != (4,) or not np.isfinite(box).all() or box[0] >= box[2] or box[1] >= box[3]:
            raise BadInput(f"{where}: bbx is left, top, right, bottom, got {box.tolist()}")
        boxes.append(tuple(box.tolist()))
    says = [ids, boxes, [[j.positive, j.junk] for j in judged]]
    digest = content_digest(faults, ids, paths, says)
    return Split(Cropped(Pictures(paths), boxes), np.full(len(ids), -1), digest, ids, judgements=judged)


def read_truth(card: DatasetCard, name: str) -> dict[str, Any]:
    """imlist, qimlist and gnd of a .mat file. Raises BadInput; a pickle is never read."""
    path = card.root / str(card.splits[name].annotations)
    if path.suffix == ".pkl" or (not path.is_file() and path.with_suffix(".pkl").is_file()):
        raise BadInput(
            f"{path.with_suffix('.pkl')}: is a pickle, which could run any program, and is not read; put "
            f"{path.with_suffix('.mat').name} beside it: the authors' page has both"
        )
    card.at(name, "annotations")
    from scipy.io import loadmat

    try:
        truth = loadmat(path, simplify_cells=True)
    except Exception as error:  # its parser raises whatever it stumbles over
        raise BadInput(f"{path}: cannot be read as MATLAB's .mat: {error}") from None
    truth["gnd"] = [truth["gnd"]] if isinstance(truth.get("gnd"), dict) else list(truth.get("gnd", ()))
    if not truth["gnd"] or {"imlist", "qimlist"} - truth.keys() or len(truth["gnd"]) != len(_names(truth["qimlist"])):
        raise BadInput(f"{path}: a ground truth has imlist, qimlist and as many gnd as qimlist has names")
    return truth


def _names(listed: Any) -> list[str]:
    return [str(name) for name in np.atleast_1d(listed)]


def _listed(where: str, entry: Any, keys: Sequence[str], gallery: Sequence[str]) -> tuple[str, ...]:
    """Names of the images in these lists of a query; MATLAB counts from 1."""
    found = []
    for key in keys:
        numbers = np.ravel(entry.get(key, ())) if isinstance(entry, dict) else ()
        for number in numbers:
            if number != int(number) or not 1 <= number <= len(gallery):
                raise BadInput(f"{where}: {key}: {number} is no position in imlist, 1 to {len(gallery)}")
            found.append(gallery[int(number) - 1])
    return tuple(found)
