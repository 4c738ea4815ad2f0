"""The sigmoid focal loss (Lin et al. 2017, arXiv 1708.02002) as `mmcv._ext` has it.

mmcv computes log(p) no smaller than log(1.2e-38); here it is exact, which shows only where a logit is beyond 87.
"""

import torch.nn.functional as F
from torch import Tensor

from .gate import COMPILED
from .precision import wide


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fills `output` (n, C) from logits (n, C) and classes (n,) in 0..C, where C is the background."""
    x, positive = _logits(input, target, weight)
    p, q = x.sigmoid(), (-x).sigmoid()
    output.copy_((-alpha * q**gamma * F.logsigmoid(x)).where(positive, (alpha - 1) * p**gamma * F.logsigmoid(-x)))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fills `grad_input` (n, C) with the derivative of each loss by its logit."""
    x, positive = _logits(input, target, weight)
    p, q = x.sigmoid(), (-x).sigmoid()
    rising = alpha * q**gamma * (gamma * p * F.logsigmoid(x) - q)
    falling = (1 - alpha) * p**gamma * (p - gamma * q * F.logsigmoid(-x))
    grad_input.copy_(rising.where(positive, falling))


def _logits(input: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (n, C), and where they are those of the true class."""
    if weight.numel():
        # What mmcv multiplies the background by lies behind the end of its weights.
        raise NotImplementedError(f"mmcv's sigmoid_focal_loss with class weights does not run uncompiled; {COMPILED}")
    return wide(input), F.one_hot(target, input.shape[1] + 1)[:, :-1].bool()
