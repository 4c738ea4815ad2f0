"""What a task is: a declaration first, the protocol under it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel

from ..backbones.errors import BadInput, NotApplicable
from ..backbones.reading import Strict, validate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..backbones import Backbone
    from .context import Context
    from .datasets import Dataset
    from .measure import Measure
    from .predictions import Predictions

Kind = Literal["classification", "multilabel", "episodes", "detection", "segmentation", "retrieval", "pairs"]


@dataclass(frozen=True)
class Metric:
    """The unit of a score, its range, and which way is better.

    `noise`: by which share of the larger one two measurements of the same may differ, where it is timed.
    """

    unit: str
    low: float
    high: float
    higher_is_better: bool = True
    noise: float = 0.0


percent = Metric("%", 0.0, 100.0)
percent_error = Metric("%", 0.0, 100.0, higher_is_better=False)


def Scores(**metrics: Metric) -> dict[str, Metric]:
    """The scores that a task gives, the headline first; a name that ends in `*` stands for many, as one a label."""
    return metrics


@dataclass(frozen=True)
class Needs:
    """What a task uses: the kind of data, the splits by pattern, and parts of the backbone's interface."""

    data: Kind
    splits: tuple[str, ...] = ("train", "val", "test")
    maps: bool = False
    text: bool = False
    layers: bool = False


class TaskRecipe(Strict):
    """The constants of a protocol that a run may set with `--set KEY=VALUE`."""


@dataclass
class Outcome:
    """What a run gives: predictions by column (one row an example), and what was chosen on validation."""

    predictions: "Predictions"
    chosen: dict[str, Any] = field(default_factory=dict)


class Task:
    """One protocol. `run` makes predictions; `measure` turns predictions into scores, and nothing else does."""

    name: ClassVar[str]
    family: ClassVar[str]
    version: ClassVar[int]
    needs: ClassVar[Needs]
    scores: ClassVar[dict[str, Metric]]
    Recipe: ClassVar[type[TaskRecipe]] = TaskRecipe
    trains: ClassVar[bool] = False  # by `training.loop`, so that several processes may share the work

    def run(self, backbone: "Backbone", data: "Dataset", recipe: Any, context: "Context") -> Outcome:
        """Predictions for the test examples; nothing may be chosen on the split that is reported."""
        raise NotImplementedError

    def measure(self, predictions: "Predictions", data: "Dataset") -> "Measure":
        """Scores of stored predictions against the data set's own labels, as a function of example weights."""
        raise NotImplementedError

    def picture(self, predictions: "Predictions", data: "Dataset") -> "Figure | None":
        """What stored predictions look like, where a picture says it better than scores (see `pictures.py`)."""
        return None

    @property
    def headline(self) -> str:
        """The score that ranks: the first declared."""
        return next(iter(self.scores))

    def metric(self, score: str) -> Metric:
        """What is declared of a score that `measure` gave."""
        return next(metric for name, metric in self.scores.items() if fnmatchcase(score, name))

    def recipe(self, settings: Mapping[str, Any] | None = None) -> TaskRecipe:
        """The recipe with `settings` laid over the defaults. Raises BadInput naming the key."""
        return validate(dict(settings or {}), self.Recipe, where=f"recipe of {self.name}")

    def check_data(self, data: "Dataset") -> None:
        """Raises BadInput unless the data set is of the kind this task needs, with the splits it needs."""
        for pattern in self.needs.splits:
            if not any(fnmatchcase(name, pattern) for name in data.split_names):
                there = ", ".join(data.split_names)
                raise BadInput(f"dataset {data.name}: {self.name} needs a split {pattern!r}; there are: {there}")

    def check_backbone(self, backbone: "Backbone") -> None:
        """Raises NotApplicable when the backbone lacks a part of the interface that this task uses."""
        if self.needs.text and not backbone.has_text:
            raise NotApplicable(f"{backbone.name} has no text tower")
        if self.needs.maps and not backbone.levels:
            raise NotApplicable(f"{backbone.name} has no feature maps")
        if self.needs.layers and not backbone.blocks:
            raise NotApplicable(f"{backbone.name} has no blocks that follow each other, so no layers to probe")

    def splits(self, data: "Dataset") -> list[str]:
        """Names of the splits of `data` that this task uses."""
        return [n for n in data.split_names if any(fnmatchcase(n, p) for p in self.needs.splits)]


def settings_of(recipe: BaseModel) -> dict[str, Any]:
    """A recipe as JSON, defaults included: part of a cell's identity."""
    return recipe.model_dump(mode="json")
