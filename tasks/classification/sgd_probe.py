"""Linear probe by LARS or SGD, as Battle of the Backbones trains it (arXiv 2310.19909), on banked features.

LARS, momentum 0.9, no weight decay, base learning rate 0.1 for 256 images, warm-up of 10 epochs and a cosine over 90, a
batch normalisation without affine part before the head. What differs: a grid of base rates around theirs, as DINOv2
tries (Oquab et al. 2023), chosen on validation data instead of the best epoch of one rate on the test data; images are
not augmented, or by `views` fixed views each, one an epoch in turns, instead of new ones each epoch; batches have 256
images instead of 2,048, as small data sets would take no steps; the statistics of the frozen backbone do not run.
"""

from typing import Literal

from pydantic import Field, PositiveFloat, model_validator

from ...backbones.views import View
from ..task import Needs, Outcome, Task, TaskRecipe
from ..threads import one_thread
from .accuracy import ACCURACY, accuracy, ranked, top1
from .heads import Heads, train
from .linear_probe import labelled

REFERENCE = 256  # images a batch for which learning rates are told
RATES = (1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class SgdProbeRecipe(TaskRecipe):
    """`rates`: base learning rates to choose from; `views`: augmented views an image, 0 for the plain image.

    `norm`: batch normalisation before the head (theirs has none on ResNets).
    """

    optimiser: Literal["lars", "sgd"] = "lars"
    rates: tuple[PositiveFloat, ...] = Field(default=RATES, min_length=1)
    batch: int = Field(default=256, ge=2)
    epochs: int = Field(default=90, ge=1)
    warmup: int = Field(default=10, ge=0)
    norm: bool = True
    views: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _warm_before_the_end(self):
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup {self.warmup} leaves none of the {self.epochs} epochs; give fewer")
        return self


class SgdProbe(Task):
    name, family, version = "sgd-probe", "classification", 1
    needs = Needs(data="classification")
    scores = ACCURACY
    Recipe = SgdProbeRecipe

    def run(self, backbone, data, recipe, context):
        split = data["train"]
        transforms = [View.of(backbone.input, number) for number in range(recipe.views)] or [None]
        seen = [labelled(context.embeddings(backbone, split, transform=t), split) for t in transforms]
        labels = seen[0][1]
        x_val, y_val = labelled(context.embeddings(backbone, data["val"]), data["val"])
        generator, rates = context.generator(), sorted(recipe.rates)
        scaled = [rate * min(recipe.batch, len(labels)) / REFERENCE for rate in rates]
        with one_thread():
            heads = Heads(scaled, x_val.shape[1], len(data.classes), generator, norm=recipe.norm)
            train(
                [heads],
                lambda epoch, rows: [seen[epoch % len(seen)][0][rows]],
                labels,
                epochs=recipe.epochs,
                warmup=recipe.warmup,
                batch=recipe.batch,
                optimiser=recipe.optimiser,
                generator=generator,
                progress=lambda epoch: context.progress("training heads", epoch, recipe.epochs),
            )
            tried = [top1(logits, y_val) for logits in heads.logits(x_val)]
            best = max(range(len(rates)), key=tried.__getitem__)  # of equals, the lowest rate
            test = data["test"]
            chances = heads.logits(context.embeddings(backbone, test), best).double().softmax(dim=1)
        return Outcome(ranked(chances, test), {"rate": rates[best], "val_top1": 100 * tried[best]})

    def measure(self, predictions, data):
        return accuracy(predictions, data["test"])
