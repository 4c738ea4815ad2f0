"""Two backbones, task by task: the paired difference of their headline scores from the stored predictions."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backbones.card import file_digest
from ..backbones.errors import BadInput
from .result import Result

if TYPE_CHECKING:
    from ..tasks import Dataset, Measure

LEVEL = 0.05  # of the family-wise error, below which a difference is called real


@dataclass(frozen=True)
class Difference:
    """`a`, `b`: headline scores (mean over seeds); `difference` = a - b with its 95 % interval, in `unit`.

    `test`: what gave the two-sided `p`, `mcnemar` (exact) or `bootstrap` (paired); `p_holm`: corrected for all tasks
    compared at once.
    """

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
    """The difference of two backbones in every task that both ran by the same protocol; the results may hold several
    seeds each. `measure_of` gives the measure of a result's predictions (see `stored_measure`). Raises BadInput."""
    a, b = _by_protocol(results_a), _by_protocol(results_b)
    if not a or not b:
        raise BadInput("nothing to compare: a side has no results; `backbench leaderboard` shows what has been run")
    shared = [protocol for protocol in a if protocol in b]
    if not shared:
        names = " and ".join(next(iter(side.values()))[0].backbone.name for side in (a, b))
        raise BadInput(f"{names} have no task in common, run by the same recipe on the same data; run one as the other")
    found = [_difference(a[protocol], b[protocol], measure_of, seed) for protocol in shared]
    corrected = holm([d.p for d in found])
    return [replace(d, p_holm=p) for d, p in zip(found, corrected, strict=True)]


@lru_cache(maxsize=4)  # cells of one data set follow on each other: build it once
def _packaged(name: str, kind: Any, limit: int | None, home: Path) -> "Dataset":
    from ..tasks import find_dataset, load_dataset

    return load_dataset(find_dataset(name, home), kind, limit=limit)


def stored_measure(home: Path, data_of: Callable[[Result], "Dataset"] | None = None) -> Callable[[Result], "Measure"]:
    """For `compare`: measures a result's predictions, kept under `home`, again on `data_of` it: by default the packaged
    data set of its name. Raises BadInput where predictions or data are gone, or are not what they were."""
    from ..tasks import find_task, read_predictions
    from ..tasks.datasets.fingerprint import fingerprints

    def measure_of(result: Result) -> "Measure":
        path, again = home / result.predictions.path, f"run `backbench rerun {result.id}`"
        if not path.is_file():
            raise BadInput(f"{path}: no such file, it held the predictions of result {result.id}; {again}")
        if file_digest(path) != result.predictions.sha256:
            raise BadInput(f"{path}: not the predictions that result {result.id} was made from; {again}")
        facts = result.dataset
        data = data_of(result) if data_of else _packaged(facts.name, facts.kind, facts.limit, home)
        now = fingerprints(data.limited(None), result.dataset.fingerprints, home)  # a limit is no other data
        if changed := [split for split, mark in result.dataset.fingerprints.items() if now[split] != mark]:
            raise BadInput(f"dataset {data.name}: {changed[0]} is not what result {result.id} was made on; {again}")
        return find_task(result.task.name).measure(read_predictions(path), data)

    return measure_of


def bootstrap_p(drawn: np.ndarray) -> float:
    """Two-sided p-value that a difference is 0, from its bootstrap replicates: (k + 1) / (B + 1) on either side, so
    never 0 (Davison & Hinkley 1997, §4.2)."""
    tail = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    return float(min(1.0, 2 * (tail + 1) / (len(drawn) + 1)))


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


def _by_protocol(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results by what may be compared; of the same run done twice only the newer."""
    newest = {(r.protocol, r.seed): r for r in sorted(results, key=lambda r: (r.created, r.id))}
    sides = defaultdict(list)
    for (protocol, _), r in newest.items():
        sides[protocol].append(r)
    return sides


def _difference(a: list[Result], b: list[Result], measure_of, seed: int) -> Difference:
    first = a[0]
    measures_a, measures_b = ([measure_of(r) for r in side] for side in (a, b))
    value_a, drawn_a = _headline(measures_a, first.task.headline, seed, side=0)
    value_b, drawn_b = _headline(measures_b, first.task.headline, seed, side=1)
    if len(drawn_a) != len(drawn_b):
        raise BadInput(f"{first.task.name}: {len(drawn_a)} and {len(drawn_b)} bootstrap replicates cannot be paired")
    drawn, difference = drawn_a - drawn_b, value_a - value_b
    low, high = np.percentile(drawn, [2.5, 97.5])
    exact = _counted(measures_a, measures_b)
    return Difference(
        task=first.task.name,
        dataset=first.dataset.name,
        family=first.task.family,
        metric=first.task.headline,
        unit=first.headline.unit,
        higher_is_better=first.headline.higher_is_better,
        a=value_a,
        b=value_b,
        difference=difference,
        low=float(min(low, difference)),
        high=float(max(high, difference)),
        test="bootstrap" if exact is None else "mcnemar",
        p=bootstrap_p(drawn) if exact is None else exact,
        p_holm=1.0,
        seeds_a=len(a),
        seeds_b=len(b),
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

    The same `seed` draws the same examples for both sides; with several training seeds these are drawn anew in every
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
