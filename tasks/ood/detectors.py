"""Post-hoc detectors of the unknown on frozen features and a linear head: each gives (n,) scores, higher for known.

What differs from OpenOOD's code (Zhang et al. 2023), beside the head being a linear probe: nothing is tuned on unknown
images; Mahalanobis distances bound the variance from below where they there drop directions that have none.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..classification.prototypes import nearest_means
from ..design import Probe
from ..neighbours import nearest
from ..threads import one_thread

FLAT = 1e-6  # share of the largest variance, or length, below which there is none


def msp(logits: Tensor) -> Tensor:
    """Maximum softmax probability (Hendrycks and Gimpel 2017), of logits (n, C)."""
    return logits.softmax(dim=1).amax(dim=1)


def max_logit(logits: Tensor) -> Tensor:
    """The largest logit (Hendrycks et al. 2022, "Scaling OOD detection")."""
    return logits.amax(dim=1)


def energy(logits: Tensor) -> Tensor:
    """Minus the free energy at temperature 1 (Liu et al. 2020)."""
    return logits.logsumexp(dim=1)


def kth_cosine(memory: Tensor, queries: Tensor, k: int) -> Tensor:
    """Cosine of each query to its k-th nearest row of the memory (Sun et al. 2022, deep nearest neighbours)."""
    return nearest(queries, memory, k)[0][:, -1]


def prototype_cosine(x: Tensor, y: Tensor, queries: Tensor) -> Tensor:
    """Largest cosine to the mean of a class's unit features, of features x (m, D) with labels y (m,)."""
    return nearest_means(x, y.unique(return_inverse=True)[1], queries).amax(dim=1)


def mcm(images: Tensor, classes: Tensor) -> Tensor:
    """Maximum concept matching (Ming et al. 2022): softmax of the cosines of images (n, T) to class texts (C, T).

    At temperature 1, as there.
    """
    with one_thread():
        return msp(normalize(images.double()) @ normalize(classes.double()).T)


class Mahalanobis:
    """Minus the squared distance to the nearest class mean, with one covariance for all classes (Lee et al. 2018)."""

    def __init__(self, x: Tensor, y: Tensor):
        with one_thread():
            x = x.double()
            self.means = torch.stack([x[y == c].mean(dim=0) for c in y.unique()])
            centred = x - self.means[torch.searchsorted(y.unique(), y)]
            # Directions without variance within the classes get almost none, instead of infinite distance.
            values, axes = torch.linalg.eigh(centred.T @ centred / len(x))
            self.whiten = axes * values.clamp(min=FLAT * values[-1].clamp(min=1e-12)).rsqrt()

    def __call__(self, features: Tensor) -> Tensor:
        """(n,) of features (n, D)."""
        with one_thread():
            white = features.double() @ self.whiten
            distances = torch.cdist(white, self.means @ self.whiten, compute_mode="donot_use_mm_for_euclid_dist")
            return -(distances.amin(dim=1) ** 2)


class RelativeMahalanobis:
    """How much nearer a class is than all of the known are as one Gaussian (Ren et al. 2021)."""

    def __init__(self, x: Tensor, y: Tensor):
        self.classes, self.background = Mahalanobis(x, y), Mahalanobis(x, torch.zeros_like(y))

    def __call__(self, features: Tensor) -> Tensor:
        """(n,) of features (n, D)."""
        return self.classes(features) - self.background(features)


class React:
    """Energy of features cut off above a percentile of all activations of known images (Sun et al. 2021)."""

    def __init__(self, probe: Probe, known: Tensor, percentile: float):
        self.probe, self.most = probe, float(np.percentile(known.numpy(), percentile))

    def __call__(self, features: Tensor) -> Tensor:
        """(n,) of features (n, D)."""
        return energy(self.probe.logits(features.clamp(max=self.most)))


class Vim:
    """Virtual-logit matching (Wang et al. 2022): energy less the part of a feature outside the principal subspace.

    The subspace has 1000 dimensions where features have 2048 or more, 512 from 768 on, as there; else half of them.
    Where nothing of the known lies outside of it, the score is the energy.
    """

    def __init__(self, probe: Probe, known: Tensor):
        self.probe = probe
        with one_thread():
            weight, bias = probe.plain
            self.origin = -torch.linalg.pinv(weight) @ bias
            rows = known.double() - self.origin
            axes = torch.linalg.eigh(rows.T @ rows / len(rows))[1]
            self.outside = axes[:, : rows.shape[1] - principal(rows.shape[1])]  # least variance first
            rest, length = (rows @ self.outside).norm(dim=1).mean(), rows.norm(dim=1).mean()
        largest = max_logit(probe.logits(known)).mean()
        self.alpha = float(largest / rest) if rest > FLAT * length else 0.0

    def __call__(self, features: Tensor) -> Tensor:
        """(n,) of features (n, D)."""
        with one_thread():
            rest = ((features.double() - self.origin) @ self.outside).norm(dim=1)
        return energy(self.probe.logits(features)) - self.alpha * rest


def principal(width: int) -> int:
    """Dimensions of ViM's principal subspace of features of this width."""
    return 1000 if width >= 2048 else 512 if width >= 768 else width // 2
