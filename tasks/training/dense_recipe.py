"""The recipe that dense tasks share, and the size of the images that the network sees."""

from functools import cache
from math import lcm
from typing import Annotated

import torch
from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, model_validator

from ...backbones import Backbone, NotApplicable
from .optimisation import Rates, TrainingRecipe
from .trainable import check_trainable

STEP = 32  # pixels: the coarsest stride of a usual pyramid, so that a multiple of it divides at every level


class DenseRecipe(TrainingRecipe):
    """`size`: side of the square image in pixels (default: half as large again as the backbone's own input).

    `norm_eval`: batch norm's statistics of the backbone stay as they are; `scale`: the longer side in training, drawn
    as a factor of `size`, cropped or padded to it (1, 1: the whole image as in testing; 0.1, 2: large-scale jitter,
    arXiv 2012.07177). `window`: a plain ViT that is trained attends within windows of so many patches each way, but for
    four of its blocks (`windows.py`); without it everywhere, as it was pretrained.
    """

    size: int | None = Field(default=None, ge=STEP)
    trainable: Annotated[str, AfterValidator(check_trainable)] = "frozen"
    norm_eval: bool = True
    scale: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    horizontal_flip: float = Field(default=0.0, ge=0, le=1)
    window: int | None = Field(default=None, ge=1)
    epochs: int = Field(default=10, ge=1)
    batch: int = Field(default=16, ge=1)
    learning_rate: Rates = (1e-2,)
    weight_decay: NonNegativeFloat = 1e-2
    clip_grad: PositiveFloat | None = 10.0
    warmup_epochs: NonNegativeFloat = 0.5

    @model_validator(mode="after")
    def _rising(self):
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"`scale` is the least and the largest factor, got {list(self.scale)}")
        return self

    @model_validator(mode="after")
    def _live(self):
        if self.window and self.trainable == "frozen":
            raise ValueError(
                "`window` is for a network that is trained; a frozen one gives its maps as it was pretrained"
            )
        return self

    @property
    def augmented(self) -> bool:
        """Whether a training image is another one each time."""
        return self.scale != (1.0, 1.0) or self.horizontal_flip > 0


def input_size(backbone: Backbone, size: int | None) -> int:
    """The side in pixels of square images: as asked, or half as large again as the backbone's own, which it is where
    the network takes no other. A multiple of 32 and, of a network with one map, of its stride. Raises NotApplicable.
    """
    step = lcm(STEP, backbone.levels[0].stride) if len(backbone.levels) == 1 else STEP
    # A patch of 14 pixels has no common multiple with 32 that is near: its own will do, the pyramid resamples.
    step = step if step <= 2 * STEP else backbone.levels[0].stride
    if size:
        return -(-size // step) * step
    wanted, own = max(step, round(1.5 * backbone.input.size / step) * step), backbone.input.size
    try:
        map_shapes(backbone, wanted)
    except NotApplicable:
        return own
    return wanted


@cache
def map_shapes(backbone: Backbone, size: int) -> list[tuple[int, int]]:
    """Channels and side of each feature map, for images of `size` pixels. Raises NotApplicable."""
    weight = next(backbone.parameters(), torch.zeros(()))
    images = torch.zeros(1, 3, size, size, device=weight.device)
    training = backbone.training
    with torch.no_grad():
        maps = backbone.eval()(images, embedding=False, maps=True).maps
    backbone.train(training)
    return [(m.shape[1], m.shape[-1]) for m in maps]
