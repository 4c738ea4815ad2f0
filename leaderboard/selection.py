"""Which results go into a board: its columns, and what may stand side by side in them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..backbones.reading import digest
from .result import Result


@dataclass(frozen=True)
class Asked:
    """What a column asks for: a task on a data set and, where that is there several times, what its recipe says."""

    key: str
    task: str
    dataset: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    ranked: bool = True

    def takes(self, result: Result) -> bool:
        """Whether a result is of this task, on these data, by such a recipe."""
        of = result.task.name, result.dataset.name
        return of == (self.task, self.dataset) and all(_says(result.recipe.get(k), v) for k, v in self.recipe.items())


@dataclass(frozen=True, kw_only=True)
class Column(Asked):
    """One score of one task on one data set. `ranked=False`: shown, but no part of the ranking."""

    family: str
    metric: str
    unit: str
    higher_is_better: bool


def owner(result: Result, columns: Iterable[Asked]) -> str | None:
    """The key of the column that a result belongs to: of those that take it the one that asks for most."""
    return max((c for c in columns if c.takes(result)), key=lambda c: len(c.recipe), default=_NOBODY).key or None


def headline_columns(
    results: Iterable[Result], unranked: Iterable[str] = (), asked: Sequence[Asked] = ()
) -> list[Column]:
    """A column for the headline of all that is `asked` for and was run, in that order.

    Where nothing is, of every task and data set among `results`, in order of appearance: their keys are task names,
    `task@dataset` where several data sets were run; `unranked` names tasks that are shown without being ranked.
    """
    results = sorted(results, key=lambda r: (r.created, r.id))
    if not asked:
        pairs = list(dict.fromkeys((r.task.name, r.dataset.name) for r in results))
        often, plain = Counter(task for task, _ in pairs), set(unranked)
        keys = {(task, data): task if often[task] == 1 else f"{task}@{data}" for task, data in pairs}
        asked = [Asked(key, task, data, ranked=task not in plain) for (task, data), key in keys.items()]
    newest = {owner(result, asked): result for result in results}
    return [
        Column(
            **vars(one),
            family=result.task.family,
            metric=result.task.headline,
            unit=result.headline.unit,
            higher_is_better=result.headline.higher_is_better,
        )
        for one in asked
        if (result := newest.get(one.key))
    ]


def comparable(results: Sequence[Result], columns: Sequence[Column]) -> tuple[list[Result], dict[str, str]]:
    """The results that may stand side by side in `columns`, and for each other one in them the reason why not.

    Of a backbone only its present card and weights count; of a column only the protocol (task version, recipe, data)
    that most backbones were run by; of the same run done twice only the newer; figures copied from elsewhere never.
    """
    left_out: dict[str, str] = {}
    own = {r.id: key for r in results if (key := owner(r, columns))}
    wanted = sorted((r for r in results if r.id in own), key=lambda r: (r.created, r.id))

    def keep(reason: str, rule) -> None:
        left_out.update({r.id: reason for r in wanted if not rule(r)})
        wanted[:] = [r for r in wanted if r.id not in left_out]

    keep("published elsewhere, not run", lambda r: r.trust != "published")
    present = {r.backbone.name: _network(r) for r in wanted}
    keep("another card, weights or precision under this name", lambda r: _network(r) == present[r.backbone.name])
    followers = defaultdict(set)
    for r in wanted:
        followers[own[r.id], r.protocol].add(r.backbone.name)
    usual = {}
    for r in wanted:  # the newest last: it wins among protocols that equally many backbones followed
        column = own[r.id]
        if len(followers[column, r.protocol]) >= len(followers[column, usual.get(column, "")]):
            usual[column] = r.protocol
    keep("another version, recipe or data than most", lambda r: r.protocol == usual[own[r.id]])
    newest = {(r.backbone.name, own[r.id], r.seed): r.id for r in wanted}
    keep("run again since", lambda r: newest[r.backbone.name, own[r.id], r.seed] == r.id)
    return wanted, left_out


def _says(stored: Any, asked: Any) -> bool:
    """Whether a recipe's value is what a suite asks for, which may say one value where the recipe takes several."""
    if isinstance(asked, list | tuple) or not isinstance(stored, list):
        return stored == (list(asked) if isinstance(asked, tuple) else asked)
    return stored == [asked]


_NOBODY = Asked("", "", "")


def _network(result: Result) -> tuple[str, str, str]:
    return result.backbone.card_digest, result.backbone.weights_digest, digest(result.backbone.loading)
