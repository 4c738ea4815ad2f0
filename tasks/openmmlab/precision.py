"""The precision in which operators are computed."""

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """In float32, or in float64 where it is that: torchvision has few kernels for half precision, on a CPU none."""
    return x if x.dtype == torch.float64 else x.float()
