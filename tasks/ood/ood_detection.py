"""Out-of-distribution detection: post-hoc scores on frozen embeddings tell known images from unknown ones.

Deep nearest neighbours (Sun et al. 2022) is the headline, fixed beforehand: it has no training and assumes no
distribution, so it shows the embedding and little else. Beside it, on a linear probe: maximum softmax probability
(Hendrycks and Gimpel 2017), energy (Liu et al. 2020), and Mahalanobis distance (Lee et al. 2018). AUPR takes the
unknown as positives; FPR95 is the share of the unknown that passes where 95 % of the known do. All are means over
the unknown sets.
"""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ..classification.accuracy import names
from ..classification.linear_probe import LinearProbeRecipe, chosen_probe, labelled
from ..measure import Measure
from ..neighbours import nearest
from ..task import Needs, Outcome, Scores, Task, percent, percent_error
from ..threads import one_thread
from .separation import Separation
from .splits import rows, together

DETECTORS = ("knn", "msp", "energy", "mahalanobis")


class OodDetectionRecipe(LinearProbeRecipe):
    """`k`: the known neighbour whose cosine is the score of the k-NN detector."""

    k: int = Field(default=10, ge=1)


class OodDetection(Task):
    name, family, version = "ood-detection", "ood", 2
    needs = Needs(data="classification", splits=("train", "val", "test", "unknown:*"))
    scores = Scores(
        auroc=percent,
        aupr=percent,
        fpr95=percent_error,
        auroc_msp=percent,
        auroc_energy=percent,
        auroc_mahalanobis=percent,
    )
    Recipe = OodDetectionRecipe

    def run(self, backbone, data, recipe, context):
        probe, chosen = chosen_probe(backbone, data, recipe, context)
        known = [labelled(context.embeddings(backbone, data[name]), data[name]) for name in ("train", "val")]
        x, y = (torch.cat(parts) for parts in zip(*known, strict=True))
        mahalanobis = Mahalanobis(x, y)
        parts = {}
        for name in reported(data):
            features = context.embeddings(backbone, data[name])
            logits = probe.logits(features)
            parts[name] = {
                "id": names(data[name]),
                "knn": kth_cosine(x, features, recipe.k).numpy(),
                "msp": logits.softmax(dim=1).amax(dim=1).numpy(),
                "energy": logits.logsumexp(dim=1).numpy(),
                "mahalanobis": mahalanobis(features).numpy(),
            }
        return Outcome(together(parts), chosen)

    def measure(self, predictions, data):
        truth = rows(predictions, data, reported(data))
        sets = range(1, int(truth.split.max()) + 1)

        def against(detector: str, unknown: int) -> Separation:
            of = np.flatnonzero((truth.split == 0) | (truth.split == unknown))
            return Separation(predictions[detector][of], truth.split[of] == 0, of)

        pairs = {detector: [against(detector, u) for u in sets] for detector in DETECTORS}

        def scores(weights: np.ndarray) -> dict[str, float]:
            headline = np.mean([pair(weights) for pair in pairs["knn"]], axis=0)
            auroc = {f"auroc_{d}": 100 * float(np.mean([p.auroc(weights) for p in pairs[d]])) for d in DETECTORS[1:]}
            return dict(zip(("auroc", "aupr", "fpr95"), (100 * headline).tolist(), strict=True)) | auroc

        return Measure(len(truth.split), scores, truth.groups)


class Mahalanobis:
    """Minus the squared Mahalanobis distance to the nearest class mean, with one covariance for all classes."""

    def __init__(self, x: Tensor, y: Tensor):
        with one_thread():
            x = x.double()
            self.means = torch.stack([x[y == c].mean(dim=0) for c in y.unique()])
            centred = x - self.means[torch.searchsorted(y.unique(), y)]
            # Directions without variance within the classes get almost none, instead of infinite distance.
            values, axes = torch.linalg.eigh(centred.T @ centred / len(x))
            self.whiten = axes * values.clamp(min=1e-6 * values[-1].clamp(min=1e-12)).rsqrt()

    def __call__(self, features: Tensor) -> Tensor:
        """(n,) of features (n, D); higher is more known."""
        with one_thread():
            white = features.double() @ self.whiten
            return -(
                torch.cdist(white, self.means @ self.whiten, compute_mode="donot_use_mm_for_euclid_dist").amin(1) ** 2
            )


def kth_cosine(memory: Tensor, queries: Tensor, k: int) -> Tensor:
    """(q,) cosine of each query to its k-th nearest row of the memory; higher is more known."""
    return nearest(queries, memory, k)[0][:, -1]


def reported(data) -> list[str]:
    """The known test split, then every unknown one."""
    return ["test", *(name for name in data.split_names if name.startswith("unknown:"))]
