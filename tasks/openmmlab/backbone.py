"""Any backbone of the registry as a module of mmdet's and mmseg's models: `type: backbench.Backbone`."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...backbones import Backbone, BadInput, NotApplicable, load_backbone
from ..detection.pyramid import pyramid_over
from ..segmentation.lone_batch_norm import LoneBatchNorm
from ..training.trainable import keep_statistics, train_mode, trainable_copy
from ..training.windows import attend_in_windows
from .gate import openmmlab

SCOPE = "backbench"


class FeatureMaps(nn.Module):
    """Registered as `Backbone`: normalised images (B, 3, H, W) → a tuple of feature maps (B, C, h, w), fine to coarse.

    A plain module and not mmengine's: its `init_weights` would initialise pretrained networks anew.
    """

    def __init__(
        self,
        backbone: "str | Path | Backbone",
        levels: Sequence[int] | None = None,
        trainable: str = "full",
        drop_path: float = 0.0,
        norm_eval: bool = False,
        window: tuple[int, int] | None = None,
    ):
        """`backbone`: a name, a card's path, or one that is loaded, which stays as it is: what learns is a copy.

        `levels`: places of the maps wanted, default all; `trainable`: full, last-N (blocks) or frozen; `norm_eval`:
        BatchNorm's statistics stay as they are; `window`: a plain ViT attends within windows of so many patches each
        way, of square images of so many pixels. Raises BadInput, NotApplicable.
        """
        super().__init__()
        backbone = load_backbone(backbone)
        if not backbone.levels:
            raise NotApplicable(f"{backbone.name} has no feature maps")
        self.levels = tuple(range(len(backbone.levels)) if levels is None else levels)
        self.network, self.dropping = trainable_copy(backbone, trainable, drop_path, maps=True)
        if window:
            attend_in_windows(self.network, *window)
        self.frozen, self.norm_eval = trainable == "frozen", norm_eval

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The maps of `levels`."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = self.network(images, embedding=False, maps=True).maps
        return tuple(maps[level] for level in self.levels)

    def train(self, mode: bool = True) -> "FeatureMaps":
        """Training mode, but for what stays frozen."""
        if not mode:
            return super().train(False)
        train_mode(self)
        if self.norm_eval:
            keep_statistics(self)
        return self


class Pyramid(nn.Module):
    """Registered as `Pyramid`, a neck: the detection tasks' own pyramids, over one map or maps of any strides.

    Fits square batches of `size` pixels; `extra` coarser levels, each every second place of the one before.
    """

    def __init__(
        self, shapes: Sequence[tuple[int, int]], size: int, strides: Sequence[int], width: int, extra: int = 0
    ):
        """`shapes`: channels and side of each map, for images of `size` pixels."""
        super().__init__()
        self.pyramid, self.extra = pyramid_over(shapes, size, strides, width), extra
        self.size, self.sides = size, [(side, side) for _, side in shapes]

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Feature maps [(B, C, h, w), …] → (B, width, h, w) at each of `strides`, then `extra`. Raises BadInput."""
        if (sides := [tuple(m.shape[-2:]) for m in maps]) != self.sides:
            # They would be resampled, and boxes be off by the factor between.
            raise BadInput(f"images must be padded to {self.size} x {self.size}: maps are {sides}, not {self.sides}")
        levels = list(self.pyramid(maps).values())
        for _ in range(self.extra):
            levels.append(F.max_pool2d(levels[-1], kernel_size=1, stride=2))
        return tuple(levels)


@cache
def register() -> None:
    """Makes `type: backbench.Backbone` and the others known to mmdet and mmseg. Raises Unavailable."""
    registry: Any = openmmlab("mmengine.registry")
    ours = registry.Registry("model", parent=registry.MODELS, scope=SCOPE)
    ours.register_module(name="Backbone", module=FeatureMaps)
    ours.register_module(name="Pyramid", module=Pyramid)
    ours.register_module(name="BatchNorm", module=LoneBatchNorm)
