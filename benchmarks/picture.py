"""What a stored result looks like: the picture that its task draws of its predictions."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..backbones.errors import BadInput
from ..leaderboard import Result
from ..leaderboard.submission.files import predictions_file
from ..tasks import Dataset, find_task, read_predictions
from ..tasks.predictions import Predictions
from .origin import data_card_of, open_dataset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = (".png", ".svg", ".pdf")


def picture_of(result: Result, home: Path) -> "Figure | None":
    """The picture of a result, or None where its task has none. Raises BadInput where predictions or data are gone."""
    return find_task(result.task.name).picture(stored_predictions(result, home), data_of(result, home))


def write_picture(result: Result, home: Path, path: Path) -> None:
    """The picture as a file, of the kind that its suffix says. Raises BadInput where there is none, or no such kind."""
    from ..tasks.pictures import save

    if path.suffix not in KINDS:
        raise BadInput(f"--picture {path}: is written as {', '.join(KINDS)}; end the name in one of them")
    if not path.absolute().parent.is_dir():
        raise BadInput(f"--picture {path}: there is no folder {path.parent}")
    if (figure := picture_of(result, home)) is None:
        raise BadInput(f"result {result.id}: {result.task.name} has no picture; its scores: backbench show {result.id}")
    save(figure, path)


def stored_predictions(result: Result, home: Path) -> Predictions:
    """The predictions that a result was scored from. Raises BadInput where they are gone."""
    path = predictions_file(home, result)
    if path is None:
        raise BadInput(
            f"result {result.id}: its predictions are not in {home}, or not what they were; "
            f"run `backbench rerun {result.id}`"
        )
    return read_predictions(path)


def data_of(result: Result, home: Path) -> Dataset:
    """The data set of a result, from the card it was made from."""
    card = data_card_of(result, home)
    return open_dataset(card, find_task(result.task.name).needs.data, result.dataset.limit)
