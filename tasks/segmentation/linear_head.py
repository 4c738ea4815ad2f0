"""A linear classifier of every place of a stack of frozen feature maps."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class LinearHead(nn.Module):
    """BatchNorm and a 1 x 1 convolution over all maps, upsampled bilinearly to the finest and concatenated.

    A 1 x 1 convolution of concatenated maps is the sum of one for each, and it commutes with upsampling: so each map is
    classified at its own resolution, and class scores are upsampled, which are far fewer than channels.
    """

    def __init__(self, channels: Sequence[int], classes: int):
        super().__init__()
        self.parts = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(c), nn.Conv2d(c, classes, 1, bias=index == 0))
            for index, c in enumerate(channels)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Feature maps [(B, C, h, w), …] fine to coarse → class scores (B, classes, h, w) of the finest."""
        scores = [part(m) for part, m in zip(self.parts, maps, strict=True)]
        return sum((upsample(s, scores[0].shape[2:]) for s in scores[1:]), scores[0])


def upsample(scores: Tensor, size: Sequence[int]) -> Tensor:
    """(B, classes, *size) of (B, classes, h, w), bilinearly."""
    if tuple(scores.shape[2:]) == tuple(size):
        return scores
    return F.interpolate(scores, size=tuple(size), mode="bilinear", align_corners=False)
