"""Accuracy under distribution shift: a linear probe trained on clean images, tested on every `shift:` split.

A shifted split that has only some of the classes, as ImageNet-A and -R have, is answered among these alone, and is set
beside the clean images of the same classes, answered among them too (Hendrycks et al. 2021).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ...backbones.errors import BadInput
from ..classification.accuracy import check_ids, ranked
from ..classification.linear_probe import LinearProbeRecipe, chosen_probe
from ..datasets import Dataset, Split
from ..measure import Measure
from ..predictions import Predictions
from ..task import Needs, Outcome, Task
from .shift import Shift, reported, shift_scores, short, under_shift
from .shift_picture import shift_picture
from .splits import apart, group_of_each, together

CLEAN = "clean:"  # before the name of a shift of some classes: the clean images of these


NEEDS = Needs(data="classification", splits=("train", "val", "test", "shift:*"))
SCORES = shift_scores("top1", own=True)


class OodShift(Task):
    name, family, version = "ood-shift", "ood", 3
    needs, scores = NEEDS, SCORES
    Recipe = LinearProbeRecipe

    def run(self, backbone, data, recipe, context):
        probe, chosen = chosen_probe(backbone, data, recipe, context)
        return Outcome(answers(data, lambda split: probe.logits(context.embeddings(backbone, split))), chosen)

    def measure(self, predictions, data):
        return measured(predictions, data)

    def picture(self, predictions, data):
        return shift_picture(self.measure(predictions, data), "top1", "A linear probe under shift")


def answers(data: Dataset, logits_of: Callable[[Split], Tensor]) -> Predictions:
    """Predictions of every table of a data set, by what gives the logits (n, C) of a split's images."""
    whole = {name: logits_of(data[name]) for name in reported(data)}
    parts = {}
    for name, (split, rows, among) in tables(data).items():
        logits = whole["test" if name.startswith(CLEAN) else name][torch.as_tensor(rows)]
        parts[name] = ranked(masked(logits, among).softmax(dim=1), split)
    return together(parts)


def measured(predictions: Predictions, data: Dataset) -> Measure:
    """Scores of `answers`. Raises BadInput for predictions of other images, naming the split."""
    of, right, where = tables(data), {}, {}
    start = np.cumsum([0, *(len(data[name]) for name in reported(data))])
    first = dict(zip(reported(data), start.tolist(), strict=False))
    for name, part in apart(predictions, list(of)).items():
        split, rows, _ = of[name]
        try:
            check_ids(part["id"], split)
        except BadInput as error:
            raise BadInput(f"split {name}: {error}") from None
        right[name] = is_right(part["classes"][:, 0], split, name)
        where[name] = rows if name.startswith(CLEAN) else first[name] + rows
    if not np.array_equal(
        predictions["split"], np.repeat(np.array(list(of), object), [len(r) for r in right.values()])
    ):
        raise BadInput(f"predictions are not those of {', '.join(of)} of {data.name}, one after the other")

    def scores(weights: np.ndarray) -> dict[str, float]:
        seen = {name: weights[rows].sum() for name, rows in where.items()}
        top1 = {name: 100 * float(weights[rows] @ right[name] / max(seen[name], 1e-12)) for name, rows in where.items()}
        shifts = []
        for name in reported(data)[1:]:
            own = CLEAN + short(name)
            clean = own if own in of else "test"
            shifts.append(Shift(short(name), top1[name], top1[clean], seen[name] > 0 and seen[clean] > 0, own in of))
        return under_shift("top1", top1["test"], shifts)

    return Measure(int(start[-1]), scores, group_of_each(data, reported(data)))


Table = tuple[Split, np.ndarray, tuple[int, ...] | None]
"""Images, their rows (n,) in the split that they are of, and the classes to answer among (None: all)."""


def tables(data: Dataset) -> dict[str, Table]:
    """What predictions are of, by name: every reported split, and the clean counterpart of each of some classes."""
    test, found = data["test"], {}
    for name in reported(data):
        split = data[name]
        among = split.among if name != "test" else None
        found[name] = split, np.arange(len(split)), among
        if among is not None and len(rows := of_classes(test, among)):
            found[CLEAN + short(name)] = test.rows(rows, f"{test.fingerprint}:{short(name)}"), rows, among
    return found


def of_classes(split: Split, among: tuple[int, ...] | None) -> np.ndarray:
    """Rows of the images that are of one of these classes."""
    return np.flatnonzero(np.isin(split.targets, among or ()))


def masked(logits: Tensor, among: tuple[int, ...] | None) -> Tensor:
    """Logits (n, C) with those of all other classes at minus infinity."""
    if among is None:
        return logits
    others = torch.ones(logits.shape[1], dtype=torch.bool)
    others[list(among)] = False
    return logits.masked_fill(others, -torch.inf)


def is_right(best: np.ndarray, split: Split, name: str) -> np.ndarray:
    """(n,) 1 where the answer is the label; in a shift that accepts several classes, as ObjectNet, one of these."""
    if split.accepted is None or not name.startswith("shift:"):
        return (best == np.asarray(split.targets)).astype(float)
    return np.array([b in right for b, right in zip(best.tolist(), split.accepted, strict=True)], float)
