"""Multi-label probe: L2-regularised logistic regression of each label on frozen embeddings.

Labels are learnt together, over the strengths of the linear probe; the one that validation data chose by mean AUROC is
fitted again on training and validation data. Targets that are not known are neither trained on nor scored. A label that
the test data has only present or only absent has no AUROC and is left out of the means.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..datasets import Dataset, Split
from ..measure import Measure
from ..predictions import Predictions
from ..task import Needs, Outcome, Scores, Task, percent
from .accuracy import check_ids, names
from .linear_probe import LinearProbeRecipe, best_probe

RANKING = Scores(mean_auroc=percent, map=percent, **{"auroc:*": percent})
CHANCE = 50.0  # the AUROC of a replicate that says nothing


class MultilabelProbe(Task):
    name, family, version = "multilabel-probe", "classification", 2
    needs = Needs(data="multilabel")
    scores = RANKING
    Recipe = LinearProbeRecipe

    def run(self, backbone, data, recipe, context):
        train, val = (
            (context.embeddings(backbone, data[name]), torch.as_tensor(data[name].targets)) for name in ("train", "val")
        )
        probe, c, highest = best_probe(train, val, len(data.classes), mean_auroc, recipe, context)
        predictions = judged(probe.logits(context.embeddings(backbone, data["test"])), data["test"])
        return Outcome(predictions, {"c": c, "val_mean_auroc": highest})

    def measure(self, predictions, data):
        return ranking(predictions, data)


def judged(logits: Tensor, split: Split) -> Predictions:
    """Columns of the logits (n, L) of the images of a split, all that `ranking` needs."""
    return {"id": names(split), "logits": logits.numpy().astype(np.float32)}


def mean_auroc(logits: Tensor, targets: Tensor) -> float:
    """Mean over labels, in percent; 0 where none can be scored."""
    return Ranking(logits.numpy(), targets.numpy())(np.ones(len(logits))).get("mean_auroc", 0.0)


def ranking(predictions: Predictions, data: Dataset) -> Measure:
    """Of `judged` predictions for the test data: AUROC, its mean over labels and mean average precision, in percent."""
    test = data["test"]
    check_ids(predictions["id"], test)
    scores = Ranking(predictions["logits"], np.asarray(test.targets), data.classes)
    return Measure(len(test), scores, test.groups)


class Ranking:
    """How well scores (n, L) rank targets (n, L) of 1, 0 and -1 for not known, at any weights; sorted once.

    A label that has only one side among the examples is left out, and one of which a replicate draws only one side is
    left out of the means. `named`: what the labels are called, where the AUROC of each is wanted.
    """

    def __init__(self, scores: np.ndarray, targets: np.ndarray, named: Sequence[str] = ()):
        columns = [column for column, t in enumerate(targets.T) if (t > 0).any() and (t == 0).any()]
        self.labels = [_Label(scores[:, column], targets[:, column]) for column in columns]
        self.named = [f"auroc:{named[column]}" for column in columns] if named else []

    def __call__(self, weights: np.ndarray) -> dict[str, float]:
        """Without any label that can be scored there is no score."""
        if not self.labels:
            return {}
        each = [label(weights) for label in self.labels]
        found = np.array([pair for pair in each if pair])
        auroc, precision = 100 * found.mean(axis=0) if len(found) else (CHANCE, 0.0)
        alone = [100 * pair[0] if pair else CHANCE for pair in each]
        return {"mean_auroc": float(auroc), "map": float(precision)} | dict(zip(self.named, alone, strict=False))


class _Label:
    def __init__(self, scores: np.ndarray, targets: np.ndarray):
        known = np.flatnonzero(targets >= 0)
        self.order = known[np.argsort(-scores[known], kind="stable")]  # the highest first
        self.present = (targets[self.order] > 0).astype(float)
        _, starts = np.unique(-scores[self.order], return_index=True)
        self.starts = starts  # equal scores stand or fall together

    def __call__(self, weights: np.ndarray) -> tuple[float, float] | None:
        """AUROC, a tie counting half, and average precision, in 0…1."""
        weights = weights[self.order]
        there = np.add.reduceat(weights * self.present, self.starts)
        every = np.add.reduceat(weights, self.starts)
        absent = every - there
        if not (there.any() and absent.any()):
            return None
        found, passed = there.cumsum(), absent.cumsum()
        below = passed[-1] - passed + absent / 2
        precision = found / np.maximum(found + passed, 1e-12)
        return float(there @ below / (found[-1] * passed[-1])), float(there @ precision / found[-1])
