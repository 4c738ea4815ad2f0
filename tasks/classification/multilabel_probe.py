"""Multi-label probe: L2-regularised logistic regression of each label on frozen embeddings.

Labels are learnt together, over the strengths of the linear probe; the one that validation data chose by mean AUROC is
fitted again on training and validation data. Targets that are not known are neither trained on nor scored. A label that
the test data has only present or only absent is left out of the means.
"""

import numpy as np
import torch
from torch import Tensor

from ..datasets import Split
from ..measure import Measure
from ..predictions import Predictions
from ..task import Needs, Outcome, Scores, Task, percent
from .accuracy import check_ids, names
from .linear_probe import LinearProbeRecipe, best_probe


class MultilabelProbe(Task):
    name, family, version = "multilabel-probe", "classification", 1
    needs = Needs(data="multilabel")
    scores = Scores(mean_auroc=percent, map=percent)
    Recipe = LinearProbeRecipe

    def run(self, backbone, data, recipe, context):
        train, val = (
            (context.embeddings(backbone, data[name]), torch.as_tensor(data[name].targets)) for name in ("train", "val")
        )
        probe, c, highest = best_probe(train, val, len(data.classes), mean_auroc, recipe, context)
        test = data["test"]
        logits = probe.logits(context.embeddings(backbone, test)).numpy()
        scored = len(Ranking(logits, np.asarray(test.targets)).labels)
        chosen = {"c": c, "val_mean_auroc": highest, "labels_scored": scored}
        return Outcome({"id": names(test), "logits": logits.astype(np.float32)}, chosen)

    def measure(self, predictions, data):
        return ranking(predictions, data["test"])


def mean_auroc(logits: Tensor, targets: Tensor) -> float:
    """Mean over labels, in percent; 0 where none can be scored."""
    return Ranking(logits.numpy(), targets.numpy())(np.ones(len(logits))).get("mean_auroc", 0.0)


def ranking(predictions: Predictions, split: Split) -> Measure:
    """Mean AUROC and mean average precision over labels, in percent, of `logits` (n, L)."""
    check_ids(predictions["id"], split)
    return Measure(len(split), Ranking(predictions["logits"], np.asarray(split.targets)), split.groups)


class Ranking:
    """How well scores (n, L) rank targets (n, L) of 1, 0 and -1 for not known, at any weights; sorted once.

    A label that has only one side among the examples is left out, and one of which a replicate draws only one side.
    """

    def __init__(self, scores: np.ndarray, targets: np.ndarray):
        self.labels = [
            _Label(s, t) for s, t in zip(scores.T, targets.T, strict=True) if (t > 0).any() and (t == 0).any()
        ]

    def __call__(self, weights: np.ndarray) -> dict[str, float]:
        """Without any label that can be scored there is no score."""
        if not self.labels:
            return {}
        found = np.array([pair for label in self.labels if (pair := label(weights)) is not None])
        auroc, precision = 100 * found.mean(axis=0) if len(found) else (50.0, 0.0)
        return {"mean_auroc": float(auroc), "map": float(precision)}


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
