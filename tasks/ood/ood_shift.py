"""Accuracy under distribution shift: a linear probe trained on clean images, tested on every `shift:` split.

Mean over shifts and relative drop as in ImageNet-C (Hendrycks and Dietterich 2019), without its severities.
"""

import numpy as np

from ..classification.accuracy import ranked
from ..classification.linear_probe import LinearProbeRecipe, chosen_probe
from ..measure import Measure
from ..task import Metric, Needs, Outcome, Scores, Task, percent
from .splits import rows, together


class OodShift(Task):
    name, family, version = "ood-shift", "ood", 2
    needs = Needs(data="classification", splits=("train", "val", "test", "shift:*"))
    scores = Scores(shift_top1=percent, clean_top1=percent, relative_drop=Metric("%", -100.0, 100.0, False))
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
            clean, shifted = top1[0], top1[1:][seen[1:] > 0].mean() if seen[1:].any() else 0.0
            # The drop of a probe that is always wrong is none; a gain beyond 100 % of the clean score is cut off.
            drop = 100 * (clean - shifted) / clean if clean > 0 else 0.0
            return {"shift_top1": float(shifted), "clean_top1": float(clean), "relative_drop": float(max(drop, -100))}

        return Measure(len(right), scores, truth.groups)


def reported(data) -> list[str]:
    """The clean test split, then every shifted one."""
    return ["test", *(name for name in data.split_names if name.startswith("shift:"))]
