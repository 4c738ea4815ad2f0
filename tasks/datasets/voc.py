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
from .faults import Faults
from .integrity import content_digest
from .pictures import Pictures, listed, picture_size, pictures_in

Found = tuple[str, tuple[float, float, float, float], bool]
"""An object as its file has it: class name, box xyxy, whether it is marked difficult."""


def open_voc(card: DatasetCard, kind: Kind) -> Dataset:
    """Splits of `images` and `annotations` folders, with a `list` of ids or all there are. Raises BadInput.

    Classes come from the card, or sorted from the files. Objects marked difficult are neither learned nor scored.
    """
    splits = {name: _files(card, name) for name in card.splits}
    classes = card.classes or tuple(sorted({label for name in splits for label in _labels(card, name, splits[name])}))
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
    if strays := [i for i in ids if Path(i).is_absolute() or ".." in Path(i).parts]:
        raise BadInput(f"dataset {card.name}: splits.{name}.list: {strays[0]!r} leads out of {folder}")
    return {i: folder / f"{i}.xml" for i in ids}


def _labels(card: DatasetCard, name: str, files: dict[str, Path]) -> set[str]:
    """Class names in the files of a split; what a lenient reading finds wrong is told when the split is opened."""
    faults = Faults(card, name)
    return {label for image, xml in files.items() for label, _, _ in _objects(image, xml, faults).values()}


def _split(card: DatasetCard, name: str, files: dict[str, Path], classes: tuple[str, ...]) -> Split:
    folder, faults = card.root / str(card.splits[name].images), Faults(card, name)
    pictures = pictures_in(folder)
    for image, xml in files.items():
        with faults.of("image", image):
            if not xml.is_file():
                raise BadInput(f"{xml}: no such file, but it is listed")
            if image not in pictures:
                raise BadInput(f"{xml}: there is no image {image!r} in {folder}")
    ids = [image for image in files if not faults.spoiled(image)]
    paths = [pictures[image] for image in ids]
    digest = content_digest(faults, ids, paths, [classes, ids], whole=[files[image] for image in ids])
    targets = [_target(image, files[image], path, classes, faults) for image, path in zip(ids, paths, strict=True)]
    return faults.spare(Split(Pictures(paths), targets, digest, ids))


def _target(image: str, xml: Path, picture: Path, classes: tuple[str, ...], faults: Faults) -> Objects:
    """The objects of an image, those without faults; none and no size where the image itself has one."""
    found, size = list[Found](), None
    if not faults.spoiled(image):
        with faults.of("image", image):
            size = picture_size(picture)
    if size:
        for number, one in _objects(image, xml, faults).items():
            with faults.of("object", f"{image} {number}"):
                found.append(_placed(f"{xml}: object {number}", one, size, classes))
    return Objects(
        boxes=np.array([box for _, box, _ in found], np.float32).reshape(-1, 4),
        labels=np.array([classes.index(label) for label, _, _ in found], np.int64),
        crowd=np.array([difficult for _, _, difficult in found], bool),
        size=size,
    )


def _placed(where: str, found: Found, size: tuple[int, int], classes: tuple[str, ...]) -> Found:
    """The object with its box cut at the edge of the image of (H, W), over which rounding may carry it by a pixel."""
    (label, box, difficult), (height, width) = found, size
    if label not in classes:
        raise unknown("class", label, classes, where=where)
    if box[2] > width + 1 or box[3] > height + 1:
        raise BadInput(f"{where}: box {list(box)} leaves the image of {width} x {height} pixels")
    left, top, right, bottom = max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height)
    if right <= left or bottom <= top:
        raise BadInput(f"{where}: box {list(box)} lies on the edge of the image; correct or remove the object")
    return label, (left, top, right, bottom), difficult


def _objects(image: str, xml: Path, faults: Faults) -> dict[int, Found]:
    """What a file has, by its place in the file from 1."""
    text, nodes, found = b"", list[ElementTree.Element](), dict[int, Found]()
    with faults.of("image", image):
        text = _read(xml)
    if b"<!" in text.replace(b"<!--", b""):
        raise BadInput(f"{xml}: a document type or entity has no place in an annotation; take it out")
    with faults.of("image", image):
        nodes = _nodes(xml, text)
    faults.seen["object"] += len(nodes)
    for number, node in enumerate(nodes, 1):
        with faults.of("object", f"{image} {number}"):
            found[number] = _object(xml, number, node)
    return found


def _read(xml: Path) -> bytes:
    try:
        return xml.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{xml}: no such file, but it is listed") from None
    except OSError as error:
        raise BadInput(f"{xml}: cannot be read: {error}") from None


def _nodes(xml: Path, text: bytes) -> list[ElementTree.Element]:
    try:
        return list(ElementTree.fromstring(text).iter("object"))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BadInput(f"{xml}: cannot be read as XML: {error}") from None


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
