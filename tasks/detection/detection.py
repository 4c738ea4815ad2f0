"""Object detection: Faster R-CNN heads on a pyramid of frozen feature maps (Ren et al. 2015, arXiv 1506.01497)."""

from ..measure import Measure
from ..task import Needs, Outcome, Scores, Task, percent
from .average_precision import REPLICATES, match, summary
from .heads import DetectorRecipe
from .regions import as_predictions, box_overlap, found_boxes, true_boxes
from .training import detect, train


class Detection(Task):
    """Average precision of boxes at IoU 0.5 to 0.95 as COCO has it; the weights of the last epoch are reported."""

    name, family, version = "detection", "detection", 2
    needs = Needs(data="detection", splits=("train", "test"), maps=True)
    scores = Scores(ap=percent, ap50=percent, ap75=percent, ap_small=percent, ap_medium=percent, ap_large=percent)
    Recipe = DetectorRecipe

    def run(self, backbone, data, recipe, context):
        heads = train(backbone, data["train"], len(data.classes), recipe, context, masks=False)
        return Outcome(as_predictions(detect(heads, backbone, data["test"], recipe, context)))

    def measure(self, predictions, data):
        test = data["test"]
        found = found_boxes(predictions, len(test), len(data.classes))
        matches = match(true_boxes(test), found, len(data.classes), box_overlap)
        return Measure(len(test), lambda weights: summary(matches, weights), groups=test.groups, replicates=REPLICATES)
