"""Accuracy under distribution shift: a linear probe trained on clean images, tested on every `shift:` split."""

import numpy as np

from ..classification.accuracy import ranked
from ..classification.linear_probe import LinearProbeRecipe, chosen_probe
from ..measure import Measure
from ..task import Needs, Outcome, Task
from .shift import reported, shift_scores, under_shift
from .splits import rows, together


class OodShift(Task):
    name, family, version = "ood-shift", "ood", 2
    needs = Needs(data="classification", splits=("train", "val", "test", "shift:*"))
    scores = shift_scores("top1")
    Recipe = LinearProbeRecipe

    def run(self, backbone, data, recipe, context):
        probe, chosen = chosen_probe(backbone, data, recipe, context)
        parts = {
            name: ranked(probe.probabilities(context.embeddings(backbone, data[name])), data[name])
            for name in reported(data)
        }
        return Outcome(together(parts), chosen)

    def measure(self, predictions, data):
        truth = rows(predictions, data, reported(data))
        right = (predictions["classes"][:, 0] == truth.labels).astype(float)

        def scores(weights: np.ndarray) -> dict[str, float]:
            seen = np.bincount(truth.split, weights)
            top1 = 100 * np.bincount(truth.split, weights * right) / np.maximum(seen, 1e-12)
            return under_shift("top1", top1, seen)

        return Measure(len(right), scores, truth.groups)
