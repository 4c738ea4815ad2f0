"""COCO data sets: one json of boxes, and masks as polygons or run lengths, a split (Lin et al., arXiv 1405.0312)."""

import json
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeFloat, NonNegativeInt

from ...backbones.errors import BadInput
from ...backbones.reading import validate
from ..task import Kind
from . import rle
from .card import DatasetCard
from .dataset import Dataset, Objects, Split
from .faults import Faults
from .integrity import content_digest
from .pictures import Pictures, picture_size

TOLERANCE = 1.0  # pixels by which rounding may carry a box over the edge of its image


class Record(BaseModel):
    """One entry of a COCO file: what is read of it, in the types of the format; other keys may be there."""

    model_config = ConfigDict(strict=True, frozen=True)
    id: int | str


class Category(Record):
    """A class; ids need not be consecutive."""

    id: int
    name: str


class Picture(Record):
    """An image file below the split's folder."""

    file_name: str = Field(min_length=1, pattern=r"^[^\x00]*$")


class Annotation(Record):
    """An object: box as x, y, width, height; its segmentation is looked at once the image's size is known."""

    image_id: int | str
    category_id: int
    bbox: list[FiniteFloat] = Field(min_length=4, max_length=4)
    area: NonNegativeFloat | None = Field(default=None, allow_inf_nan=False)
    iscrowd: int | bool = 0
    segmentation: Any = None


Kept = TypeVar("Kept", bound=Record)


class Runs(BaseModel):
    """A mask as run lengths, plain or as COCO's compressed text; size is height and width."""

    model_config = ConfigDict(strict=True)
    size: list[int] = Field(min_length=2, max_length=2)
    counts: str | list[NonNegativeInt]


def open_coco(card: DatasetCard, kind: Kind) -> Dataset:
    """Splits of an `images` folder and an `annotations` json: boxes, masks, or (kind pairs) captions.

    Categories become 0…C-1 in the order of their ids; the card's `classes`, where given, are their names in that order.
    Raises BadInput naming the file and the annotation.
    """
    from .captions import coco_captions

    if not card.splits:
        raise BadInput(f"dataset {card.name}: splits: a COCO split has `images`, a folder, and `annotations`, a json")
    for name, spec in card.splits.items():
        if spec.annotations is None or spec.images is None:
            raise BadInput(
                f"dataset {card.name}: splits.{name}: a COCO split has `images`, a folder, and `annotations`, a json"
            )
    if kind == "pairs":
        return Dataset(card.name, kind, (), {name: partial(coco_captions, card, name) for name in card.splits})
    # Any split's file tells the categories: of those that are there the smallest is read soonest.
    files = [card.root / str(spec.annotations) for spec in card.splits.values()]
    path = min(files, key=lambda f: f.stat().st_size if f.is_file() else math.inf)
    categories = _categories(path, read_json(path))
    classes, ids = card.classes or tuple(categories.values()), tuple(categories)
    builders = {name: partial(_split, card, name, classes, ids) for name in card.splits}
    return Dataset(card.name, kind, classes, builders, category_ids=ids)


@dataclass(frozen=True)
class Annotated(Sequence):
    """The objects of each image, masks decoded when asked for; `segments` None where the data set has only boxes."""

    objects: Sequence[Objects]
    segments: Sequence[Sequence[Any]] | None

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, index) -> Objects:
        plain = self.objects[index]
        if self.segments is None or plain.size is None:
            return plain
        masks = [rle.decode(s["counts"].decode(), plain.size) for s in self.segments[index]]
        return Objects(
            plain.boxes,
            plain.labels,
            np.array(masks, bool).reshape(-1, *plain.size),
            plain.crowd,
            plain.areas,
            plain.size,
        )


def _split(card: DatasetCard, name: str, classes: tuple[str, ...], ids: tuple[int, ...]) -> Split:
    spec = card.splits[name]
    file, folder = card.root / str(spec.annotations), card.root / str(spec.images)
    content = read_json(file)
    categories = _categories(file, content)
    if (tuple(categories.values()), tuple(categories)) != (classes, ids):
        raise BadInput(
            f"{file}: its categories differ from the {len(classes)} classes of dataset {card.name}, their order or ids"
        )
    labels = {id: label for label, id in enumerate(categories)}
    faults = Faults(card, name)
    pictures = _pictures(file, folder, content, faults)
    paths = list(pictures.values())
    digest = content_digest(faults, list(pictures), paths, classes, whole=[file])
    sizes: dict[int | str, tuple[int, int]] = {}
    for id, path in pictures.items():
        if not faults.spoiled(id):
            with faults.of("image", id):
                sizes[id] = picture_size(path)
    rows: dict[int | str, list[tuple[Annotation, dict | None]]] = {id: [] for id in pictures}
    for annotation in records(file, content, "annotations", Annotation, faults):
        where = f"{file}: annotation {annotation.id}"
        with faults.of("annotation", annotation.id):
            if annotation.image_id not in sizes:
                why = "was left out" if faults.spoiled(annotation.image_id) else "is not among the images"
                raise BadInput(f"{where}: image_id {annotation.image_id!r} {why}")
            if annotation.category_id not in labels:
                raise BadInput(f"{where}: category_id {annotation.category_id!r} is not among the categories")
            size = sizes[annotation.image_id]
            boxed = annotation.model_copy(update={"bbox": _box(where, annotation.bbox, size)})
            segment = _segment(where, annotation.segmentation, size) if annotation.segmentation else None
            rows[annotation.image_id].append((boxed, segment))
    objects = [_objects([a for a, _ in found], labels, sizes.get(id)) for id, found in rows.items()]
    segments = [[segment for _, segment in found] for found in rows.values()]
    if not any(segments) or any(segment is None for found in segments for segment in found):
        segments = None
    return faults.spare(Split(Pictures(paths), Annotated(objects, segments), digest, list(pictures)))


def _objects(annotations: list[Annotation], labels: dict[int, int], size: tuple[int, int] | None) -> Objects:
    boxes = np.array([a.bbox for a in annotations], np.float64).reshape(-1, 4)
    areas = [boxes[i, 2] * boxes[i, 3] if a.area is None else a.area for i, a in enumerate(annotations)]
    return Objects(
        boxes=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
        labels=np.array([labels[a.category_id] for a in annotations], np.int64),
        crowd=np.array([bool(a.iscrowd) for a in annotations], bool),
        areas=np.array(areas, np.float64),
        size=size,
    )


def read_json(file: Path) -> dict[str, Any]:
    """The object in a json file. Raises BadInput."""
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise BadInput(f"{file}: no such file; correct `annotations` in the card's splits") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{file}: cannot be read as json: {error}") from None
    if not isinstance(content, dict):
        raise BadInput(f"{file}: a COCO file is an object with images, annotations and categories")
    return content


def records(
    file: Path, content: dict[str, Any], key: str, model: type[Kept], faults: Faults | None = None
) -> list[Kept]:
    """The records under a key, each with an id of its own; what is wrong with one is among `faults`, or refused."""
    raw = content.get(key)
    if not isinstance(raw, list) or not all(isinstance(r, dict) for r in raw):
        raise BadInput(f"{file}: {key!r} is a list of objects in a COCO file; this one has none")
    kind, found = key.removesuffix("s"), dict[int | str, Kept]()
    if faults and kind != "image":
        faults.seen[kind] += len(raw)
    for number, one in enumerate(raw):
        place, told = f"{key}[{number}]", isinstance(one.get("id"), int | str)
        name = f"{model.__name__.lower()} {one['id']}" if told else place
        with faults.of(kind, place) if faults else nullcontext():
            record = validate(one, model, where=f"{file}: {name}"[:500])
            if record.id in found:
                raise BadInput(f"{file}: {key}: id {record.id} is given twice")
            found[record.id] = record
    if not raw and key != "annotations":
        raise BadInput(f"{file}: has no {key}")
    return list(found.values())


def _categories(file: Path, content: dict[str, Any]) -> dict[int, str]:
    """Category names by id, in the order of ids."""
    return {r.id: r.name for r in sorted(records(file, content, "categories", Category), key=lambda r: r.id)}


def pictures_of(file: Path, content: dict[str, Any], faults: Faults | None = None) -> list[Picture]:
    """The images of a COCO file in the order of their ids."""
    return sorted(records(file, content, "images", Picture, faults), key=lambda r: (isinstance(r.id, str), r.id))


def _pictures(file: Path, folder: Path, content: dict[str, Any], faults: Faults) -> dict[int | str, Path]:
    """The file of each image id, in the order of ids; none may lie outside the folder."""
    found = {}
    for record in pictures_of(file, content, faults):
        path = folder / record.file_name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise BadInput(f"{file}: picture {record.id}: file_name leads out of {folder}: {record.file_name!r}")
        found[record.id] = path
    return found


def _box(where: str, box: list[float], size: tuple[int, int]) -> list[float]:
    """The box as x, y, width, height within the image of (H, W)."""
    x, y, width, height = box
    if width <= 0 or height <= 0:
        raise BadInput(f"{where}: bbox {box} has no area; correct or remove the annotation")
    if min(x, y) < -TOLERANCE or x + width > size[1] + TOLERANCE or y + height > size[0] + TOLERANCE:
        raise BadInput(f"{where}: bbox {box} leaves the image of {size[1]} x {size[0]} pixels")
    left, top = max(x, 0.0), max(y, 0.0)
    right, bottom = min(x + width, float(size[1])), min(y + height, float(size[0]))
    if right <= left or bottom <= top:
        raise BadInput(f"{where}: bbox {box} lies on the edge of the image; correct or remove the annotation")
    # Kept to the last bit where nothing is cut off.
    return (
        box
        if [left, top] == [x, y] and (right, bottom) == (x + width, y + height)
        else [left, top, right - left, bottom - top]
    )


def _segment(where: str, segment: Any, size: tuple[int, int]) -> dict:
    """A segmentation of either form as compressed run lengths."""
    from faster_coco_eval.core import mask as coco_mask

    where = f"{where}: segmentation"
    if isinstance(segment, dict):
        runs = validate(segment, Runs, where=where)
        if tuple(runs.size) != size:
            raise BadInput(f"{where}: size {runs.size} is not the image's {list(size)} (height, width)")
        if isinstance(runs.counts, str):
            try:
                rle.run_lengths(runs.counts, size)
            except ValueError as error:
                raise BadInput(f"{where}: {error}") from None
            return {"size": runs.size, "counts": runs.counts.encode()}
        if sum(runs.counts) != size[0] * size[1]:
            raise BadInput(f"{where}: its run lengths do not fill the image")
        return coco_mask.frPyObjects({"size": runs.size, "counts": runs.counts}, *size)  # pyright: ignore
    if not isinstance(segment, list):
        raise BadInput(f"{where}: polygons or run lengths, got {type(segment).__name__}")
    furthest = 2 * max(size)
    for polygon in segment:
        if not _points(polygon, furthest):
            raise BadInput(f"{where}: a polygon is x, y of three or more points near the image")
    return coco_mask.merge(coco_mask.frPyObjects([[float(v) for v in p] for p in segment], *size))  # pyright: ignore


def _points(polygon: Any, furthest: int) -> bool:
    """Whether this is a list of x, y of three or more points, none of them so far from the origin."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        return False
    return {int, float} >= set(map(type, polygon)) and all(-furthest <= v <= furthest for v in polygon)
