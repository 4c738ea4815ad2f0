"""A stranger's record: its names, numbers and ids must be those of the task, of its card and of our own data."""

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ...backbones import BackboneCard, find_backbone
from ...backbones.card import _leaves as leaves
from ...backbones.errors import BadInput, unknown
from ...backbones.reading import validate
from ...tasks import find_task, list_tasks
from ...tasks.datasets import DatasetCard
from ...tasks.task import settings_of
from ..cells import beside, cell_id, column_id, in_memory
from ..result import Result
from .archive import shown
from .bundle import CARD
from .strict import printable
from .truth import Truth

if TYPE_CHECKING:
    from ...tasks import Dataset, Task

SEEDS = 100  # a suite has no more
HERE = ("timm", "mini", "open_clip", "torchvision")  # what these sources' names mean hangs on backbench and them alone
AHEAD = timedelta(days=1)  # a clock may be wrong, but the newest of equal runs counts


def check_paths(card: BackboneCard, where: str) -> None:
    """Raises BadInput where a stranger's card names a place on the machine of who reads it."""
    named = {"model": card.model, "checkpoint.path": card.checkpoint.path if card.checkpoint else ""}
    named |= {f"model_args.{key}": value for key, value in leaves(card.model_args) if isinstance(value, str)}
    for key, text in named.items():
        path = re.sub(r"^(https|hf)://", "", text) if key == "checkpoint.path" else text
        parts = re.split(r"[/:]", path)
        if path.startswith("/") or re.search(r"[\\~]|:/", path) or ".." in parts:
            raise BadInput(f"{where}: {shown(key)}: {shown(text)!r} leads to a place on the reader's machine")


def check_task(result: Result, where: str) -> "Task":
    """The task of a record, which is of its present version and whose recipe is whole. Raises BadInput."""
    known = {entry.name: entry for entry in list_tasks()}
    if result.task.name not in known:
        raise unknown("task", shown(result.task.name), known, where=f"{where}: task.name")
    task = find_task(result.task.name)
    if result.task.version != task.version:
        raise BadInput(f"{where}: task.version: {task.name} is at version {task.version} here, the record is of "
                       f"{result.task.version}; run it again")  # fmt: skip
    facts = {"family": task.family, "headline": task.headline}
    for key, expected in facts.items():
        if (told := getattr(result.task, key)) != expected:
            raise BadInput(f"{where}: task.{key}: {shown(told)!r}, of {task.name} it is {expected!r}")
    if result.dataset.kind != task.needs.data:
        raise BadInput(f"{where}: dataset.kind: {shown(result.dataset.kind)!r}, {task.name} needs {task.needs.data!r}")
    try:
        recipe = settings_of(task.recipe(result.recipe))
    except BadInput as error:
        raise BadInput(f"{where}: recipe: {shown(error, 300)}") from None
    if recipe != result.recipe:
        key = sorted(k for k in recipe.keys() | result.recipe.keys() if recipe.get(k) != result.recipe.get(k))[0]
        raise BadInput(f"{where}: recipe.{key}: {shown(result.recipe.get(key))}, whole it reads {shown(recipe[key])}")
    return task


def check_scores(result: Result, task: "Task", where: str) -> None:
    """Units, ranges and directions are those that the task declares."""
    for name, score in result.scores.items():
        try:
            metric = task.metric(name)
        except StopIteration:
            raise unknown("score", shown(name), task.scores, where=f"{where}: scores.{shown(name)}") from None
        declared = {
            "unit": metric.unit,
            "range_low": metric.low,
            "range_high": metric.high,
            "higher_is_better": metric.higher_is_better,
        }
        for key, expected in declared.items():
            if (told := getattr(score, key)) != expected:
                raise BadInput(f"{where}: scores.{name}.{key}: {shown(repr(told))}, {task.name} declares {expected!r}")


def check_times(result: Result, where: str) -> None:
    """When it was made, by which seed, and who has checked it, as far as a stranger may say. Raises BadInput."""
    if result.created > datetime.now(UTC) + AHEAD:
        raise BadInput(f"{where}: created: {result.created.isoformat()} is yet to come; set the clock")
    if result.seed >= SEEDS:
        raise BadInput(f"{where}: seed: {result.seed}, seeds are 0 to {SEEDS - 1}")
    if result.trust == "published":
        raise BadInput(f"{where}: trust: 'published' is for tables of others, see `backbench import`")


def check_backbone(result: Result, card: BackboneCard, where: str) -> None:
    """The record's card is the bundle's, and its digest the card's, as far as that can be known without its files."""
    told = printable(validate, result.backbone.card, BackboneCard, f"{where}: backbone.card")
    check_paths(told, f"{where}: backbone.card")
    mine, theirs = _network(card), _network(told)
    if other := [key for key in mine if mine[key] != theirs[key]]:
        raise BadInput(f"{where}: backbone.card.{other[0]}: {shown(theirs[other[0]])}, {CARD} says "
                       f"{shown(mine[other[0]])}")  # fmt: skip
    if _same_everywhere(told) and told.digest() != result.backbone.card_digest:
        raise BadInput(f"{where}: backbone.card_digest: is not that of the card, {told.digest()}")


def _network(card: BackboneCard) -> dict[str, Any]:
    """What a card says that decides features, without where files lie."""
    about = {"name", "family", "pretraining", "license", "paper"}
    return card.model_dump(mode="json", exclude=about)


def _same_everywhere(card: BackboneCard) -> bool:
    """Whether a card's digest hangs on its text alone, or on files that come with backbench."""
    return card.source in HERE and card.checkpoint_file is None


def check_identity(result: Result, task: "Task", card: DatasetCard, where: str) -> None:
    """The cell's id is the hash of what the record says it is."""
    facts, network = result.dataset, result.backbone
    column = column_id(task, card, facts.fingerprints, result.recipe, facts.limit, result.cost.device)
    other = _other(result, where)
    for backbone in (network.card_digest, in_memory(network.card_digest, network.weights_digest)):
        seen = beside(backbone, other) if other else backbone
        if cell_id(column, seen, result.seed, network.loading) == result.cell_id:
            return
    raise BadInput(f"{where}: cell_id: is not that of its task, recipe, data, backbone and seed")


def _other(result: Result, where: str) -> str | None:
    """The digest of the backbone beside which this one was seen. Raises BadInput where that is none that all know."""
    name = result.recipe.get("other")
    if not isinstance(name, str):
        return None
    if name.endswith((".yaml", ".yml")) or name.partition("/")[0] not in HERE:  # neither files nor hubs are asked
        raise BadInput(f"{where}: recipe.other: {shown(name)!r} is no backbone whose name says all, as of {HERE[0]}")
    return printable(find_backbone, name).digest()


def check_data(result: Result, task: "Task", data: "Dataset", truth: Truth, where: str) -> None:
    """Splits, fingerprints and sizes are those of our own data."""
    told, splits = result.dataset, task.splits(data)
    for key in ("fingerprints", "sizes"):
        if wrong := sorted(getattr(told, key).keys() ^ set(splits)):
            lacks = "is missing" if wrong[0] in splits else "is no split of it that the task uses"
            raise BadInput(f"{where}: dataset.{key}.{shown(wrong[0])}: {lacks}; {told.name} has {', '.join(splits)}")
    prints = truth.prints(told.name, task, data)
    for split in splits:
        if told.fingerprints[split] != prints[split]:
            raise BadInput(f"{where}: dataset.fingerprints.{split}: is not that of {told.name} here, other images or "
                           "labels were scored")  # fmt: skip
        if told.sizes[split] != len(data[split]):
            raise BadInput(f"{where}: dataset.sizes.{split}: {told.sizes[split]}, it has {len(data[split])}")
