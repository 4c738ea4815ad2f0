"""Data sets by name: the packaged cards, a card of one's own, and the reader for each source."""

import hashlib
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np

from ...backbones.errors import BadInput, unknown
from ...backbones.reading import read_card
from ..task import Kind
from .card import DatasetCard
from .dataset import Dataset, Split
from .fingerprint import file_stamp

CARDS = Path(__file__).parent / "cards"
READERS = {  # source of a card → module and function that open it
    "digit-scenes": ("digit_scenes", "open_digit_scenes"),
    "imagefolder": ("imagefolder", "open_imagefolder"),
    "arrays": ("arrays", "open_arrays"),
    "hub": ("hub", "open_hub"),
    "parquet": ("hub", "open_parquet"),
    "coco": ("coco", "open_coco"),
    "voc": ("voc", "open_voc"),
    "masks": ("masks", "open_masks"),
}


def list_datasets() -> list[DatasetCard]:
    """The cards that come with backbench, by name."""
    return [_read(path) for path in sorted(CARDS.glob("*.yaml"))]


def find_dataset(name: str | Path) -> DatasetCard:
    """The card of a packaged data set, or in a YAML file. Raises BadInput when there is none."""
    if Path(name).suffix in (".yaml", ".yml"):
        return _read(Path(name))
    path = CARDS / f"{name}.yaml"
    if not path.is_file():
        raise unknown("dataset", str(name), [p.stem for p in CARDS.glob("*.yaml")])
    return _read(path)


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
    opened.stamp = opened.stamp or partial(file_stamp, card)
    return opened.limited(limit) if limit else opened


def _read(path: Path) -> DatasetCard:
    card = read_card(path, DatasetCard)
    return card.model_copy(update={"name": card.name or path.stem, "folder": path.parent})


def _open(card: DatasetCard, kind: Kind) -> Dataset:
    """The reader opens the splits that have data of their own; those carved out of another are made here."""
    carved = {name: spec for name, spec in card.splits.items() if spec.from_ is not None}
    own = {name: spec for name, spec in card.splits.items() if name not in carved}
    for name, spec in carved.items():
        if spec.from_ not in own:
            raise BadInput(f"dataset {card.name}: splits.{name}.from: {spec.from_!r} is no split with files of its own")
    module, function = READERS[card.source]
    opened = getattr(import_module(f".{module}", __package__), function)(card.model_copy(update={"splits": own}), kind)
    if not carved:
        return opened
    builders = {name: partial(_carve, card, opened, name) for name in card.splits}
    return Dataset(opened.name, opened.kind, opened.classes, builders, prompts=opened.prompts)


def _carve(card: DatasetCard, opened: Dataset, name: str) -> Split:
    """One split after carving: each `from` takes its part of what earlier ones left, spread evenly."""
    source = card.splits[name].from_ or name
    whole = opened[source]
    rest = np.arange(len(whole))
    for other, spec in card.splits.items():
        if spec.from_ == source and spec.fraction:
            count = min(len(rest), round(spec.fraction * len(whole)))
            places = ((np.arange(count) + 0.5) * len(rest) / max(count, 1)).astype(int)
            if other == name:
                rest = rest[places]
                break
            rest = np.delete(rest, places)
    if len(rest) == len(whole):
        return whole
    return whole.rows(rest, f"{whole.fingerprint}:{hashlib.sha256(rest.tobytes()).hexdigest()[:16]}")
