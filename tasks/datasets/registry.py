"""Data sets by name: the packaged cards, a card of one's own, and the reader for each source."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ...backbones.errors import BadInput, unknown
from ...backbones.reading import read_card
from ..home import where_home
from ..task import Kind
from .card import DatasetCard
from .dataset import Dataset, Split
from .fingerprint import file_stamp

CARDS = Path(__file__).parent / "cards"
READERS = {  # source of a card → module and function that open it
    "digit-scenes": ("digit_scenes", "open_digit_scenes"),
    "imagefolder": ("imagefolder", "open_imagefolder"),
    "lists": ("lists", "open_lists"),
    "captions": ("captions", "open_captions"),
    "arrays": ("arrays", "open_arrays"),
    "hub": ("hub", "open_hub"),
    "parquet": ("hub", "open_parquet"),
    "coco": ("coco", "open_coco"),
    "voc": ("voc", "open_voc"),
    "masks": ("masks", "open_masks"),
    "omniglot": ("omniglot", "open_omniglot"),
    "revisited": ("revisited", "open_revisited"),
    "cityscapes": ("cityscapes", "open_cityscapes"),
    "combined": ("combined", "open_combined"),
}


def list_datasets(home: Path | str | None = None) -> list[DatasetCard]:
    """The cards that come with backbench, by name."""
    return [_read(path, home) for path in sorted(CARDS.glob("*.yaml"))]


def find_dataset(name: str | Path, home: Path | str | None = None) -> DatasetCard:
    """The card of a packaged data set, or in a YAML file. Raises BadInput when there is none.

    The files of a packaged data set are expected in `data/<name>` of home; a card of one's own says where they are.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        return _read(Path(name), home)
    path = CARDS / f"{name}.yaml"
    if not path.is_file():
        raise unknown("dataset", str(name), [p.stem for p in CARDS.glob("*.yaml")])
    return _read(path, home)


def load_dataset(data: str | Path | DatasetCard | Dataset, kind: Kind, limit: int | None = None) -> Dataset:
    """A data set opened for one kind of task; images are read when a split is asked for. Raises BadInput."""
    if isinstance(data, Dataset):
        if data.kind != kind:
            raise BadInput(f"dataset {data.name}: this is a {data.kind} data set, {kind} is needed")
        return data.limited(limit) if limit else data
    card = data if isinstance(data, DatasetCard) else find_dataset(data)
    if kind not in card.kind:
        raise BadInput(f"dataset {card.name}: kind: {kind} is not among {', '.join(card.kind)}; add it if labels allow")
    opened = _open(card, kind)
    return opened.limited(limit) if limit else opened


def _read(path: Path, home: Path | str | None) -> DatasetCard:
    card = read_card(path, DatasetCard)
    name, home = card.name or path.stem, where_home(home)
    folder = home / "data" / name if path.parent == CARDS else path.parent
    return card.model_copy(update={"name": name, "folder": folder, "home": home})


def _open(card: DatasetCard, kind: Kind) -> Dataset:
    """A reader opens the splits that have data of their own; how they are cut and called is the same for all."""
    from .naming import names_of, prompts_of

    own = {name: spec for name, spec in card.splits.items() if spec.from_ is None}
    for name, spec in card.splits.items():
        if spec.from_ is not None and spec.from_ not in own:
            raise BadInput(f"dataset {card.name}: splits.{name}.from: {spec.from_!r} is no split with files of its own")
    module, function = READERS[card.source]
    with _had_from_its_authors(card):
        opened = getattr(import_module(f".{module}", __package__), function)(
            card.model_copy(update={"splits": own}), kind
        )
    names = card.splits or dict.fromkeys(opened.split_names)
    return Dataset(
        opened.name,
        opened.kind,
        names_of(card, opened.classes),
        {name: partial(_split, card, opened, name) for name in names},
        prompts=prompts_of(card),
        descriptions=card.descriptions,
        category_ids=opened.category_ids,
        stamp=partial(_stamp, card, opened),
    )


def _stamp(card: DatasetCard, opened: Dataset, name: str) -> Any:
    """What decides a split: what the reader says of it, or of the split it is cut from, and what the card says."""
    if opened.stamp is None:
        return file_stamp(card, name)
    if name not in card.splits:
        return opened.stamp(name)
    return [file_stamp(card, name), opened.stamp(card.splits[name].from_ or name)]


def _split(card: DatasetCard, opened: Dataset, name: str) -> Split:
    from .carving import carve

    with _had_from_its_authors(card):
        split = carve(card, opened, name) if card.splits else opened[name]
    return _of_some_classes(split, opened) if name.startswith("shift:") else split


def _of_some_classes(split: Split, data: Dataset) -> Split:
    """A shifted split, with the classes that it has where these are not all."""
    if data.kind != "classification":
        return split
    there = {*np.unique(split.targets).tolist(), *(c for right in split.accepted or () for c in right)} - {-1}
    return split if len(there) in (0, len(data.classes)) else replace(split, among=tuple(sorted(there)))


@contextmanager
def _had_from_its_authors(card: DatasetCard) -> Iterator[None]:
    """Inside, an error about a missing file says where it is to be had, if the card knows."""
    try:
        yield
    except BadInput as error:
        files = [card.root / path for spec in card.splits.values() for path in spec.files]
        gone = [path for path in files if str(path) in str(error) and not path.exists()]
        if not gone or not card.homepage or card.homepage in str(error):
            raise
        raise BadInput(f"dataset {card.name}: there is no {gone[0]}; {card.mend}") from None
