"""A stranger's scores: computed again from the predictions, against our own labels."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ...backbones.errors import BadInput, NotApplicable, Unavailable
from ...tasks.measure import estimate
from ...tasks.predictions import read_predictions
from ..result import Result
from .archive import shown

if TYPE_CHECKING:
    from ...tasks import Dataset, Task

CLOSE = 1e-10  # relative: what another order of the same additions may change a score by


def rescore(result: Result, path: Path, name: str, task: "Task", data: "Dataset") -> None:
    """Scores of predictions against `data`; raises BadInput where a score or an interval does not follow from them."""
    where = f"results/{result.id}.json"
    try:
        found = estimate(task.measure(read_predictions(path), data), seed=0)
    except (NotApplicable, Unavailable):
        raise
    except Exception as error:  # whatever a stranger's columns may do to a measure that trusts its own
        said = error if isinstance(error, BadInput) else f"{type(error).__name__}: {_first(error)}"
        raise BadInput(f"{name}: columns: cannot be scored as {task.name}: {shown(said, 300)}") from None
    if lacking := sorted(found.keys() - result.scores.keys()):
        raise BadInput(f"{where}: scores.{lacking[0]}: is missing, its predictions give {found[lacking[0]].value:g}")
    if made_up := sorted(result.scores.keys() - found.keys()):
        raise BadInput(f"{where}: scores.{shown(made_up[0])}: its predictions give no such score")
    for score, told in result.scores.items():
        for part in ("value", "low", "high"):
            ours, theirs = getattr(found[score], part), getattr(told, part)
            if not math.isclose(ours, theirs, rel_tol=CLOSE, abs_tol=1e-13):
                raise BadInput(
                    f"{where}: scores.{score}.{part}: {theirs!r} does not follow from its predictions, {ours!r} does"
                )


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
