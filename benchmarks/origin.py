"""The cards that a result was made from, kept with the folders that their paths start from; data sets of cards."""

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..backbones import BackboneCard, BadInput, find_backbone
from ..leaderboard import Result
from ..tasks import Dataset, find_dataset, load_dataset
from ..tasks.datasets import DatasetCard
from ..tasks.task import Kind
from .home import run_folder

if TYPE_CHECKING:
    from .plan import Cell


def remember_origin(cell: "Cell", folder: Path) -> None:
    """Keep the cell's cards, with the folders they came from, beside its result: what a rerun starts from."""
    origin = {
        "backbone": [cell.card.model_dump(mode="json"), str(cell.card.folder)],
        "dataset": [cell.dataset.model_dump(mode="json", by_alias=True), str(cell.dataset.folder)],
    }
    (folder / "origin.json").write_text(json.dumps(origin), encoding="utf-8")


def cards_of(old: Result, home: Path) -> tuple[BackboneCard, DatasetCard]:
    """The cards of a result: those kept here when it was made, else those of the same names. Raises BadInput."""
    path = run_folder(home, old.cell_id) / "origin.json"
    if path.exists():
        origin = json.loads(path.read_text(encoding="utf-8"))
        (backbone, at), (dataset, data_at) = origin["backbone"], origin["dataset"]
        return (
            BackboneCard.model_validate(backbone).model_copy(update={"folder": Path(at)}),
            DatasetCard.model_validate(dataset).model_copy(update={"folder": Path(data_at), "home": home}),
        )
    try:
        return find_backbone(old.backbone.name), find_dataset(old.dataset.name, home)
    except BadInput as error:
        raise BadInput(f"result {old.id} came from a card that is not here: {error}") from None


def open_dataset(card: DatasetCard, kind: Kind, limit: int | None) -> Dataset:
    """The data set of a card, opened once in this process."""
    return _opened(card.model_dump_json(by_alias=True), str(card.folder), card.home, kind, limit)


@lru_cache(maxsize=8)
def _opened(card: str, folder: str, home: Path | None, kind: Kind, limit: int | None) -> Dataset:
    loaded = DatasetCard.model_validate_json(card).model_copy(update={"folder": Path(folder), "home": home})
    return load_dataset(loaded, kind, limit=limit)
