"""Images with captions: Karpathy's splits of Flickr30k and COCO, one json; and COCO's own json of captions."""

from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ...backbones.errors import BadInput, unknown
from ...backbones.reading import validate
from ..task import Kind
from .card import DatasetCard
from .coco import Record, pictures_of, read_json, records
from .dataset import Dataset, Split
from .faults import Faults
from .integrity import content_digest
from .pictures import Pictures


class Sentence(BaseModel):
    """One caption as it was written."""

    model_config = ConfigDict(strict=True)
    raw: str = Field(min_length=1)


class Captioned(BaseModel):
    """An image of Karpathy's json: its file, the folder within the images (COCO's), its split, its captions."""

    model_config = ConfigDict(strict=True)
    filename: str = Field(min_length=1)
    filepath: str = ""
    split: str
    sentences: list[Sentence] = Field(min_length=1)


class Caption(Record):
    """A caption of COCO's json."""

    image_id: int | str
    caption: str = Field(min_length=1)


def open_captions(card: DatasetCard, kind: Kind) -> Dataset:
    """Splits of `annotations`, Karpathy's json (Karpathy and Fei-Fei 2015), `images` and `split` in it.

    Several of its splits are joined as `train+restval`. Raises BadInput naming the file and the image.
    """
    for name, spec in card.splits.items():
        if spec.annotations is None or spec.images is None or spec.split is None:
            raise BadInput(f"dataset {card.name}: splits.{name}: give `annotations`, a json, `images` and its `split`")
    return Dataset(card.name, kind, (), {name: partial(_karpathy, card, name) for name in card.splits})


def _karpathy(card: DatasetCard, name: str) -> Split:
    spec = card.splits[name]
    file, folder = card.at(name, "annotations"), card.images(name)
    listed = read_json(file).get("images")
    if not isinstance(listed, list):
        raise BadInput(f"{file}: has no list `images`; it is a json of Karpathy's splits that is needed")
    every = [validate(one, Captioned, where=f"{file}: images[{n}]") for n, one in enumerate(listed)]
    wanted = str(spec.split).split("+")
    for split in wanted:
        if split not in (there := {image.split for image in every}):
            raise unknown("split", split, there, where=f"dataset {card.name}: splits.{name}.split")
    chosen = [image for image in every if image.split in wanted]
    files = {f"{image.filepath}/{image.filename}".lstrip("/"): [s.raw for s in image.sentences] for image in chosen}
    return _with_captions(card, name, folder, files)


def coco_captions(card: DatasetCard, name: str) -> Split:
    """A split of COCO's own json: images, and annotations with a `caption`."""
    spec = card.splits[name]
    file, folder = card.root / str(spec.annotations), card.root / str(spec.images)
    content = read_json(file)
    pictures = {one.id: one.file_name for one in pictures_of(file, content)}
    told: dict[str, list[str]] = {file_name: [] for file_name in pictures.values()}
    for caption in records(file, content, "annotations", Caption):
        if caption.image_id not in pictures:
            raise BadInput(f"{file}: caption {caption.id}: image_id {caption.image_id!r} is not among the images")
        told[pictures[caption.image_id]].append(caption.caption)
    if silent := [file_name for file_name, captions in told.items() if not captions]:
        raise BadInput(f"{file}: {len(silent)} images have no caption, such as {silent[0]!r}")
    return _with_captions(card, name, folder, told)


def _with_captions(card: DatasetCard, name: str, folder: Path, told: dict[str, list[str]]) -> Split:
    paths = [folder / name for name in told]
    if outside := [p for p in paths if not p.resolve().is_relative_to(folder.resolve())]:
        raise BadInput(f"dataset {card.name}: {outside[0]} leads out of {folder}")
    faults, ids, captions = Faults(card, name), list(told), list(told.values())
    digest = content_digest(faults, ids, paths, [ids, captions])
    return faults.spare(Split(Pictures(paths), captions, digest, ids))
