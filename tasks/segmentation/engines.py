"""The engines that train segmenters. Each is imported when it is asked for."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ...backbones import Backbone
from ..context import Context
from ..datasets import Dataset, Split
from .recipe import SegmenterRecipe


def segmenter(
    backbone: Backbone, data: Dataset, recipe: SegmenterRecipe, context: Context
) -> tuple[Callable[[Split], list[np.ndarray]], dict[str, Any]]:
    """Trained by the recipe's engine: what gives each image's pixels their classes, and what was chosen on val."""
    if recipe.engine == "mmseg":
        from ..openmmlab.segmentation import segmenter as engine
    else:
        from .training import segmenter as engine
    return engine(backbone, data, recipe, context)
