"""The receiver's own side: its cards, its data, its labels. Nothing of a stranger's is opened here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ...backbones.errors import BadInput, Unavailable
from ...tasks import find_dataset, list_datasets, load_dataset
from ...tasks.datasets import DatasetCard
from ...tasks.datasets.fingerprint import fingerprints

if TYPE_CHECKING:
    from ...tasks import Dataset, Task
    from ...tasks.task import Kind


@cache
def packaged() -> frozenset[str]:
    """Names of the data sets that come with backbench."""
    return frozenset(card.name for card in list_datasets())


def open_dataset(card: DatasetCard, kind: "Kind", limit: int | None) -> "Dataset":
    """The data set of a card, opened once in this process."""
    return _opened(card.model_dump_json(by_alias=True), str(card.folder), card.home, kind, limit)


@lru_cache(maxsize=8)
def _opened(card: str, folder: str, home: Path | None, kind: "Kind", limit: int | None) -> "Dataset":
    loaded = DatasetCard.model_validate_json(card).model_copy(update={"folder": Path(folder), "home": home})
    return load_dataset(loaded, kind, limit=limit)


@dataclass
class Truth:
    """What this machine knows by itself: packaged data sets, those of `cards`, and of cards in `home`/datasets/."""

    home: Path
    cards: Mapping[str, DatasetCard] = field(default_factory=dict)
    _opened: dict[tuple, "Dataset | str"] = field(default_factory=dict)
    _prints: dict[tuple, dict[str, str]] = field(default_factory=dict)

    def card(self, name: str) -> DatasetCard | None:
        """The card of a data set, if this machine has one of its own."""
        if name in self.cards:
            return self.cards[name]
        if name in packaged():
            return find_dataset(name, self.home)
        own = self.home / "datasets" / f"{name}.yaml"
        return find_dataset(own, self.home) if own.is_file() else None

    def data(self, name: str, task: "Task", limit: int | None) -> "Dataset | str":
        """The data, with at most `limit` examples a split; or, in words, why it cannot be had here."""
        key = (name, task.needs.data, limit)
        if key not in self._opened:
            self._opened[key] = self._open(name, task, limit)
        return self._opened[key]

    def prints(self, name: str, task: "Task", data: "Dataset") -> dict[str, str]:
        """Fingerprints of the splits that a task uses, of the whole data set. Raises what opening it raises."""
        key = (name, task.needs.data, *task.splits(data))
        if key not in self._prints:  # a limit is no other data
            self._prints[key] = fingerprints(data.limited(None), task.splits(data), self.home)
        return self._prints[key]

    def _open(self, name: str, task: "Task", limit: int | None) -> "Dataset | str":
        card = self.card(name)
        if card is None:
            return f"this machine has no data set {name}"
        try:
            data = open_dataset(card, task.needs.data, limit)
            task.check_data(data)
            self.prints(name, task, data)
        except (BadInput, Unavailable, OSError) as error:
            return f"data set {name} cannot be read here: {error}"
        return data
