"""The recipe of semantic segmentation: which head, by which library, how an image is looked at."""

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, model_validator

from ..training.dense_recipe import DenseRecipe
from ..training.optimisation import Rates

HEADS = {"torch": ("linear", "upernet", "fcn"), "mmseg": ("upernet", "fcn")}  # the first is the default
RATES = {"linear": (2e-2,), "upernet": (1e-3,), "fcn": (1e-3,)}


class SegmenterRecipe(DenseRecipe):
    """`engine`: our training loop or mmseg's runner; `head`: by default linear, of mmseg upernet; `learning_rate`: by
    default what suits the head.

    `width`: channels of UPerNet or FCN; `auxiliary`: weight of the loss of an FCN head beside UPerNet (0: none).
    `inference`: the `whole` image at once, its longer side of `size` pixels, as it is trained on unless `scale` says
    otherwise; or `slide`, its shorter side of `size` pixels, in windows of size x size, the next one `stride` of a
    window further on.
    """

    engine: Literal["torch", "mmseg"] = "torch"
    head: Literal["linear", "upernet", "fcn"] = "linear"
    width: int = Field(default=64, ge=2)
    auxiliary: NonNegativeFloat = 0.4
    inference: Literal["whole", "slide"] = "whole"
    stride: float = Field(default=2 / 3, gt=0, le=1)
    norm_eval: bool = False
    learning_rate: Rates = RATES["linear"]
    warmup_epochs: NonNegativeFloat = 1.0

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        head = given.get("head", HEADS.get(str(given.get("engine")), HEADS["torch"])[0])
        return {"head": head, "learning_rate": RATES.get(str(head), RATES["linear"])} | given

    @model_validator(mode="after")
    def _known_to_engine(self):
        if self.head not in HEADS[self.engine]:
            raise ValueError(f"engine {self.engine} has no head {self.head!r}: say {' or '.join(HEADS[self.engine])}")
        return self

    def step(self, size: int) -> int:
        """Pixels from one window of `size` to the next."""
        return max(1, round(self.stride * size))
