"""Detection under distribution shift: a detector trained as in `detection`, tested on every `shift:` split."""

from ..detection.average_precision import summary
from ..detection.engines import detector
from ..detection.recipe import DetectorRecipe
from ..detection.regions import as_predictions
from ..detection.scoring import box_matches
from ..task import Needs, Outcome, Task
from .shift import measured, reported_splits, shift_scores
from .shift_picture import shift_picture
from .splits import together


class DetectionShift(Task):
    """Average precision of boxes as COCO has it, split by split: an object is sought among those of its own split."""

    name, family, version = "detection-shift", "ood", 2
    needs = Needs(data="detection", splits=("train", "val", "test", "shift:*"), maps=True)
    scores = shift_scores("ap")
    Recipe = DetectorRecipe
    trains = True

    def run(self, backbone, data, recipe, context):
        found, chosen = detector(backbone, data, recipe, context, masks=False)
        parts = {
            name: as_predictions(found(split), split, data.category_ids)
            for name, split in reported_splits(data).items()
        }
        return Outcome(together(parts), chosen)

    def measure(self, predictions, data):
        def score_of(part, split):
            matches = box_matches(part, split, data)
            return lambda weights: summary(matches, weights)["ap"]

        return measured("ap", predictions, data, score_of)

    def picture(self, predictions, data):
        return shift_picture(self.measure(predictions, data), "ap", "A detector under shift")
