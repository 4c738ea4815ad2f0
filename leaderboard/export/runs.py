"""One backbone's results as others count them: a score is the mean over the seeds of one protocol."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..result import Result, Score
from ..selection import averaged


@dataclass(frozen=True)
class Runs:
    """Results of one protocol (task version, recipe, data), by seed; `scores`: means over them with 95 % intervals.

    Scores of single labels (`auroc:3`) are in the records, and not here.
    """

    results: tuple[Result, ...]
    scores: dict[str, Score]

    @property
    def first(self) -> Result:
        """That of the first seed: task, data and recipe are those of all."""
        return self.results[0]


def runs_of(results: Iterable[Result]) -> list[Runs]:
    """The results of one backbone by protocol, in order of task and data set."""
    found = defaultdict(list)
    for result in results:
        found[result.task.name, result.dataset.name, result.protocol].append(result)
    groups = [tuple(sorted(group, key=lambda r: (r.seed, r.id))) for _, group in sorted(found.items())]
    return [Runs(group, _means(group)) for group in groups]


def _means(results: tuple[Result, ...]) -> dict[str, Score]:
    if len(results) == 1:
        return {name: score for name, score in results[0].scores.items() if ":" not in name}
    means = {}
    for name, one in results[0].scores.items():
        scores = [r.scores[name] for r in results if name in r.scores]
        if ":" in name or len(scores) < len(results):
            continue
        table = np.array([(s.value, s.low, s.high) for s in scores]).T
        value, low, high = map(float, averaged(table[0], table[1], table[2], one.range_low, one.range_high))
        means[name] = one.model_copy(update={"value": value, "low": low, "high": high})
    return means
