"""Which results go into a board: its columns, and what may stand side by side in them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..backbones.reading import digest
from .result import Result


@dataclass(frozen=True)
class Column:
    """One score of one task on one data set. `ranked=False`: shown, but no part of the ranking."""

    key: str
    task: str
    dataset: str
    family: str
    metric: str
    unit: str
    higher_is_better: bool
    ranked: bool = True


def headline_columns(results: Iterable[Result], unranked: Iterable[str] = ()) -> list[Column]:
    """A column for the headline of every task and data set among `results`, in order of appearance.

    `unranked` names tasks that are shown without being ranked. Keys are task names, `task@dataset` where several
    data sets were run.
    """
    first = {(r.task.name, r.dataset.name): r for r in sorted(results, key=lambda r: (r.created, r.id))}
    datasets = Counter(task for task, _ in first)
    return [
        Column(
            key=task if datasets[task] == 1 else f"{task}@{dataset}",
            task=task,
            dataset=dataset,
            family=r.task.family,
            metric=r.task.headline,
            unit=r.headline.unit,
            higher_is_better=r.headline.higher_is_better,
            ranked=task not in set(unranked),
        )
        for (task, dataset), r in first.items()
    ]


def comparable(results: Iterable[Result], columns: Sequence[Column]) -> tuple[list[Result], dict[str, str]]:
    """The results that may stand side by side in `columns`, and for each other one in them the reason why not.

    Of a backbone only its present card and weights count; of a column only the protocol (task version, recipe, data)
    that most backbones were run by; of the same run done twice only the newer; figures copied from elsewhere never.
    """
    left_out: dict[str, str] = {}
    keys = {(c.task, c.dataset) for c in columns}
    wanted = [r for r in results if (r.task.name, r.dataset.name) in keys]
    wanted.sort(key=lambda r: (r.created, r.id))

    def keep(reason: str, rule) -> None:
        left_out.update({r.id: reason for r in wanted if not rule(r)})
        wanted[:] = [r for r in wanted if r.id not in left_out]

    keep("published elsewhere, not run", lambda r: r.trust != "published")
    present = {r.backbone.name: _network(r) for r in wanted}
    keep("another card, weights or precision under this name", lambda r: _network(r) == present[r.backbone.name])
    followers = defaultdict(set)
    for r in wanted:
        followers[r.task.name, r.dataset.name, r.protocol].add(r.backbone.name)
    usual = {}
    for r in wanted:  # the newest last: it wins among protocols that equally many backbones followed
        column = r.task.name, r.dataset.name
        if len(followers[*column, r.protocol]) >= len(followers[*column, usual.get(column, "")]):
            usual[column] = r.protocol
    keep("another version, recipe or data than most", lambda r: r.protocol == usual[r.task.name, r.dataset.name])
    newest = {(r.backbone.name, r.task.name, r.dataset.name, r.seed): r.id for r in wanted}
    keep("run again since", lambda r: newest[r.backbone.name, r.task.name, r.dataset.name, r.seed] == r.id)
    return wanted, left_out


def _network(result: Result) -> tuple[str, str, str]:
    return result.backbone.card_digest, result.backbone.weights_digest, digest(result.backbone.loading)
