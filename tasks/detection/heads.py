"""Faster R-CNN (arXiv 1506.01497) and Mask R-CNN (arXiv 1703.06870) heads on feature maps, from torchvision's parts."""

from collections.abc import Sequence
from functools import partial

from pydantic import Field
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign

from ..dense import DenseRecipe
from .pyramid import CELLS, Levels, pyramid_over

BOX_CELLS, MASK_CELLS = 5, 7  # side of what RoIAlign cuts out: a region spans 2 to 4 cells of its level
GROUPS = 8  # of GroupNorm in the mask head, where a batch may hold no region at all
LOWEST_SCORE = 0.05
MOST_DETECTIONS = 100


class DetectorRecipe(DenseRecipe):
    """`width`, `box_width`, `mask_width`: channels of the pyramid and of the box and mask heads.

    `proposals`: regions of an image that the box head looks at; `samples`: those it learns from.
    """

    epochs: int = Field(default=4, ge=1)
    batch: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=4e-3, gt=0)
    width: int = Field(default=64, ge=1)
    box_width: int = Field(default=128, ge=1)
    mask_width: int = Field(default=64, ge=GROUPS, multiple_of=GROUPS)
    proposals: int = Field(default=48, ge=1)
    samples: int = Field(default=32, ge=1)


class Heads(nn.Module):
    """Pyramid, region proposals, box head, and with `masks` a mask head; classes count from 0, background apart."""

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        size: int,
        levels: Levels,
        classes: int,
        recipe: DetectorRecipe,
        masks: bool,
    ):
        """`shapes`: channels and side of each feature map, for input images of `size` pixels."""
        super().__init__()
        self.size = size
        width = recipe.width
        self.pyramid = pyramid_over(shapes, size, levels.strides, width)
        anchors = AnchorGenerator(levels.sizes, (levels.ratios,) * len(levels.sizes))
        kept = {"training": recipe.proposals, "testing": recipe.proposals}
        self.proposals = RegionProposalNetwork(
            anchors,
            RPNHead(width, anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=0.6,
            bg_iou_thresh=0.3,
            batch_size_per_image=64,
            positive_fraction=0.5,
            pre_nms_top_n={name: 4 * count for name, count in kept.items()},
            post_nms_top_n=kept,
            nms_thresh=0.7,
        )
        names = [str(level) for level in range(len(levels.strides))]
        mask_parts = {}
        if masks:
            mask_parts = {
                "mask_roi_pool": _roi_align(names, MASK_CELLS),
                "mask_head": MaskRCNNHeads(width, (recipe.mask_width,) * 2, 1, partial(nn.GroupNorm, GROUPS)),
                "mask_predictor": MaskRCNNPredictor(recipe.mask_width, recipe.mask_width, classes + 1),
            }
        self.regions = RoIHeads(
            _roi_align(names, BOX_CELLS),
            TwoMLPHead(width * BOX_CELLS**2, recipe.box_width),
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

    def losses(self, maps: Sequence[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The parts of the training loss; `targets` as torchvision's, with labels from 0, boxes in input pixels."""
        targets = [t | {"labels": t["labels"] + 1} for t in targets]
        return self._forward(maps, targets)[1]

    def detect(self, maps: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """An image: boxes (k, 4) in input pixels, labels (k,), scores (k,), and masks (k, 1, m, m) within the boxes."""
        found, _ = self._forward(maps, None)
        return [f | {"labels": f["labels"] - 1} for f in found]

    def _forward(self, maps: Sequence[Tensor], targets: list[dict[str, Tensor]] | None):
        pyramid = self.pyramid(maps)
        # torchvision wants the images only for their size; an empty channel axis costs nothing.
        batch = len(maps[0])
        images = ImageList(maps[0].new_empty(batch, 0, self.size, self.size), [(self.size, self.size)] * batch)
        proposals, proposal_losses = self.proposals(images, pyramid, targets)
        found, losses = self.regions(pyramid, proposals, images.image_sizes, targets)
        return found, losses | proposal_losses


def _roi_align(names: list[str], cells: int) -> MultiScaleRoIAlign:
    # Level 4 has stride 16: it takes regions from CELLS cells upwards, as `Levels` has it.
    # With fewer than 2 * CELLS cells to a region every bin is smaller than a cell: one sample a bin is enough.
    return MultiScaleRoIAlign(names, cells, sampling_ratio=1, canonical_scale=16 * CELLS, canonical_level=4)
