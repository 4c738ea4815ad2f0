"""Multi-label fine-tuning: a backbone and a linear layer on its embedding, trained end to end, yes or no a label.

Binary cross-entropy, as in Battle of the Backbones on CheXpert (arXiv 2310.19909), without the AUROC loss that some use
there; targets that are not known are neither trained on nor scored. Otherwise as fine-tuning; validation data choose
the rate by mean AUROC.
"""

import numpy as np
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ..task import Needs, Outcome, Task
from ..training.classifier import Objective
from ..training.pictures import part_of_labelled
from ..training.recipe import ClassifierRecipe
from .finetune import fine_tuned
from .multilabel_probe import RANKING, judged, mean_auroc, ranking


class EachLabel(Objective):
    """Every label by itself: binary cross-entropy of what is known, mean AUROC."""

    score = "val_mean_auroc"

    def rows(self, targets: np.ndarray, fraction: float, seed: int) -> np.ndarray:
        return part_of_labelled(targets, fraction, seed)

    def prepare(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return images, targets.to(images.dtype)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(logits, targets.clamp(min=0), weight=(targets >= 0).to(logits.dtype))

    def value(self, logits: Tensor, targets: Tensor) -> float:
        return mean_auroc(logits, targets)


class MultilabelFinetune(Task):
    name, family, version = "multilabel-finetune", "classification", 1
    needs = Needs(data="multilabel")
    scores = RANKING
    Recipe = ClassifierRecipe
    trains = True

    def run(self, backbone, data, recipe, context):
        logits, chosen = fine_tuned(backbone, data, recipe, EachLabel(), context)
        return Outcome(judged(logits(data["test"]), data["test"]), chosen)

    def measure(self, predictions, data):
        return ranking(predictions, data)
