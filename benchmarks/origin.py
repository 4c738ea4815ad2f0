"""Where a result comes from: the cards that it was made from, kept here or, of a stranger's record, taken from that."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..backbones import BackboneCard, BadInput, find_backbone
from ..backbones.card import Checkpoint
from ..backbones.reading import validate
from ..leaderboard import Result
from ..leaderboard.submission import Truth, check_paths, weights_at
from ..leaderboard.submission import open_dataset as open_dataset
from ..tasks import find_dataset
from ..tasks.datasets import DatasetCard
from .home import run_folder

if TYPE_CHECKING:
    from .plan import Cell

Card = TypeVar("Card", BackboneCard, DatasetCard)


def remember_origin(cell: "Cell", folder: Path) -> None:
    """Keep the cell's cards, with the folders they came from, beside its result: what a rerun starts from."""
    origin = {
        "backbone": [cell.card.model_dump(mode="json"), str(cell.card.folder)],
        "dataset": [cell.dataset.model_dump(mode="json", by_alias=True), str(cell.dataset.folder)],
    }
    (folder / "origin.json").write_text(json.dumps(origin), encoding="utf-8")


def was_run_here(old: Result, home: Path) -> bool:
    """Whether the cards that a result was made from are kept in this home."""
    return (run_folder(home, old.cell_id) / "origin.json").exists()


def cards_of(old: Result, home: Path) -> tuple[BackboneCard, DatasetCard]:
    """The cards of a result: those kept here when it was made, else those of the same names. Raises BadInput."""
    try:
        return _kept(old, home, "backbone", BackboneCard) or find_backbone(old.backbone.name), data_card_of(old, home)
    except BadInput as error:
        raise BadInput(f"result {old.id} came from a card that is not here: {error}") from None


def data_card_of(old: Result, home: Path) -> DatasetCard:
    """The card of a result's data set alone: all that scoring its predictions needs. Raises BadInput."""
    kept = _kept(old, home, "dataset", DatasetCard)
    return kept.model_copy(update={"home": home}) if kept else find_dataset(old.dataset.name, home)


def _kept(old: Result, home: Path, which: str, kind: type[Card]) -> Card | None:
    """A card that was kept when a result was made here."""
    if not was_run_here(old, home):
        return None
    card, folder = json.loads((run_folder(home, old.cell_id) / "origin.json").read_text(encoding="utf-8"))[which]
    return kind.model_validate(card).model_copy(update={"folder": Path(folder)})


def strangers_cards(old: Result, home: Path) -> tuple[BackboneCard, DatasetCard]:
    """The cards of a record that somebody else wrote. It may name networks of libraries and data sets of this machine,
    but no code and no files: weights of its submitter's own only where they were handed in too. Raises BadInput."""
    where = f"result {old.id}"
    told = validate(old.backbone.card, BackboneCard, f"{where}: backbone.card")
    check_paths(told, f"{where}: backbone.card")
    if told.source == "python":
        raise BadInput(
            f"{where}: backbone.card.source: python is its submitter's own code, which is never run from a record; "
            "get the code, read it, and run your own card of it"
        )
    nowhere = home / "nowhere"  # relative paths lead to nothing
    card = told.model_copy(update={"name": old.backbone.name, "folder": nowhere})
    if card.checkpoint and "://" in card.checkpoint.path and card.checkpoint.sha256 is None:
        raise BadInput(
            f"{where}: backbone.card.checkpoint.sha256: is missing, so {card.checkpoint.path} may be anything"
        )
    if card.checkpoint and "://" not in card.checkpoint.path:
        card = _with_weights(card, old, home)
    data = Truth(home).card(old.dataset.name)
    if data is None:
        raise BadInput(f"{where}: dataset.name: this machine has no data set {old.dataset.name!r}")
    return card, data


def _with_weights(card: BackboneCard, old: Result, home: Path) -> BackboneCard:
    """The card with the weights that were handed in with it: those by which it has the record's digest."""
    for path in sorted(weights_at(home, "*").parent.glob("*.safetensors")):
        tried = card.model_copy(update={"checkpoint": Checkpoint(path=path.name, sha256=path.stem)})
        if tried.digest() == old.backbone.card_digest:
            return tried.model_copy(update={"folder": path.parent})
    assert card.checkpoint is not None
    raise BadInput(f"result {old.id}: backbone.card.checkpoint: {card.checkpoint.path} is its submitter's own file, "
                   "and was not handed in (--with-weights)")  # fmt: skip
