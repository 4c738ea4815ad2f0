"""Semantic segmentation: a linear head (as in DINOv2, arXiv 2304.07193), UPerNet or FCN on feature maps."""

import numpy as np

from ..measure import Measure
from ..task import Needs, Outcome, Scores, Task, percent
from .confusion import as_png, count
from .engines import segmenter
from .recipe import SegmenterRecipe


class SemanticSegmentation(Task):
    """Mean IoU of the pixels' classes in each image's own resolution; the weights of the last epoch are reported."""

    name, family, version = "semantic-segmentation", "segmentation", 2
    needs = Needs(data="segmentation", maps=True)
    scores = Scores(miou=percent, pixel_accuracy=percent, mean_accuracy=percent)
    Recipe = SegmenterRecipe
    trains = True

    def run(self, backbone, data, recipe, context):
        segment, chosen = segmenter(backbone, data, recipe, context)
        masks = segment(data["test"])
        column = np.empty(len(masks), dtype=object)
        column[:] = [as_png(mask) for mask in masks]
        return Outcome({"image": np.arange(len(masks), dtype=np.int32), "mask": column}, chosen)

    def measure(self, predictions, data):
        test = data["test"]
        counts = count(predictions, test, len(data.classes))
        return Measure(len(test), counts.scores, groups=test.groups)
