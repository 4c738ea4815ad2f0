"""Backbones in pairs, task by task: the paired difference of their headline scores from the stored predictions."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from math import erfc, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backbones.errors import BadInput
from .result import Result

if TYPE_CHECKING:
    from ..tasks import Dataset, Measure

SMALLEST = 1e-12  # p-value that is told from so rough an estimate
LEVEL = 0.05  # of the family-wise error, below which a difference is called real


@dataclass(frozen=True)
class Difference:
    """`a`, `b`: headline scores (mean over seeds); `difference` = a - b with its 95 % interval, in `unit`.

    `test`: what gave the two-sided `p`, `mcnemar` (exact) or `bootstrap` (paired); `p_holm`: corrected for all pairs
    and tasks compared at once.
    """

    backbone_a: str
    backbone_b: str
    task: str
    dataset: str
    family: str
    metric: str
    unit: str
    higher_is_better: bool
    a: float
    b: float
    difference: float
    low: float
    high: float
    test: str
    p: float
    p_holm: float
    seeds_a: int
    seeds_b: int

    @property
    def better(self) -> str | None:
        """`a` or `b`: which is better beyond chance; None where they cannot be told apart."""
        if self.p_holm >= LEVEL or self.difference == 0:
            return None
        return "a" if (self.difference > 0) == self.higher_is_better else "b"


def compare(
    results_a: Iterable[Result],
    results_b: Iterable[Result],
    measure_of: Callable[[Result], "Measure"],
    seed: int = 0,
) -> list[Difference]:
    """`compare_all` of two backbones."""
    return compare_all([results_a, results_b], measure_of, seed)


def compare_all(
    sides: Sequence[Iterable[Result]], measure_of: Callable[[Result], "Measure"], seed: int = 0
) -> list[Difference]:
    """The difference of every two backbones in every task that both ran by the same protocol, pair by pair; the results
    of each may hold several seeds. `measure_of` gives the measure of a result's predictions (see `stored_measure`).
    Raises BadInput."""
    runs = [by_protocol(side) for side in sides]
    if len(runs) < 2 or not all(runs):
        raise BadInput("nothing to compare: a side has no results; `backbench leaderboard` shows what has been run")
    found: dict[tuple[int, int], list[Difference]] = {pair: [] for pair in combinations(range(len(runs)), 2)}
    for protocol in dict.fromkeys(protocol for side in runs for protocol in side):
        took_part = {i: side[protocol] for i, side in enumerate(runs) if protocol in side}
        if len(took_part) > 1:  # each side is measured once, however many pairs it is in
            seen = {i: _Seen.of(own, measure_of, seed, side=i) for i, own in took_part.items()}
            for one, other in combinations(seen, 2):
                found[one, other].append(_difference(seen[one], seen[other]))
    for (one, other), differences in found.items():
        if not differences:
            names = " and ".join(next(iter(runs[i].values()))[0].backbone.name for i in (one, other))
            raise BadInput(
                f"{names} have no task in common, run by the same recipe on the same data; run one as the other"
            )
    every = [d for differences in found.values() for d in differences]
    return [replace(d, p_holm=p) for d, p in zip(every, holm([d.p for d in every]), strict=True)]


@lru_cache(maxsize=4)  # cells of one data set follow on each other: build it once
def _packaged(name: str, kind: Any, limit: int | None, home: Path) -> "Dataset":
    from ..tasks import find_dataset, load_dataset

    return load_dataset(find_dataset(name, home), kind, limit=limit)


def stored_measure(home: Path, data_of: Callable[[Result], "Dataset"] | None = None) -> Callable[[Result], "Measure"]:
    """For `compare`: measures a result's predictions, kept under `home`, again on `data_of` it: by default the packaged
    data set of its name. Raises BadInput where predictions or data are gone, or are not what they were."""
    from ..tasks import find_task, read_predictions
    from ..tasks.datasets.fingerprint import fingerprints
    from .submission.files import predictions_file

    def measure_of(result: Result) -> "Measure":
        path, again = predictions_file(home, result), f"run `backbench rerun {result.id}`"
        if path is None:
            first = home / result.predictions.path
            if first.is_file():
                raise BadInput(f"{first}: not the predictions that result {result.id} was made from; {again}")
            raise BadInput(f"{first}: no such file, it held the predictions of result {result.id}; {again}")
        facts = result.dataset
        data = data_of(result) if data_of else _packaged(facts.name, facts.kind, facts.limit, home)
        now = fingerprints(data.limited(None), result.dataset.fingerprints, home)  # a limit is no other data
        if changed := [split for split, mark in result.dataset.fingerprints.items() if now[split] != mark]:
            raise BadInput(f"dataset {data.name}: {changed[0]} is not what result {result.id} was made on; {again}")
        try:
            return find_task(result.task.name).measure(read_predictions(path), data)
        except KeyError as lacking:  # what the task keeps today, and did not then
            raise BadInput(f"{path}: holds no {lacking.args[0]}, it is of another version; {again}") from None

    return measure_of


def bootstrap_p(drawn: np.ndarray) -> float:
    """Two-sided p-value that a difference is 0, from its bootstrap replicates: (k + 1) / (B + 1) on either side, so
    never 0 (Davison & Hinkley 1997, §4.2).

    Where no replicate reaches 0 that only says less than 2 / (B + 1), which no correction for many comparisons would
    leave small; there it is the normal distribution's, with the replicates' mean and deviation, if that is less.
    """
    tail = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    counted = float(min(1.0, 2 * (tail + 1) / (len(drawn) + 1)))
    deviation = float(np.std(drawn))
    if tail or not deviation:
        return counted
    return min(counted, max(erfc(abs(float(np.mean(drawn))) / deviation / sqrt(2)), SMALLEST))


def mcnemar_p(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p-value that two are right equally often, `a` and `b` (n,) bool on the same examples: the exact test of
    the examples where only one is (McNemar 1947)."""
    from scipy.stats import binomtest

    only_a, only_b = np.count_nonzero(a & ~b), np.count_nonzero(b & ~a)
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down method (Holm 1979)."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return corrected.tolist()


def by_protocol(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results by what may be compared; of the same run done twice only the newer."""
    newest = {(r.protocol, r.seed): r for r in sorted(results, key=lambda r: (r.created, r.id))}
    sides = defaultdict(list)
    for (protocol, _), r in newest.items():
        sides[protocol].append(r)
    return sides


@dataclass(frozen=True)
class _Seen:
    """A backbone's runs of one protocol, measured: their mean headline score, its (B,) replicates, the measures."""

    runs: list[Result]
    measures: list["Measure"]
    value: float
    drawn: np.ndarray

    @classmethod
    def of(cls, runs: list[Result], measure_of: Callable[[Result], "Measure"], seed: int, side: int) -> "_Seen":
        measures = [measure_of(r) for r in runs]
        return cls(runs, measures, *_headline(measures, runs[0].task.headline, seed, side))


def _difference(a: _Seen, b: _Seen) -> Difference:
    first = a.runs[0]
    if len(a.drawn) != len(b.drawn):
        raise BadInput(f"{first.task.name}: {len(a.drawn)} and {len(b.drawn)} bootstrap replicates cannot be paired")
    drawn, difference = a.drawn - b.drawn, a.value - b.value
    low, high = np.percentile(drawn, [2.5, 97.5])
    exact = _counted(a.measures, b.measures)
    return Difference(
        backbone_a=first.backbone.name,
        backbone_b=b.runs[0].backbone.name,
        task=first.task.name,
        dataset=first.dataset.name,
        family=first.task.family,
        metric=first.task.headline,
        unit=first.headline.unit,
        higher_is_better=first.headline.higher_is_better,
        a=a.value,
        b=b.value,
        difference=difference,
        low=float(min(low, difference)),
        high=float(max(high, difference)),
        test="bootstrap" if exact is None else "mcnemar",
        p=bootstrap_p(drawn) if exact is None else exact,
        p_holm=1.0,
        seeds_a=len(a.runs),
        seeds_b=len(b.runs),
    )


def _counted(a: list["Measure"], b: list["Measure"]) -> float | None:
    """McNemar's p-value, where there is one run a side and both count right answers on independent examples."""
    if len(a) != 1 or len(b) != 1:
        return None
    (one,), (other,) = a, b
    if one.right is None or other.right is None or any(f is not None for f in (one.groups, one.trials)):
        return None
    return mcnemar_p(one.right, other.right)


def _headline(measures: list["Measure"], headline: str, seed: int, side: int) -> tuple[float, np.ndarray]:
    """Mean over seeds of the headline score, and its (B,) replicates.

    The same `seed` draws the same examples for every side; with several training seeds these are drawn anew in every
    replicate too, for each side on its own, so that luck in training counts as much as luck in the examples.
    """
    from ..tasks.measure import replicate

    values, replicates = [], []
    for measure in measures:
        scores = measure.scores(np.ones(measure.examples))
        values.append(scores[headline])
        replicates.append(replicate(measure, seed)[:, list(scores).index(headline)])
    table = np.array(replicates)  # (seeds, B)
    picked = np.random.default_rng([seed, side]).integers(0, len(measures), table.shape)
    return float(np.mean(values)), np.take_along_axis(table, picked, axis=0).mean(axis=0)
