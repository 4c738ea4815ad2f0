"""Fine-tuning: a backbone and a linear classifier on its embedding, trained end to end with timm's recipe.

AdamW with layer-wise decay, a cosine with warm-up, and timm's augmentation and regularisation, as in Battle of the
Backbones (arXiv 2310.19909); the defaults are for small data. As with the linear probe, validation data choose the
rate and are then trained on, too (`train_on_val`); what is reported are the weights after the last epoch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from timm.data.mixup import mixup_target
from timm.loss.cross_entropy import SoftTargetCrossEntropy
from torch import Tensor

from ...backbones import Backbone
from ...backbones.errors import BadInput
from ..context import Context
from ..datasets import Dataset, Split
from ..design import Probe
from ..logistic import Path
from ..task import Needs, Outcome, Task
from ..threads import one_thread
from ..training.choice import best_rate
from ..training.classifier import ClassifierTrainee, Objective, logits_of
from ..training.loop import Trained, train
from ..training.pictures import joined, part_of_each_class, steps_of
from ..training.plan import FOLDER, departures, plan_of
from ..training.processes import rank, rest_is_for_first
from ..training.recipe import ClassifierRecipe, OneLabelRecipe, mixing
from .accuracy import ACCURACY, accuracy, ranked, top1

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the probe that the head begins as


class OneLabel(Objective):
    """One class of all: cross-entropy with soft targets, top-1."""

    score = "val_top1"

    def __init__(self, recipe: OneLabelRecipe, classes: int):
        self.classes, self.smoothing, self.mix = classes, recipe.label_smoothing, mixing(recipe, classes)
        self.pairs, self.loss = self.mix is not None, SoftTargetCrossEntropy()

    def rows(self, targets: np.ndarray, fraction: float, seed: int) -> np.ndarray:
        return part_of_each_class(targets, fraction, seed)

    def prepare(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if self.mix:
            return self.mix(images, targets)
        return images, mixup_target(targets, self.classes, smoothing=self.smoothing)

    def value(self, logits: Tensor, targets: Tensor) -> float:
        return 100 * top1(logits, targets)


class Finetune(Task):
    """A copy of the backbone is trained, so the backbone stays as it was."""

    name, family, version = "finetune", "classification", 1
    needs = Needs(data="classification")
    scores = ACCURACY
    Recipe = OneLabelRecipe
    trains = True

    def run(self, backbone, data, recipe, context):
        logits, chosen = fine_tuned(backbone, data, recipe, OneLabel(recipe, len(data.classes)), context)
        return Outcome(ranked(logits(data["test"]).softmax(1), data["test"]), chosen)

    def measure(self, predictions, data):
        return accuracy(predictions, data["test"])


def fine_tuned(
    backbone: Backbone, data: Dataset, recipe: ClassifierRecipe, objective: Objective, context: Context
) -> tuple[Callable[[Split], Tensor], dict[str, Any]]:
    """What gives the logits (n, C) of a split's images, by the classifier trained at the rate that validation data
    chose, and what was chosen. Raises BadInput, Diverged, NotApplicable, Unavailable.
    """
    with one_thread():
        at = partial(trained, backbone, data, recipe, objective, context)
        best, chosen = best_rate(recipe.learning_rate, at, objective.score, compare=not recipe.train_on_val)
        done = at(best, also_val=recipe.train_on_val)  # or read back
        rest_is_for_first()

    def logits(split: Split) -> Tensor:
        with one_thread():
            return logits_of(done.trainee.model, split, np.arange(len(split)), context)

    return logits, chosen | departures(done)


def trained(
    backbone: Backbone,
    data: Dataset,
    recipe: ClassifierRecipe,
    objective: Objective,
    context: Context,
    rate: float,
    *,
    also_val: bool = False,
) -> Trained:
    """A classifier trained at one rate, from where a former run left it; asked for again, it is read back.

    `also_val`: on train and val together, else on train, with the score on val in its curve.
    """
    split, val, classes = data["train"], data["val"], len(data.classes)
    if also_val:
        split, val = joined(split, val), None
    rows = labelled_rows(split, objective, recipe.fraction, context.seed)
    seen = [split.fingerprint, val and val.fingerprint, classes]
    plan = plan_of(backbone, recipe, rate, steps_of(rows, recipe.batch), context, seen)

    def make() -> ClassifierTrainee:
        probe = None
        if recipe.head == "linear-probe" and not rank():  # other processes are given the first's weights
            probe = first_probe(backbone, data, recipe, objective, context)
        return ClassifierTrainee(backbone, split, rows, val, classes, recipe, objective, rate, context, probe)

    return train(make, plan, context.folder / FOLDER / f"learning-rate-{rate:g}{'-with-val' * also_val}", context)


def first_probe(
    backbone: Backbone, data: Dataset, recipe: ClassifierRecipe, objective: Objective, context: Context
) -> Probe:
    """The linear probe of the training examples that validation data like best."""

    def part(split: Split, fraction: float) -> tuple[Tensor, Tensor]:
        rows = labelled_rows(split, objective, fraction, context.seed)
        return context.embeddings(backbone, split)[rows], torch.as_tensor(split.targets)[rows]

    x, y = part(data["val"], 1.0)
    probes = Path([part(data["train"], recipe.fraction)], len(data.classes)).probes(STRENGTHS)
    return max(probes, key=lambda probe: objective.value(probe.logits(x), y))  # of equals, the strongest penalty


def labelled_rows(split: Split, objective: Objective, fraction: float, seed: int) -> np.ndarray:
    """Sorted rows of a share of the examples that have a target. Raises BadInput where none has."""
    rows = objective.rows(np.asarray(split.targets), fraction, seed)
    if not len(rows):
        raise BadInput(f"{split.name or 'the split'}: no image has a label, so there is nothing to train on")
    return rows
