"""Instance segmentation on feature maps, frozen or fine-tuned: Mask R-CNN of torchvision, or a detector of mmdet.

The backbone stays as it was; what is reported are the weights after the last epoch.
"""

from ..measure import Measure
from ..task import Needs, Outcome, Scores, Task, percent
from .average_precision import REPLICATES, summary
from .engines import detector
from .recipe import MaskRecipe
from .regions import as_predictions, masks_of
from .scoring import box_matches, mask_matches


class InstanceSegmentation(Task):
    """Average precision of masks at IoU 0.5 to 0.95 as COCO has it, and of boxes beside it."""

    name, family, version = "instance-segmentation", "segmentation", 3
    needs = Needs(data="detection", maps=True)
    scores = Scores(
        ap=percent,
        ap50=percent,
        ap75=percent,
        ap_small=percent,
        ap_medium=percent,
        ap_large=percent,
        box_ap=percent,
        box_ap50=percent,
    )
    Recipe = MaskRecipe
    trains = True

    def run(self, backbone, data, recipe, context):
        for name in self.needs.splits:
            masks_of(data[name].targets[0], data[name], 0)  # a data set without masks is refused before any work
        found, chosen = detector(backbone, data, recipe, context, masks=True)
        return Outcome(as_predictions(found(data["test"]), data["test"], data.category_ids), chosen)

    def measure(self, predictions, data):
        test = data["test"]
        masks, boxes = mask_matches(predictions, test, data), box_matches(predictions, test, data)

        def scores(weights):
            of_boxes = summary(boxes, weights)
            return summary(masks, weights) | {f"box_{name}": of_boxes[name] for name in ("ap", "ap50")}

        return Measure(len(test), scores, groups=test.groups, replicates=REPLICATES)
