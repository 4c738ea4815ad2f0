"""Which results go into a board: its columns, and what may stand side by side in them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .result import Identity, Result
from .snapshot import TRUSTS, Protocol, Snapshot

SHOWN = ""
REASONS = (  # why a result that a column takes is not on the board, by number; 0 is one that is
    SHOWN,
    "published elsewhere, not run",
    "another card, weights or precision under this name",
    "another version, recipe, data or device than most",
    "run again since",
)


@dataclass(frozen=True)
class Asked:
    """What a column asks for: a task on a data set and, where that is there several times, what its recipe says."""

    key: str
    task: str
    dataset: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    ranked: bool = True

    def takes(self, measured: Protocol) -> bool:
        """Whether something was measured by this task, on these data, by such a recipe."""
        of = measured.task, measured.dataset
        return of == (self.task, self.dataset) and all(_says(measured.recipe.get(k), v) for k, v in self.recipe.items())


@dataclass(frozen=True, kw_only=True)
class Column(Asked):
    """One score of one task on one data set. `ranked=False`: shown, but no part of the ranking."""

    family: str
    metric: str
    unit: str
    higher_is_better: bool


@dataclass(frozen=True, eq=False)
class Selection:
    """The table of a board: n backbones in order of name, m columns.

    `value`, `low`, `high` (n, m): mean over seeds with its interval, nan where there is none; `trust` (n, m): of the
    least checked seed, an index into TRUSTS. `rows` (n,): indices of the names; `networks` (n,): of the facts.
    `runs`: indices of the results behind the cells, cell by cell and by seed; those of cell (i, j) are
    `runs[starts[i * m + j] : starts[i * m + j + 1]]`. `reasons` (results,): index into REASONS, -1 in no column.
    """

    rows: np.ndarray
    networks: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    trust: np.ndarray
    runs: np.ndarray
    starts: np.ndarray
    reasons: np.ndarray


def as_snapshot(results: Snapshot | Iterable[Result]) -> Snapshot:
    """Results in columns, if they are not yet."""
    return results if isinstance(results, Snapshot) else Snapshot.of(results)


def headline_columns(
    results: Snapshot | Iterable[Result], unranked: Iterable[str] = (), asked: Sequence[Asked] = (), source: str = ""
) -> list[Column]:
    """A column for the headline of all that is `asked` for and was run, in that order.

    Where nothing is, of every task and data set among `results`, in order of appearance: their keys are task names,
    `task@dataset` where several data sets were run; `unranked` names tasks that are shown without being ranked.
    `source`: of a published table, whose figures take the place of runs.
    """
    snapshot = as_snapshot(results)
    last = _last(snapshot.protocols, len(snapshot.protocol_texts))
    first = len(snapshot) - 1 - _last(snapshot.protocols[::-1], len(snapshot.protocol_texts))
    known = [(p, i) for i, p in enumerate(snapshot.parsed_protocols) if p.source == source and last[i] >= 0]
    if not asked:
        appeared = sorted(known, key=lambda known: first[known[1]])
        pairs = list(dict.fromkeys((p.task, p.dataset) for p, _ in appeared))
        often, plain = Counter(task for task, _ in pairs), set(unranked)
        keys = {(task, data): task if often[task] == 1 else f"{task}@{data}" for task, data in pairs}
        asked = [Asked(key, task, data, ranked=task not in plain) for (task, data), key in keys.items()]
    newest: dict[str | None, Protocol] = {_owner(p, asked): p for p, _ in sorted(known, key=lambda k: last[k[1]])}
    return [
        Column(
            **vars(one),
            family=found.family,
            metric=found.metric,
            unit=found.unit,
            higher_is_better=found.higher_is_better,
        )
        for one in asked
        if (found := newest.get(one.key))
    ]


def select(
    snapshot: Snapshot, columns: Sequence[Column], source: str = "", keep: Callable[[Identity], bool] | None = None
) -> Selection:
    """What of a snapshot may stand side by side in `columns`.

    Of a backbone only its present card and weights count; of a column only the protocol (task version, recipe, data)
    that most backbones were run by; of the same run done twice only the better checked, else the newer: nobody takes a
    place from what was reproduced. Figures copied from elsewhere never count, unless the board is of their `source`.
    `keep`: which backbones take part.
    """
    m, names = len(columns), len(snapshot.named)
    place = {c.key: j for j, c in enumerate(columns)}
    protocols = snapshot.parsed_protocols
    column_of = [place.get(_owner(p, columns) or "", -1) if p.source == source else -1 for p in protocols]
    own = np.array([*column_of, -1])[snapshot.protocols]
    reasons = np.where(own >= 0, 0, -1).astype(np.int8)
    wanted = np.flatnonzero(own >= 0)  # the oldest first, so that the last of equals is the newest

    def only(good: np.ndarray, reason: int) -> None:
        nonlocal wanted
        if not good.all():
            reasons[wanted[~good]] = reason
            wanted = wanted[good]

    if not source:
        only(snapshot.trust[wanted] != TRUSTS.index("published"), 1)
    name, weights = snapshot.names, snapshot.weights
    best = wanted[np.argsort(snapshot.trust[wanted], kind="stable")]  # the best checked last, the newest of them
    only(weights[wanted] == weights[_last(name[best], names, best)[name[wanted]]], 2)
    if keep is not None and len(wanted):
        networks = snapshot.networks[wanted]
        kept = np.zeros(len(snapshot.network_texts), bool)
        for network in np.unique(networks):
            kept[network] = keep(snapshot.facts(network))
        only(kept[networks], -1)
    only(_usual(snapshot, wanted, own[wanted]), 3)
    seed, seeds = _numbered(snapshot.seeds[wanted])
    run = (name[wanted].astype(np.int64) * m + own[wanted]) * seeds + seed
    best = np.argsort(snapshot.trust[wanted], kind="stable")
    shown = _last(run[best], names * m * seeds, wanted[best])[run] == wanted
    only(shown, 4)
    return _table(snapshot, wanted, own[wanted], seed[shown], seeds, m, reasons)


def _table(
    snapshot: Snapshot, wanted: np.ndarray, own: np.ndarray, seed: np.ndarray, seeds: int, m: int, reasons: np.ndarray
) -> Selection:
    present = np.flatnonzero(np.bincount(snapshot.names[wanted], minlength=len(snapshot.named)))
    rows = np.array(sorted(present.tolist(), key=snapshot.named.__getitem__), int)
    at = np.zeros(len(snapshot.named), int)
    at[rows] = np.arange(len(rows))
    cell = at[snapshot.names[wanted]] * m + own
    runs = _last(cell * seeds + seed, len(rows) * m * seeds, wanted)  # by cell and seed, without sorting
    runs = runs[runs >= 0]
    count = np.bincount(cell, minlength=len(rows) * m)
    starts = np.concatenate([[0], np.cumsum(count)])
    table = np.full((4, len(rows) * m), np.nan)
    taken = np.flatnonzero(count == 1)
    single = runs[starts[taken]]
    table[:, taken] = [a[single] for a in (snapshot.value, snapshot.low, snapshot.high, snapshot.trust)]
    for place in np.flatnonzero(count > 1):
        own_runs = runs[starts[place] : starts[place + 1]]
        one = snapshot.parsed_protocols[snapshot.protocols[own_runs[0]]]
        scores = snapshot.value[own_runs], snapshot.low[own_runs], snapshot.high[own_runs]
        table[:, place] = *averaged(*scores, one.range_low, one.range_high), snapshot.trust[own_runs].min()
    value, low, high, trust = table.reshape(4, len(rows), m)
    newest = _last(snapshot.names[wanted], len(snapshot.named), wanted)[rows]
    return Selection(rows, snapshot.networks[newest], value, low, high, trust, runs, starts, reasons)


def averaged(value: np.ndarray, low: np.ndarray, high: np.ndarray, range_low: float, range_high: float) -> tuple:
    """Mean over seeds. Its interval: the mean bootstrap half-width, added in squares to the t-interval of the mean over
    seeds. All seeds share the test examples, so more seeds narrow the second part and not the first."""
    from scipy.special import stdtrit

    mean = float(value.mean())
    between = float(stdtrit(len(value) - 1, 0.975) * value.std(ddof=1) / np.sqrt(len(value)))
    below, above = np.hypot(np.mean(value - low), between), np.hypot(np.mean(high - value), between)
    return mean, max(mean - below, min(mean, range_low)), min(mean + above, max(mean, range_high))


def _usual(snapshot: Snapshot, wanted: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Of results of columns `own`, which are by the protocol that most backbones were run by in their column; of those
    that equally many were, the one that the newest is by."""
    digests: dict[str, int] = {}
    code = [digests.setdefault(p.digest, len(digests)) for p in snapshot.parsed_protocols]
    code_of = np.array([*code, 0])[snapshot.protocols[wanted]]
    good = np.ones(len(wanted), bool)
    several = np.zeros(own.max(initial=-1) + 1, int)
    pairs = np.unique(own.astype(np.int64) * (len(digests) + 1) + code_of)
    np.add.at(several, pairs // (len(digests) + 1), 1)
    for column in np.flatnonzero(several > 1):
        here = np.flatnonzero(own == column)
        by = zip(code_of[here].tolist(), snapshot.names[wanted[here]].tolist(), strict=True)
        followers = Counter(code for code, _ in set(by))
        newest = {c: i for i, c in enumerate(code_of[here].tolist())}
        good[here] = code_of[here] == max(followers, key=lambda c: (followers[c], newest[c]))
    return good


def _numbered(seeds: np.ndarray) -> tuple[np.ndarray, int]:
    """Seeds as numbers from 0 in their order, and how many there may be."""
    if len(seeds) and seeds.max() < 100:  # as good as always
        return seeds, int(seeds.max()) + 1
    kinds, found = np.unique(seeds, return_inverse=True)
    return found, max(1, len(kinds))


def _last(codes: np.ndarray, kinds: int, values: np.ndarray | None = None) -> np.ndarray:
    """(kinds,) where each code stands for the last time, or its value there; -1 for one that is nowhere."""
    found = np.full(kinds, -1)
    found[codes] = np.arange(len(codes)) if values is None else values  # of equal codes the last is what stays
    return found


def _owner(measured: Protocol, columns: Iterable[Asked]) -> str | None:
    """The key of the column that a protocol belongs to: of those that take it the one that asks for most."""
    return max((c for c in columns if c.takes(measured)), key=lambda c: len(c.recipe), default=_NOBODY).key or None


def _says(stored: Any, asked: Any) -> bool:
    """Whether a recipe's value is what a suite asks for, which may say one value where the recipe takes several."""
    if isinstance(asked, list | tuple) or not isinstance(stored, list):
        return stored == (list(asked) if isinstance(asked, tuple) else asked)
    return stored == [asked]


_NOBODY = Asked("", "", "")
