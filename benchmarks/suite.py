"""The suite card: which tasks on which data with which recipes and seeds, and which of them rank."""

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from ..backbones.errors import unknown
from ..backbones.reading import Strict, read_card

FOLDER = Path(__file__).parent / "suites"


class Entry(Strict):
    """One column of a suite. `recipe` holds only what differs from the task's defaults.

    `name`: of the column, where a task is on a data set more than once. `ranked: false` shows a column without ranking
    by it, as for scores that some backbones cannot have. `pairs: true`: once for each two backbones of a run, of which
    the recipe names the second as `other`; no column of a board, which has a row a backbone.
    """

    name: str = Field(default="", max_length=60)
    task: str
    dataset: str
    recipe: dict[str, Any] = Field(default={})
    ranked: bool = True
    pairs: bool = False


class Suite(Strict):
    """A named list of entries; scores become one number by the mean z-score of each task family, then over families.

    `report: true`: a run ends with a page on every two of its backbones, side by side.
    """

    name: str = Field(default="", max_length=100)
    description: str
    backbones: tuple[str, ...] = ()
    seeds: int = Field(default=1, ge=1, le=100)
    report: bool = False
    entries: tuple[Entry, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _told_apart(self):
        keys = self.keys
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"two entries are both {key!r}; give one a `name`")
        return self

    @property
    def keys(self) -> list[str]:
        """What each entry's column is called: its name, else its task, `task@dataset` where several data sets are."""
        pairs = {(entry.task, entry.dataset) for entry in self.entries}
        often = Counter(task for task, _ in pairs)
        return [e.name or (e.task if often[e.task] == 1 else f"{e.task}@{Path(e.dataset).stem}") for e in self.entries]


def list_suites() -> list[str]:
    """Names of the packaged suites."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@cache
def find_suite(name: str) -> Suite:
    """A packaged suite by name, or one of your own by the path of its YAML. Raises BadInput."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if path.parent == FOLDER and name not in list_suites():
        raise unknown("suite", name, list_suites())
    suite = read_card(path, Suite)
    return suite if suite.name else suite.model_copy(update={"name": path.stem})
