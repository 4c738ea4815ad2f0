"""A feature pyramid from the only map of a plain ViT (ViTDet: Li et al. 2022, arXiv 2203.16527)."""

from collections import OrderedDict
from collections.abc import Sequence
from math import log2

import torch.nn.functional as F
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

NARROWEST = 32  # channels that are left where a map is enlarged, however often


class SimplePyramid(nn.Module):
    """One map → one of `width` channels at each of `strides` (pixels of the input), each made from the map by itself.

    Deconvolutions enlarge it and max-pooling shrinks it, by the power of two nearest to the wanted stride (a patch of
    14 pixels leaves a rest, which is resampled); then a 1 x 1 and a 3 x 3 convolution. There is no top-down path.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]], size: int, strides: Sequence[int], width: int):
        """`shapes`: channels and side of the one map, for input images of `size` pixels."""
        super().__init__()
        [(channels, side)] = shapes
        self.sides = [size // stride for stride in strides]
        # Frozen features come at any scale; without this the learning rate would suit one backbone and not another.
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.levels = nn.ModuleList(_level(channels, round(log2(wanted / side)), width) for wanted in self.sides)

    def forward(self, maps: Sequence[Tensor]) -> "OrderedDict[str, Tensor]":
        """The feature map [(B, C, h, w)] → {level: (B, width, side, side)}, fine to coarse."""
        last = self.norm(maps[0])
        found = OrderedDict()
        for index, (side, level) in enumerate(zip(self.sides, self.levels, strict=True)):
            m = level(last)
            if m.shape[-1] != side:
                m = F.interpolate(m, size=(side, side), mode="bilinear", align_corners=False)
            found[str(index)] = m
        return found


def _level(channels: int, doublings: int, width: int) -> nn.Sequential:
    """Twice the size for each of `doublings`, half for each below zero, and then `width` channels."""
    parts: list[nn.Module] = []
    for step in range(doublings):
        if step:
            parts += [LayerNorm2d(channels), nn.GELU()]
        narrow = max(channels // 2, min(channels, NARROWEST))
        parts.append(nn.ConvTranspose2d(channels, narrow, kernel_size=2, stride=2))
        channels = narrow
    parts += [nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True) for _ in range(-doublings)]
    parts += [nn.Conv2d(channels, width, kernel_size=1, bias=False), LayerNorm2d(width)]
    parts += [nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False), LayerNorm2d(width)]
    return nn.Sequential(*parts)
