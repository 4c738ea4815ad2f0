"""Fine-tuning: a backbone and a linear classifier on its embedding, trained end to end with timm's recipe.

AdamW with layer-wise decay, a cosine with warm-up, and timm's augmentation and regularisation, as in Battle of the
Backbones (arXiv 2310.19909); the defaults are for small data. As with the linear probe, validation data choose the
rate and are then trained on, too (`train_on_val`); what is reported are the weights after the last epoch.
"""

from functools import partial
from typing import Any

import numpy as np
import timm
import torch

from ...backbones import Backbone
from ..context import Context
from ..datasets import Dataset
from ..design import Probe
from ..logistic import Path
from ..task import Needs, Outcome, Task, settings_of
from ..threads import one_thread
from ..training.classifier import Classifier, ClassifierTrainee, probabilities
from ..training.loop import Diverged, Plan, Trained, train
from ..training.pictures import joined, part_of_each_class, steps_of
from ..training.recipe import ClassifierRecipe
from .accuracy import ACCURACY, accuracy, ranked, top1
from .linear_probe import labelled

TOLD = ("trainable", "batch", "warmup_epochs", "layer_decay", "clip_grad")  # when a training diverges
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the probe that the head begins as
FOLDER = "training"  # in the cell's: a folder a training, with its curve and, until the cell is finished, a checkpoint


class Finetune(Task):
    """A copy of the backbone is trained, so the backbone stays as it was."""

    name, family, version = "finetune", "classification", 1
    needs = Needs(data="classification")
    scores = ACCURACY
    Recipe = ClassifierRecipe

    def run(self, backbone, data, recipe, context):
        test = data["test"]
        with one_thread():
            model, chosen = chosen_classifier(backbone, data, recipe, context)
            found = probabilities(model, test, np.arange(len(test)), context)
        return Outcome(ranked(found, test), chosen)

    def measure(self, predictions, data):
        return accuracy(predictions, data["test"])


def chosen_classifier(
    backbone: Backbone, data: Dataset, recipe: ClassifierRecipe, context: Context
) -> tuple[Classifier, dict[str, Any]]:
    """The classifier trained at the rate that validation data chose; and what was chosen. Raises Diverged, Unavailable.

    A rate at which training diverges is not chosen; where all do, Diverged is raised.
    """
    rates, curves, chosen = sorted(recipe.learning_rate), {}, {}
    diverged: dict[float, Diverged] = {}
    if len(rates) > 1 or not recipe.train_on_val:
        for rate in rates:
            try:
                curves[rate] = trained(backbone, data, recipe, rate, context).curve[-1]
            except Diverged as error:
                diverged[rate] = error
        if not curves:
            raise diverged[rates[0]]
    best = max(curves, key=lambda rate: curves[rate]["val_top1"]) if curves else rates[0]  # of equals, the lower rate
    done = trained(backbone, data, recipe, best, context, also_val=recipe.train_on_val)  # or read back
    chosen = {"learning_rate": best}
    if curves:
        chosen["val_top1"] = curves[best]["val_top1"]
    if diverged:
        chosen["diverged"] = list(diverged)
    if (fits := done.curve[-1]["micro_batch"]) < (recipe.micro_batch or recipe.batch):
        chosen["micro_batch"] = fits
    if recipe.drop_path and not done.trainee.model.dropping:
        chosen["drop_path"] = "none: this network has no place for it"
    return done.trainee.model, chosen


def trained(
    backbone: Backbone,
    data: Dataset,
    recipe: ClassifierRecipe,
    rate: float,
    context: Context,
    *,
    also_val: bool = False,
) -> Trained:
    """A classifier trained at one rate, from where a former run left it; asked for again, it is read back.

    `also_val`: on train and val together, else on train, with the score on val in its curve.
    """
    split, val, classes = data["train"], data["val"], len(data.classes)
    if also_val:
        split, val = joined(split, val), None
    rows = part_of_each_class(np.asarray(split.targets), recipe.fraction, context.seed)
    probe = first_probe(backbone, data, recipe, context) if recipe.head == "linear-probe" else None
    settings = settings_of(recipe)
    plan = Plan(
        name=f"{backbone.name} at learning rate {rate:g}",
        epochs=recipe.epochs,
        steps=steps_of(rows, recipe.batch),
        batch=recipe.batch,
        micro_batch=min(recipe.micro_batch or recipe.batch, recipe.batch),
        clip_grad=recipe.clip_grad,
        precision=backbone.loading.precision,
        told=", ".join(f"{key} {settings[key]}" for key in TOLD),
        made_of={
            "weights": backbone.weights_digest,
            "card": backbone.card.digest(),
            "loading": backbone.loading.identity,
            "data": [split.fingerprint, val and val.fingerprint, classes],
            "recipe": settings | {"learning_rate": rate},
            "seed": context.seed,
            "libraries": [torch.__version__, timm.__version__],
        },
    )
    make = partial(ClassifierTrainee, backbone, split, rows, val, classes, recipe, rate, context, probe)
    return train(make, plan, context.folder / FOLDER / f"learning-rate-{rate:g}{'-with-val' * also_val}", context)


def first_probe(backbone: Backbone, data: Dataset, recipe: ClassifierRecipe, context: Context) -> Probe:
    """The linear probe of the training examples that validation data like best."""
    train, val = data["train"], data["val"]
    rows = part_of_each_class(np.asarray(train.targets), recipe.fraction, context.seed)
    x, y = context.embeddings(backbone, train)[rows], torch.as_tensor(train.targets)[rows]
    x_val, y_val = labelled(context.embeddings(backbone, val), val)
    probes = Path([(x, y)], len(data.classes)).probes(STRENGTHS)
    return max(probes, key=lambda probe: top1(probe.logits(x_val), y_val))  # of equals, the strongest penalty
