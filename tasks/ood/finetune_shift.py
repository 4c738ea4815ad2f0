"""Accuracy under distribution shift of a fine-tuned network: trained on clean images, tested on every `shift:` split.

The training is that of `finetune`, what is reported that of `ood-shift`: the two tell apart what a probe and what
training all of a network keep of it (Kumar et al. 2022 find that training all may cost accuracy under shift).
"""

from ..classification.finetune import OneLabel, fine_tuned
from ..task import Outcome, Task
from ..training.recipe import OneLabelRecipe
from .ood_shift import NEEDS, SCORES, answers, measured
from .shift_picture import shift_picture


class FinetuneShift(Task):
    name, family, version = "finetune-shift", "ood", 1
    needs, scores = NEEDS, SCORES
    Recipe = OneLabelRecipe
    trains = True

    def run(self, backbone, data, recipe, context):
        logits, chosen = fine_tuned(backbone, data, recipe, OneLabel(recipe, len(data.classes)), context)
        return Outcome(answers(data, logits), chosen)

    def measure(self, predictions, data):
        return measured(predictions, data)

    def picture(self, predictions, data):
        return shift_picture(self.measure(predictions, data), "top1", "A fine-tuned network under shift")
