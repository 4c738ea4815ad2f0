"""From a suite and some backbones to cells, each with an id: the hash of exactly what can change its score."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backbones import Backbone, BackboneCard, BadInput, Loading, find_backbone
from ..backbones.errors import unknown
from ..backbones.loading import PLAIN, pick_device
from ..leaderboard.cells import beside, cell_id, column_id, in_memory
from ..tasks import Task, find_dataset, find_task, list_tasks, load_dataset
from ..tasks.datasets import DatasetCard
from ..tasks.datasets.fingerprint import fingerprints
from ..tasks.task import settings_of
from .suite import Entry, Suite, find_suite, list_suites

OTHER = "other"  # the recipe's key that names a second backbone


@dataclass(frozen=True)
class Cell:
    """One backbone at one task on one data set with one recipe and seed. `column` is what makes rows comparable.

    `other`: the second backbone, where the recipe names one.
    """

    backbone: BackboneCard | Backbone
    task: str
    dataset: DatasetCard
    settings: dict[str, Any]  # what differs from the recipe's defaults
    recipe: dict[str, Any]  # everything
    fingerprints: dict[str, str]
    seed: int
    limit: int | None
    column: str
    id: str
    loading: Loading = PLAIN
    name: str = ""  # of the suite's entry, where the task has several
    other: BackboneCard | Backbone | None = None

    @property
    def card(self) -> BackboneCard:
        """The backbone's card."""
        return self.backbone.card if isinstance(self.backbone, Backbone) else self.backbone

    @property
    def asked(self) -> str:
        """The task, with the entry's name where it has one."""
        return f"{self.task} ({self.name})" if self.name else self.task

    @property
    def label(self) -> str:
        """How a person recognises the cell."""
        return f"{self.card.name} · {self.asked} · {self.dataset.name}" + (f" · seed {self.seed}" if self.seed else "")


def resolve(target: str, dataset: str | None = None, settings: Mapping[str, Any] | None = None) -> Suite:
    """The suite that a suite's name, a suite card or a task's name stands for, with `settings` laid in.

    For a task a setting is `key`, the backbones are those of `quick`; in a suite it is `task.key`. Raises BadInput.
    """
    tasks = [entry.name for entry in list_tasks()]
    if target in tasks:
        entry = Entry(task=target, dataset=dataset or "digit-scenes", recipe=dict(settings or {}))
        backbones = find_suite("quick").backbones
        return Suite(name=target, description=f"{target} alone", backbones=backbones, entries=(entry,))
    if target not in list_suites() and not target.endswith((".yaml", ".yml")):
        raise unknown("suite or task", target, [*list_suites(), *tasks])
    suite = find_suite(target)
    entries = list(suite.entries)
    if dataset:
        entries = [entry.model_copy(update={"dataset": dataset}) for entry in entries]
        entries = [entry for i, entry in enumerate(entries) if entry not in entries[:i]]
    for key, value in (settings or {}).items():
        task, _, name = key.partition(".")
        if not name:
            raise BadInput(f"--set {key}=…: in a suite say which task: --set {entries[0].task}.{key}=…")
        if task not in {entry.task for entry in entries}:
            raise unknown("task", task, {entry.task for entry in entries}, where=f"--set {key}=…")
        entries = [e.model_copy(update={"recipe": e.recipe | {name: value}}) if e.task == task else e for e in entries]
    return suite.model_copy(update={"entries": tuple(entries)})


def find_backbones(names: Iterable[str | BackboneCard | Backbone]) -> list[BackboneCard | Backbone]:
    """Cards of the named backbones, in order, each once; a Backbone already built stays as it is."""
    found = [n if isinstance(n, BackboneCard | Backbone) else find_backbone(n) for n in names]
    if not found:
        raise BadInput("no backbone given; say which with --backbone NAME or --backbone CARD.yaml")
    names_seen: dict[str, str] = {}
    unique = []
    for item in found:
        card = item.card if isinstance(item, Backbone) else item
        identity = _backbone_digest(item)
        if names_seen.setdefault(card.name, identity) != identity:
            raise BadInput(f"two different backbones are both named {card.name!r}; give one card another `name:`")
        if identity not in {_backbone_digest(u) for u in unique}:
            unique.append(item)
    return unique


def plan(
    suite: Suite,
    backbones: Sequence[BackboneCard | Backbone],
    home: Path,
    *,
    seeds: int | None = None,
    limit: int | None = None,
    dataset: DatasetCard | None = None,
    strict: bool | None = None,
    loading: Loading = PLAIN,
    device: str = "auto",
) -> list[Cell]:
    """All cells, backbone by backbone, after every name, recipe and file they need was checked. Raises BadInput.

    `dataset` takes the place of the data sets that the entries name; `strict`, where given, that of their cards;
    `loading` is how cards are loaded, `device` where cells will run: what is timed there is another cell elsewhere.
    """
    from .cell import device_name

    columns, here = [], device_name(pick_device(device))
    for entry in suite.entries:
        task, card = find_task(entry.task), dataset or find_dataset(entry.dataset, home)
        card = card if strict is None else card.model_copy(update={"strict": strict})
        _check_recipe(task, entry)
        data = load_dataset(card, task.needs.data)
        task.check_data(data)
        columns.append((entry, task, card, fingerprints(data, task.splits(data), home)))
    cells = []
    for place, backbone in enumerate(backbones):
        how = backbone.loading if isinstance(backbone, Backbone) else loading
        for seed in range(seeds or suite.seeds):
            for entry, task, card, prints in columns:
                for name, settings, other in _settings(entry, backbones[place + 1 :]):
                    recipe = settings_of(task.recipe(settings))
                    column = column_id(task, card, prints, recipe, limit, here)
                    network = _backbone_digest(backbone)
                    if other is not None:
                        network = beside(network, _backbone_digest(other))
                    identity = cell_id(column, network, seed, how.identity)
                    data = card, settings, recipe, prints, seed, limit, column, identity, how, name, other
                    cells.append(Cell(backbone, entry.task, *data))
    return cells


def _check_recipe(task: Task, entry: Entry) -> None:
    """Raises BadInput where a recipe is none of the task's, or there is no key for the second of two backbones."""
    task.recipe(entry.recipe)
    if entry.pairs and OTHER not in task.Recipe.model_fields:
        raise BadInput(f"entry {entry.name or entry.task}: pairs: the recipe of {task.name} has no key {OTHER!r}")


def _settings(
    entry: Entry, following: Sequence[BackboneCard | Backbone]
) -> list[tuple[str, dict[str, Any], BackboneCard | Backbone | None]]:
    """What tells an entry's cells apart, their settings and second backbone: one cell, or one with each `following`."""
    if entry.pairs:
        found = [(other.name, other) for other in following]
        return [(f"with {name}", entry.recipe | {OTHER: name}, other) for name, other in found]
    named = entry.recipe.get(OTHER)
    return [(entry.name, entry.recipe, find_backbone(named) if isinstance(named, str) else None)]


def _backbone_digest(backbone: BackboneCard | Backbone) -> str:
    if isinstance(backbone, Backbone):
        return in_memory(backbone.card.digest(), backbone.weights_digest)
    return backbone.digest()
