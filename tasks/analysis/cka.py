"""Minibatch centred kernel alignment with linear kernels (Kornblith et al. 2019; Nguyen et al. 2021).

HSIC is the unbiased estimator of Song et al. (2012), as an inner product of Gram matrices centred in their way
(Székely and Rizzo 2014). Its terms are summed over minibatches first, and divided then.
"""

import numpy as np
import torch
from torch import Tensor

LEAST = 4  # rows of a minibatch: the unbiased estimator divides by n - 3
ROUNDING = 1e-6  # relative to features of float32: what varies less does not vary


def centred_gram(features: Tensor) -> Tensor:
    """(n, n) float64 of features (n, …): their Gram matrix with a diagonal of zeros, centred so that rows sum to zero.

    Zero where the features are constant. Products of one with another are HSIC up to the factor 1 / (n (n - 3)).
    """
    rows = features.flatten(1)
    scale = rows.abs().amax().clamp(min=torch.finfo(rows.dtype).tiny)
    rows = rows / scale  # squares of some networks' features leave the range of float32
    centred = rows - rows.mean(dim=0)
    if centred.norm() <= ROUNDING * rows.norm():
        centred = torch.zeros_like(centred)
    gram = (centred @ centred.T).double() * scale.double() ** 2
    n = len(gram)
    gram.fill_diagonal_(0)
    means = gram.sum(dim=0) / (n - 2)
    means -= means.sum() / (2 * (n - 1))
    gram = gram - means[:, None] - means[None, :]
    return gram.fill_diagonal_(0)


def hsic(a: Tensor, b: Tensor) -> Tensor:
    """(A, B) unbiased HSIC between each of two stacks (A, n, n) and (B, n, n) of centred Gram matrices."""
    n = a.shape[-1]
    return a.flatten(1) @ b.flatten(1).T / (n * (n - 3))


def cka(ab: np.ndarray, aa: np.ndarray, bb: np.ndarray) -> np.ndarray:
    """Alignment in -1…1 out of sums of HSIC over minibatches; 0 where one of the two is constant."""
    scale = np.sqrt(np.maximum(aa, 0)) * np.sqrt(np.maximum(bb, 0))
    return np.clip(np.divide(ab, scale, out=np.zeros(np.shape(scale)), where=scale > 0), -1, 1)
