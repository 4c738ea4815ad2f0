"""UPerNet (arXiv 1807.10221) and FCN (arXiv 1411.4038), as transformers has them, on the maps of any backbone."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.upernet.configuration_upernet import UperNetConfig
from transformers.models.upernet.modeling_upernet import UperNetFCNHead, UperNetHead

from ..detection.pyramid import STRIDES, pyramid_over
from .linear_head import upsample
from .lone_batch_norm import LoneBatchNorm

FCN_STRIDE = 8  # pixels: of the map that an FCN sees, as of a dilated ResNet

Shapes = Sequence[tuple[int, int]]
"""Channels and side of each feature map, for input images of `size` pixels."""


def upernet(
    shapes: Shapes, size: int, width: int, classes: int, *, auxiliary: bool
) -> tuple[nn.Module, nn.Module, nn.Module | None]:
    """Neck, head and, if wanted, an auxiliary FCN of half the width on the last map but one, often of stride 16."""
    neck = Levels(shapes, size, width)
    how = _config(classes, hidden_size=width, auxiliary_channels=width // 2)
    head = UperNetHead(how, neck.channels)
    for scale, block in zip(head.pool_scales, head.psp_modules.blocks, strict=True):
        if scale == 1:
            block.layers[-1].batch_norm = LoneBatchNorm(width)
    beside = UperNetFCNHead(how, neck.channels, in_index=max(len(neck.channels) - 2, 0)) if auxiliary else None
    return neck, head, beside


def fcn(shapes: Shapes, size: int, width: int, classes: int) -> tuple[nn.Module, nn.Module]:
    """Neck and head: two 3 x 3 convolutions, and one over what they give beside what they see."""
    neck = Stacked(shapes, size)
    how = _config(classes, auxiliary_channels=width, auxiliary_num_convs=2, auxiliary_concat_input=True)
    return neck, UperNetFCNHead(how, [neck.channels], in_index=0)


class Levels(nn.Module):
    """Maps of stride 4 and coarser as they are; a plain ViT's only one as a pyramid of strides 4, 8, 16 and 32."""

    def __init__(self, shapes: Shapes, size: int, width: int):
        super().__init__()
        self.pyramid = pyramid_over(shapes, size, STRIDES, width) if len(shapes) == 1 else None
        # A stem's map is finer than anything that the heads are made for, and as large as all the others together.
        self.places = _coarser(shapes, size, STRIDES[0])
        self.channels = [width] * len(STRIDES) if self.pyramid else [shapes[place][0] for place in self.places]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Feature maps [(B, C, h, w), …] → [(B, channels, h, w), …], fine to coarse."""
        return list(self.pyramid(maps).values()) if self.pyramid else [maps[place] for place in self.places]


class Stacked(nn.Module):
    """Maps of stride 8 and coarser, upsampled bilinearly to the finest of them and concatenated."""

    def __init__(self, shapes: Shapes, size: int):
        super().__init__()
        self.places = _coarser(shapes, size, FCN_STRIDE)
        self.channels = sum(shapes[place][0] for place in self.places)
        # Levels differ in scale; without this the largest would be all that a convolution sees.
        self.norms = nn.ModuleList(nn.BatchNorm2d(shapes[place][0], affine=False) for place in self.places)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Feature maps [(B, C, h, w), …] → one (B, channels, h, w)."""
        maps = [norm(maps[place]) for norm, place in zip(self.norms, self.places, strict=True)]
        return [torch.cat([maps[0], *(upsample(m, maps[0].shape[2:]) for m in maps[1:])], dim=1)]


def _config(classes: int, **settings: Any) -> UperNetConfig:
    settings["num_labels"] = classes
    return UperNetConfig(**settings)


def _coarser(shapes: Shapes, size: int, stride: int) -> list[int]:
    """Places of the maps of at least this stride (pixels of the input), the last where there is none."""
    return [place for place, (_, side) in enumerate(shapes) if side * stride <= size] or [len(shapes) - 1]
