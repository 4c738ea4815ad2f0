"""The recipe of detectors: which engine trains which kind, and how large its parts are."""

from typing import Any, Literal

from pydantic import Field, model_validator

from ..training.dense_recipe import DenseRecipe
from ..training.optimisation import Rates

GROUPS = 8  # of GroupNorm in the heads, where a batch may hold no region at all
DETECTORS = {"torchvision": ("faster-rcnn", "retinanet"), "mmdet": ("cascade-rcnn", "faster-rcnn", "retinanet")}
"""What each engine has, its default first."""


class DetectorRecipe(DenseRecipe):
    """`engine` trains a `detector` (default: faster-rcnn of torchvision, cascade-rcnn of mmdet).

    `width`, `box_width`, `mask_width`: channels of the pyramid and of the box and mask heads; `mask_layers` of these.
    `box_layers`: convolutions of the box head before its one fully connected layer, with GroupNorm (0: two such layers
    and no convolution); `box_loss`: of mmdet's, giou is generalised IoU (arXiv 1902.09630) with weight 10.
    `cells`: an object spans at least so many cells of its level of the pyramid; `box_cells`, `mask_cells`: the side of
    what RoIAlign cuts out of it. `proposals`: regions of an image that the box head looks at; `samples`: those it
    learns from, as `anchor_samples` are for what proposes regions.
    The defaults are for small images of few objects; Mask R-CNN on COCO has width 256, box_width 1024, mask_width 256,
    mask_layers 4, cells 8, box_cells 7, mask_cells 14, proposals 1000, samples 512, anchor_samples 256.
    """

    engine: Literal["torchvision", "mmdet"] = "torchvision"
    detector: Literal["faster-rcnn", "retinanet", "cascade-rcnn"] = "faster-rcnn"
    epochs: int = Field(default=4, ge=1)
    batch: int = Field(default=8, ge=1)
    learning_rate: Rates = (4e-3,)
    width: int = Field(default=64, ge=GROUPS, multiple_of=GROUPS)
    box_width: int = Field(default=128, ge=1)
    box_layers: int = Field(default=0, ge=0)
    box_loss: Literal["smooth-l1", "giou"] = "smooth-l1"
    mask_width: int = Field(default=64, ge=GROUPS, multiple_of=GROUPS)
    mask_layers: int = Field(default=2, ge=1)
    cells: int = Field(default=2, ge=1)
    box_cells: int = Field(default=5, ge=1)
    mask_cells: int = Field(default=7, ge=1)
    proposals: int = Field(default=48, ge=1)
    samples: int = Field(default=32, ge=1)
    anchor_samples: int = Field(default=64, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _default_of_the_engine(cls, said: Any) -> Any:
        engine = said.get("engine")
        return {"detector": DETECTORS[engine][0]} | said if engine in DETECTORS else said

    @model_validator(mode="after")
    def _engine_has_it(self):
        there = DETECTORS[self.engine]
        if self.detector not in there:
            raise ValueError(f"engine {self.engine} has no {self.detector}; it has: {', '.join(there)}")
        if self.box_loss == "giou" and (self.engine != "mmdet" or self.detector == "retinanet"):
            raise ValueError("box_loss giou is for the box heads of engine mmdet; leave it out")
        return self


class MaskRecipe(DetectorRecipe):
    """Of detectors that give masks too."""

    @model_validator(mode="after")
    def _gives_masks(self):
        if self.detector == "retinanet":
            raise ValueError(f"retinanet gives no masks; the default here is {DETECTORS[self.engine][0]}")
        return self
