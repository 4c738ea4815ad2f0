"""The identity of a cell: the hash of exactly what can change its score, so that nobody can give it another name."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..backbones.reading import digest

if TYPE_CHECKING:
    from ..tasks import Task
    from ..tasks.datasets import DatasetCard

TIMED = "efficiency"  # the family whose scores are the device's as much as the backbone's


def column_id(
    task: "Task",
    card: "DatasetCard",
    prints: Mapping[str, str],
    recipe: Mapping[str, Any],
    limit: int | None,
    device: str = "",
) -> str:
    """sha256 of everything but backbone and seed: only rows that share it are comparable.

    `card` says what the classes are called, which matters where they are asked for in words; `prints`: fingerprints of
    the splits; `recipe`: all of it, defaults included; `device`: by name, which matters where it is timed.
    """
    naming = card.naming if task.needs.text else [card.classes, card.prompts]
    what = {"task": [task.name, task.version], "data": [prints, naming], "recipe": recipe, "limit": limit}
    return digest(what | {"device": device} if task.family == TIMED else what)


def cell_id(column: str, backbone: str, seed: int, loading: Mapping[Any, Any]) -> str:
    """sha256 of a column, the digest of a backbone, a seed, and options of loading that are not the usual ones."""
    what = {"column": column, "backbone": backbone, "seed": seed}
    return digest(what | {"loading": loading} if loading else what)


def beside(backbone: str, other: str) -> str:
    """What takes the place of a backbone's digest where a task sees it beside another one."""
    return digest({"backbone": backbone, "other": other})


def in_memory(card_digest: str, weights_digest: str) -> str:
    """The digest of a backbone that was built in Python: it may hold other weights than its card says."""
    return digest([card_digest, weights_digest])
