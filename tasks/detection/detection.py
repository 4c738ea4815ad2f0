"""Object detection on feature maps, frozen or fine-tuned: Faster R-CNN or RetinaNet of torchvision, or one of mmdet.

The backbone stays as it was; what is reported are the weights after the last epoch.
"""

from ..measure import Measure
from ..task import Needs, Outcome, Scores, Task, percent
from .average_precision import REPLICATES, summary
from .engines import detector
from .recipe import DetectorRecipe
from .regions import as_predictions
from .scoring import box_matches


class Detection(Task):
    """Average precision of boxes at IoU 0.5 to 0.95 as COCO has it."""

    name, family, version = "detection", "detection", 3
    needs = Needs(data="detection", maps=True)
    scores = Scores(ap=percent, ap50=percent, ap75=percent, ap_small=percent, ap_medium=percent, ap_large=percent)
    Recipe = DetectorRecipe
    trains = True

    def run(self, backbone, data, recipe, context):
        found, chosen = detector(backbone, data, recipe, context, masks=False)
        return Outcome(as_predictions(found(data["test"]), data["test"], data.category_ids), chosen)

    def measure(self, predictions, data):
        test = data["test"]
        matches = box_matches(predictions, test, data)
        return Measure(len(test), lambda weights: summary(matches, weights), groups=test.groups, replicates=REPLICATES)
