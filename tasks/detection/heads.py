"""Detectors on feature maps: a pyramid, and on it what proposes and what finds.

Faster R-CNN (arXiv 1506.01497), Mask R-CNN (arXiv 1703.06870) and RetinaNet (arXiv 1708.02002) of torchvision's parts.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign

from .pyramid import Levels, pyramid_over
from .recipe import GROUPS, DetectorRecipe

Target = dict[str, Tensor]
"""As torchvision's: boxes (k, 4) xyxy in input pixels, labels (k,) from 0, perhaps masks (k, S, S)."""

LOWEST_SCORE = 0.05
MOST_DETECTIONS = 100


class Heads(nn.Module):
    """What detectors have in common: from maps to a pyramid, and from input pixels to those of the pyramid.

    torchvision takes it that the coarsest stride divides the image. It does not where a patch has 14 pixels, so to
    torchvision the image has `side` pixels, and boxes and masks are enlarged to that.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]], size: int, levels: Levels, recipe: DetectorRecipe):
        """`shapes`: channels and side of each feature map, for input images of `size` pixels."""
        super().__init__()
        coarsest = levels.strides[-1]
        self.side = -(-size // coarsest) * coarsest
        self.enlarged = self.side / size
        self.pyramid = pyramid_over(shapes, self.side, levels.strides, recipe.width)
        sizes = tuple(tuple(self.enlarged * s for s in of_level) for of_level in levels.sizes)
        self.anchors = AnchorGenerator(sizes, (levels.ratios,) * len(sizes))  # pyright: ignore[reportArgumentType]

    def loss(self, maps: Sequence[Tensor], targets: Sequence[Target]) -> Tensor:
        """The sum of the losses, as a mean over the images."""
        seen = [t if self.enlarged == 1 else self._enlarge(t) for t in targets]
        return torch.stack(list(self._losses(self._images(maps), self.pyramid(maps), seen).values())).sum()

    def detect(self, maps: Sequence[Tensor]) -> list[Target]:
        """An image: boxes (k, 4) in input pixels, labels (k,), scores (k,), perhaps masks (k, 1, m, m) in the boxes."""
        found = self._found(self._images(maps), self.pyramid(maps))
        return [f | {"boxes": f["boxes"] / self.enlarged} for f in found]

    def _losses(self, images: ImageList, pyramid: OrderedDict[str, Tensor], targets: list[Target]) -> Target:
        raise NotImplementedError

    def _found(self, images: ImageList, pyramid: OrderedDict[str, Tensor]) -> list[Target]:
        raise NotImplementedError

    def _images(self, maps: Sequence[Tensor]) -> ImageList:
        # torchvision wants the images only for their size; an empty channel axis costs nothing.
        batch = len(maps[0])
        return ImageList(maps[0].new_empty(batch, 0, self.side, self.side), [(self.side, self.side)] * batch)

    def _enlarge(self, target: Target) -> Target:
        larger = target | {"boxes": target["boxes"] * self.enlarged}
        if "masks" in target:
            larger["masks"] = F.interpolate(target["masks"][:, None], (self.side, self.side), mode="nearest")[:, 0]
        return larger


class RegionHeads(Heads):
    """Faster R-CNN: what proposes regions, the box head that judges them, and with `masks` Mask R-CNN's mask head."""

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        size: int,
        levels: Levels,
        classes: int,
        recipe: DetectorRecipe,
        masks: bool,
    ):
        super().__init__(shapes, size, levels, recipe)
        width, kept = recipe.width, {"training": recipe.proposals, "testing": recipe.proposals}
        self.proposals = RegionProposalNetwork(
            self.anchors,
            RPNHead(width, self.anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=0.6,
            bg_iou_thresh=0.3,
            batch_size_per_image=recipe.anchor_samples,
            positive_fraction=0.5,
            pre_nms_top_n={name: 4 * count for name, count in kept.items()},
            post_nms_top_n=kept,
            nms_thresh=0.7,
        )
        aligned = partial(_roi_align, len(levels.strides), recipe.cells)
        mask_parts: dict[str, Any] = {}
        if masks:
            widths = (recipe.mask_width,) * recipe.mask_layers
            mask_parts = {
                "mask_roi_pool": aligned(recipe.mask_cells),
                "mask_head": MaskRCNNHeads(width, widths, 1, partial(nn.GroupNorm, GROUPS)),
                "mask_predictor": MaskRCNNPredictor(recipe.mask_width, recipe.mask_width, classes + 1),
            }
        self.regions = RoIHeads(
            aligned(recipe.box_cells),
            _box_head(recipe),
            FastRCNNPredictor(recipe.box_width, classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=recipe.samples,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=LOWEST_SCORE,
            nms_thresh=0.5,
            detections_per_img=MOST_DETECTIONS,
            **mask_parts,
        )

    def _losses(self, images, pyramid, targets):
        targets = [t | {"labels": t["labels"] + 1} for t in targets]  # class 0 is the background
        proposals, losses = self.proposals(images, pyramid, targets)
        return self.regions(pyramid, proposals, images.image_sizes, targets)[1] | losses

    def _found(self, images, pyramid):
        proposals, _ = self.proposals(images, pyramid)
        found, _ = self.regions(pyramid, proposals, images.image_sizes)
        return [f | {"labels": f["labels"] - 1} for f in found]


class RetinaHeads(Heads):
    """RetinaNet: every anchor is judged, with the focal loss."""

    def __init__(
        self, shapes: Sequence[tuple[int, int]], size: int, levels: Levels, classes: int, recipe: DetectorRecipe
    ):
        super().__init__(shapes, size, levels, recipe)
        self.each = self.anchors.num_anchors_per_location()[0]
        there = nn.Identity()  # in the place of the network, which is elsewhere
        there.out_channels = recipe.width  # pyright: ignore[reportArgumentType]
        self.retina = RetinaNet(
            there,
            classes,
            anchor_generator=self.anchors,
            head=RetinaNetHead(recipe.width, self.each, classes, partial(nn.GroupNorm, GROUPS)),
            score_thresh=LOWEST_SCORE,
            detections_per_img=MOST_DETECTIONS,
        )

    def _losses(self, images, pyramid, targets):
        maps = list(pyramid.values())
        return self.retina.compute_loss(targets, self.retina.head(maps), self.anchors(images, maps))

    def _found(self, images, pyramid):
        maps = list(pyramid.values())
        counts = [m.shape[2] * m.shape[3] * self.each for m in maps]  # anchors of each level
        by_level = {name: list(rows.split(counts, dim=1)) for name, rows in self.retina.head(maps).items()}
        anchors = [list(a.split(counts)) for a in self.anchors(images, maps)]
        return self.retina.postprocess_detections(by_level, anchors, images.image_sizes)


def heads_of(
    recipe: DetectorRecipe,
    levels: Levels,
    classes: int,
    size: int,
    masks: bool,
    shapes: Sequence[tuple[int, int]],
) -> Heads:
    """The detector that a recipe asks for."""
    if recipe.detector == "retinanet":
        return RetinaHeads(shapes, size, levels, classes, recipe)
    return RegionHeads(shapes, size, levels, classes, recipe, masks)


def _box_head(recipe: DetectorRecipe) -> nn.Module:
    side, width = recipe.box_cells, recipe.width
    if not recipe.box_layers:
        return TwoMLPHead(width * side**2, recipe.box_width)
    normed = partial(nn.GroupNorm, GROUPS)
    return FastRCNNConvFCHead((width, side, side), [width] * recipe.box_layers, [recipe.box_width], normed)


def _roi_align(levels: int, cells: int, side: int) -> MultiScaleRoIAlign:
    # Level 4 has stride 16: it takes regions from `cells` cells upwards, as `Levels` has it. With fewer than twice as
    # many cells to a region, so many samples each way are enough for one a cell.
    names, samples = [str(level) for level in range(levels)], -(-2 * cells // side)
    return MultiScaleRoIAlign(names, side, samples, canonical_scale=16 * cells, canonical_level=4)
