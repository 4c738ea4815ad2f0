"""A feature pyramid over any backbone's maps (Lin et al. 2017, arXiv 1612.03144), its levels chosen by object size."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from .simple_pyramid import SimplePyramid

STRIDES = (4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Levels:
    """Which pyramid suits a training set: `strides` (pixels) fine to coarse, anchor `sizes` of each, `ratios` h/w."""

    strides: tuple[int, ...]
    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[float, ...]

    @classmethod
    def of(cls, boxes: np.ndarray, cells: int) -> "Levels":
        """From boxes (n, 4) xyxy of the training images, in pixels as the network sees them.

        An object spans at least `cells` cells of its level, and less than twice as many.
        """
        sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0) if len(boxes) else np.array([[32.0, 32.0]])
        size, ratio = np.sqrt(sides.prod(1)), sides[:, 1] / sides[:, 0]
        fine, coarse = (_stride(s, cells) for s in np.quantile(size, (0.1, 0.9)))
        strides = tuple(s for s in STRIDES if fine <= s <= coarse)
        # Two anchor sizes a level and three shapes, each standing for an equal part of the objects.
        anchors = np.quantile(size, (np.arange(2 * len(strides)) + 0.5) / (2 * len(strides))).tolist()
        shapes = np.quantile(ratio, (1 / 6, 1 / 2, 5 / 6)).tolist()
        return cls(strides, tuple(zip(anchors[::2], anchors[1::2], strict=True)), tuple(shapes))


def pyramid_over(shapes: Sequence[tuple[int, int]], size: int, strides: Sequence[int], width: int) -> nn.Module:
    """The pyramid that suits a backbone: a top-down one over several maps, a simple one over a plain ViT's only one."""
    return (SimplePyramid if len(shapes) == 1 else FeaturePyramid)(shapes, size, strides, width)


class FeaturePyramid(nn.Module):
    """Several maps of any strides → one map of `width` channels at each of `strides` (all in pixels of the input).

    Every map goes to the wanted stride nearest to its own, resampled, so that no level of the backbone is left unused;
    a stride that gets none takes the nearest map.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]], size: int, strides: Sequence[int], width: int):
        """`shapes`: channels and side of each map, for input images of `size` pixels."""
        super().__init__()
        self.sides = [size // stride for stride in strides]
        apart = np.abs(np.log2([[side / wanted for wanted in self.sides] for _, side in shapes]))
        takers = apart.argmin(1).tolist()
        self.sources = [
            [m for m, taker in enumerate(takers) if taker == level] or [int(apart[:, level].argmin())]
            for level in range(len(strides))
        ]
        # Frozen features come at any scale; without this the learning rate would suit one backbone and not another.
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels, affine=False) for channels, _ in shapes)
        channels = [sum(shapes[m][0] for m in maps) for maps in self.sources]
        self.fpn = FeaturePyramidNetwork(channels, width, norm_layer=nn.BatchNorm2d)

    def forward(self, maps: Sequence[Tensor]) -> "OrderedDict[str, Tensor]":
        """Feature maps [(B, C, h, w), …] → {level: (B, width, side, side)}, fine to coarse."""
        maps = [norm(m) for norm, m in zip(self.norms, maps, strict=True)]
        levels = OrderedDict()
        for level, (side, sources) in enumerate(zip(self.sides, self.sources, strict=True)):
            levels[str(level)] = torch.cat([_resample(maps[m], side) for m in sources], dim=1)
        return OrderedDict((name, F.relu(m)) for name, m in self.fpn(levels).items())


def _resample(m: Tensor, side: int) -> Tensor:
    if m.shape[-1] == side:
        return m
    if m.shape[-1] > side:
        return F.adaptive_avg_pool2d(m, side)
    return F.interpolate(m, size=(side, side), mode="bilinear", align_corners=False)


def _stride(size: float, cells: int) -> int:
    """The stride whose level holds objects of `size` pixels."""
    return max((s for s in STRIDES if s * cells <= size), default=STRIDES[0])
