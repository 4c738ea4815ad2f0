"""From feature maps to class scores: which maps a head sees, the head, and the loss it learns by."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..datasets import IGNORE
from ..training.scenes import Target
from .linear_head import LinearHead, upsample
from .recipe import SegmenterRecipe


class Segmenter(nn.Module):
    """A `neck` over the backbone's maps, a head on it, and in training an auxiliary one beside it."""

    def __init__(self, neck: nn.Module, head: nn.Module, auxiliary: nn.Module | None = None, weight: float = 0.0):
        super().__init__()
        self.neck, self.head, self.auxiliary, self.weight = neck, head, auxiliary, weight

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Feature maps [(B, C, h, w), …] → class scores (B, classes, h', w')."""
        return self.head(self.neck(maps))

    def loss(self, maps: Sequence[Tensor], targets: Sequence[Target]) -> Tensor:
        """Cross-entropy at the resolution of the label; pixels of 255, the padding among them, add nothing."""
        truth = torch.stack([target["mask"] for target in targets]).long()
        maps = self.neck(maps)
        loss = cross_entropy(self.head(maps), truth)
        return loss + self.weight * cross_entropy(self.auxiliary(maps), truth) if self.auxiliary else loss


def cross_entropy(scores: Tensor, truth: Tensor) -> Tensor:
    """Of scores (B, classes, h, w), upsampled to labels (B, H, W): summed, and divided by all B x H x W pixels.

    So every labelled pixel of a batch counts the same, in however many parts it comes, and a picture without any is 0.
    """
    scores = upsample(scores, truth.shape[1:])
    return F.cross_entropy(scores, truth, ignore_index=IGNORE, reduction="sum") / truth.numel()


def segmenter_of(recipe: SegmenterRecipe, size: int, classes: int, shapes: Sequence[tuple[int, int]]) -> Segmenter:
    """What a recipe names, for pictures of `size` pixels and maps of these channels and sides."""
    if recipe.head == "linear":
        return Segmenter(nn.Identity(), LinearHead([channels for channels, _ in shapes], classes))
    from .convolutional import fcn, upernet  # and with it transformers

    if recipe.head == "fcn":
        return Segmenter(*fcn(shapes, size, recipe.width, classes))
    parts = upernet(shapes, size, recipe.width, classes, auxiliary=recipe.auxiliary > 0)
    return Segmenter(*parts, recipe.auxiliary)
