"""Instance segmentation: Mask R-CNN heads on a pyramid of frozen feature maps (He et al. 2017, arXiv 1703.06870)."""

from ..datasets import rle
from ..measure import Measure
from ..task import Needs, Outcome, Scores, Task, percent
from .average_precision import REPLICATES, match, summary
from .frame import image_sizes
from .heads import DetectorRecipe
from .regions import as_predictions, box_overlap, found_boxes, found_masks, masks_of, true_boxes, true_masks
from .training import detect, train


class InstanceSegmentation(Task):
    """Average precision of masks at IoU 0.5 to 0.95 as COCO has it, and of boxes beside it; last epoch's weights."""

    name, family, version = "instance-segmentation", "segmentation", 2
    needs = Needs(data="detection", splits=("train", "test"), maps=True)
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
    Recipe = DetectorRecipe

    def run(self, backbone, data, recipe, context):
        for split in (data["train"], data["test"]):
            masks_of(split.targets[0], split, 0)  # a data set without masks is refused before any work
        heads = train(backbone, data["train"], len(data.classes), recipe, context, masks=True)
        return Outcome(as_predictions(detect(heads, backbone, data["test"], recipe, context)))

    def measure(self, predictions, data):
        test, classes = data["test"], len(data.classes)
        masks = match(true_masks(test), found_masks(predictions, image_sizes(test), classes), classes, rle.overlap)
        boxes = match(true_boxes(test), found_boxes(predictions, len(test), classes), classes, box_overlap)

        def scores(weights):
            of_boxes = summary(boxes, weights)
            return summary(masks, weights) | {f"box_{name}": of_boxes[name] for name in ("ap", "ap50")}

        return Measure(len(test), scores, groups=test.groups, replicates=REPLICATES)
