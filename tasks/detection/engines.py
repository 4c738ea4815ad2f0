"""The engines that train detectors. Each is imported when it is asked for."""

from collections.abc import Callable
from typing import Any

from ...backbones import Backbone
from ..context import Context
from ..datasets import Dataset, Split
from .recipe import DetectorRecipe
from .regions import Detections


def detector(
    backbone: Backbone, data: Dataset, recipe: DetectorRecipe, context: Context, *, masks: bool
) -> tuple[Callable[[Split], list[Detections]], dict[str, Any]]:
    """Trained by the recipe's engine: what finds the objects of any split, and what was chosen on validation data."""
    if recipe.engine == "mmdet":
        from ..openmmlab.detection import detector as engine
    else:
        from .training import detector as engine
    return engine(backbone, data, recipe, context, masks=masks)
