"""Segmentation under distribution shift: trained as in `semantic-segmentation`, tested on every `shift:` split."""

import numpy as np

from ..classification.accuracy import check_ids, names
from ..segmentation.confusion import as_png, count
from ..segmentation.engines import segmenter
from ..segmentation.recipe import SegmenterRecipe
from ..task import Needs, Outcome, Task
from .shift import measured, reported_splits, shift_scores
from .shift_picture import shift_picture
from .splits import together


class SegmentationShift(Task):
    """Mean IoU of the pixels' classes in each image's own resolution, split by split."""

    name, family, version = "segmentation-shift", "ood", 2
    needs = Needs(data="segmentation", splits=("train", "val", "test", "shift:*"), maps=True)
    scores = shift_scores("miou")
    Recipe = SegmenterRecipe
    trains = True

    def run(self, backbone, data, recipe, context):
        segment, chosen = segmenter(backbone, data, recipe, context)
        parts = {}
        for name, split in reported_splits(data).items():
            masks = segment(split)
            parts[name] = {"id": names(split), "mask": np.empty(len(masks), dtype=object)}
            parts[name]["mask"][:] = [as_png(mask) for mask in masks]
        return Outcome(together(parts), chosen)

    def measure(self, predictions, data):
        def score_of(part, split):
            check_ids(part["id"], split)
            counts = count(part, split, len(data.classes))
            return lambda weights: counts.scores(weights)["miou"]

        return measured("miou", predictions, data, score_of)

    def picture(self, predictions, data):
        return shift_picture(self.measure(predictions, data), "miou", "A segmenter under shift")
