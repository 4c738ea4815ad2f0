"""Whether backbones fail on the same examples, beyond what their accuracies make likely: from stored predictions.

The measures of likeness to people (`tasks/human`), between any two backbones, on any task with one answer an example.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from ..backbones.errors import BadInput
from .comparison import by_protocol
from .result import Result

if TYPE_CHECKING:
    from ..tasks import Measure


@dataclass(frozen=True)
class Consistency:
    """`kappa`: Cohen's, of who is right on which example, with its 95 % interval: 1 where two fail on the same ones, 0
    as far as chance goes. `a`, `b`: accuracies in percent; `agreement`: percent of the examples on which both are right
    or both wrong.

    `classwise_js`, `interclass_js`: distances (√nat) between the distributions of their errors over classes, and over
    pairs of class and answer; None where one makes no error. All are means over pairs of seeds.
    """

    backbone_a: str
    backbone_b: str
    task: str
    dataset: str
    family: str
    examples: int
    a: float
    b: float
    agreement: float
    kappa: float
    low: float
    high: float
    classwise_js: float | None
    interclass_js: float | None
    seeds_a: int
    seeds_b: int


def error_consistency(
    sides: Sequence[Iterable[Result]], measure_of: Callable[[Result], "Measure"], seed: int = 0
) -> list[Consistency]:
    """Of every two backbones in every task that both ran by the same protocol, pair by pair; a side is a backbone's
    results, `measure_of` as for `compare`. Raises BadInput where there is none."""
    runs = [by_protocol(side) for side in sides]
    if len(runs) < 2 or not all(runs):
        raise BadInput("nothing to compare: a side has no results; `backbench leaderboard` shows what has been run")
    found: dict[tuple[int, int], list[Consistency]] = {pair: [] for pair in combinations(range(len(runs)), 2)}
    for protocol in dict.fromkeys(protocol for side in runs for protocol in side):
        took_part = {i: side[protocol] for i, side in enumerate(runs) if protocol in side}
        if len(took_part) > 1:
            measures = {i: [measure_of(r) for r in own] for i, own in took_part.items()}
            if all(m.answers is not None and m.labels is not None for own in measures.values() for m in own):
                for i, j in combinations(took_part, 2):
                    found[i, j].append(_consistency(took_part[i], took_part[j], measures[i], measures[j], seed))
    for (i, j), consistencies in found.items():
        if not consistencies:
            names = " and ".join(next(iter(runs[k].values()))[0].backbone.name for k in (i, j))
            raise BadInput(
                f"{names} have no task in common that keeps one answer an example, as those of classification do; "
                "run one as the other"
            )
    return [c for consistencies in found.values() for c in consistencies]


def _consistency(
    runs_a: list[Result], runs_b: list[Result], a: list["Measure"], b: list["Measure"], seed: int
) -> Consistency:
    from ..tasks.human.agreement import Panel, defined, js_distances, mean
    from ..tasks.measure import Measure, estimate

    first, count = a[0], len(a)
    assert first.labels is not None
    answers = np.stack([m.answers for m in (*a, *b) if m.answers is not None])
    known = first.labels >= 0  # an image of none of the classes is wrong by any answer
    answers, labels = answers[:, known], first.labels[known]
    panel = Panel(answers, labels, 1 + int(max(answers.max(), labels.max())))

    def apart(errors: np.ndarray) -> float:
        return mean(js_distances(errors[:count, None], errors[None, count:]))

    def told(weights: np.ndarray) -> dict[str, float]:
        return {
            "kappa": mean(panel.kappas(weights)[:count, count:]),
            "classwise_js": apart(panel.class_errors(weights)),
            "interclass_js": apart(panel.confusions(weights)),
        }

    examples = len(labels)
    groups = None if first.groups is None else first.groups[known]
    trials = None if first.trials is None else first.trials[known]
    scores = estimate(Measure(examples, defined(told, examples), groups, trials, replicates=first.replicates), seed)
    right = answers == labels
    distances = {name: scores[name].value if name in scores else None for name in ("classwise_js", "interclass_js")}
    return Consistency(
        backbone_a=runs_a[0].backbone.name,
        backbone_b=runs_b[0].backbone.name,
        task=runs_a[0].task.name,
        dataset=runs_a[0].dataset.name,
        family=runs_a[0].task.family,
        examples=examples,
        a=100 * float(right[:count].mean()),
        b=100 * float(right[count:].mean()),
        agreement=100 * float((right[:count, None] == right[None, count:]).mean()),
        kappa=scores["kappa"].value,
        low=scores["kappa"].low,
        high=scores["kappa"].high,
        seeds_a=len(a),
        seeds_b=len(b),
        **distances,
    )
