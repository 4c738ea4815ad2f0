"""PASCAL VOC data sets: one XML file of boxes an image (Everingham et al. 2010)."""

import math
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ...backbones.errors import BadInput, unknown
from ..task import Kind
from .card import DatasetCard
from .dataset import Dataset, Objects, Split
from .integrity import content_digest
from .pictures import Pictures, listed, picture_size, pictures_in

Found = tuple[str, tuple[float, float, float, float], bool]
"""An object as its file has it: class name, box xyxy, whether it is marked difficult."""


def open_voc(card: DatasetCard, kind: Kind) -> Dataset:
    """Splits of `images` and `annotations` folders, with a `list` of ids or all there are. Raises BadInput.

    Classes come from the card, or sorted from the files. Objects marked difficult are neither learned nor scored.
    """
    splits = {name: _files(card, name) for name in card.splits}
    classes = card.classes or tuple(
        sorted({label for files in splits.values() for xml in files.values() for label, _, _ in _objects(xml)})
    )
    if not classes:
        raise BadInput(f"dataset {card.name}: no object in any split; check `annotations` in the card's splits")
    builders = {name: partial(_split, card, name, files, classes) for name, files in splits.items()}
    return Dataset(card.name, kind, classes, builders)


def _files(card: DatasetCard, name: str) -> dict[str, Path]:
    """The annotation file of each image id."""
    spec = card.splits[name]
    if spec.annotations is None or spec.images is None:
        raise BadInput(f"dataset {card.name}: splits.{name}: a VOC split has `images` and `annotations`, two folders")
    folder = card.root / spec.annotations
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; correct splits.{name}.annotations of dataset {card.name}")
    ids = [i for file in spec.lists for i in listed(card.root / file)] or sorted(p.stem for p in folder.glob("*.xml"))
    if not ids:
        raise BadInput(f"{folder}: holds no XML file; correct splits.{name}.annotations of dataset {card.name}")
    files = {i: folder / f"{i}.xml" for i in ids}
    for path in files.values():
        if not path.is_file():
            raise BadInput(f"{path}: no such file, but {spec.list} names it")
    return files


def _split(card: DatasetCard, name: str, files: dict[str, Path], classes: tuple[str, ...]) -> Split:
    pictures = pictures_in(card.root / str(card.splits[name].images))
    paths = []
    for image, xml in files.items():
        if image not in pictures:
            raise BadInput(f"{xml}: there is no image {image!r} in {card.root / str(card.splits[name].images)}")
        paths.append(pictures[image])
    digest = content_digest(card, paths, [classes, list(files)], whole=list(files.values()))
    targets = [_target(xml, path, classes) for xml, path in zip(files.values(), paths, strict=True)]
    return Split(Pictures(paths), targets, digest, list(files))


def _target(xml: Path, picture: Path, classes: tuple[str, ...]) -> Objects:
    objects, size = _objects(xml), picture_size(picture)
    for number, (label, box, _) in enumerate(objects, 1):
        if label not in classes:
            raise unknown("class", label, classes, where=f"{xml}: object {number}")
        if box[2] > size[1] + 1 or box[3] > size[0] + 1:
            raise BadInput(f"{xml}: object {number}: box {list(box)} leaves the image of {size[1]} x {size[0]} pixels")
    height, width = size
    boxes = np.array([box for _, box, _ in objects], np.float32).reshape(-1, 4)
    return Objects(
        boxes=np.clip(boxes, 0, np.array([width, height, width, height], np.float32)),
        labels=np.array([classes.index(label) for label, _, _ in objects], np.int64),
        crowd=np.array([difficult for _, _, difficult in objects], bool),
        size=size,
    )


def _objects(xml: Path) -> list[Found]:
    try:
        text = xml.read_bytes()
        if b"<!" in text.replace(b"<!--", b""):
            raise BadInput(f"{xml}: a document type or entity has no place in an annotation; take it out")
        root = ElementTree.fromstring(text)
    except (OSError, ElementTree.ParseError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{xml}: cannot be read as XML: {error}") from None
    return [_object(xml, number, node) for number, node in enumerate(root.iter("object"), 1)]


def _object(xml: Path, number: int, node: ElementTree.Element) -> Found:
    where = f"{xml}: object {number}"
    label = (node.findtext("name") or "").strip()
    if not label:
        raise BadInput(f"{where}: has no <name>")
    edges = []
    for edge in ("xmin", "ymin", "xmax", "ymax"):
        text = node.findtext(f"bndbox/{edge}")
        try:
            value = float(text or "")
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise BadInput(f"{where}: bndbox/{edge} is a number, got {text!r}")
        edges.append(value)
    # VOC counts pixels from 1 and its last ones belong to the box.
    x1, y1, x2, y2 = edges[0] - 1, edges[1] - 1, edges[2], edges[3]
    if x2 <= x1 or y2 <= y1 or x1 < -1 or y1 < -1:
        raise BadInput(f"{where}: box {edges} is empty or outside the image; correct or remove the object")
    return label, (x1, y1, x2, y2), (node.findtext("difficult") or "0").strip() == "1"
