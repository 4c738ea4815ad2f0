"""Batch norm for heads that pool an image to one place."""

import torch.nn.functional as F
from torch import Tensor, nn


class LoneBatchNorm(nn.BatchNorm2d):
    """Batch norm that takes one value a channel, which has no spread, by the running statistics.

    UPerNet has such where one image is pooled to 1 x 1: a micro-batch of one, or what is left of an odd batch.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)
