"""Zero-shot classification by the names of the classes, with an ensemble of prompts (Radford et al. 2021, CLIP)."""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from ..task import Needs, Outcome, Task, TaskRecipe
from ..threads import one_thread
from .accuracy import ACCURACY, accuracy, ranked


class ZeroShotRecipe(TaskRecipe):
    """`temperature` of the cosines, for the probabilities only: it changes no accuracy (CLIP ends at 0.01)."""

    temperature: float = Field(default=0.01, gt=0)


class ZeroShot(Task):
    name, family, version = "zero-shot", "classification", 1
    needs = Needs(data="classification", splits=("test",), text=True)
    scores = ACCURACY
    Recipe = ZeroShotRecipe

    def run(self, backbone, data, recipe, context):
        test = data["test"]
        images = context.projections(backbone, test)
        with one_thread():
            names = class_embeddings(backbone, data.classes, data.prompts)
            cosines = normalize(images).double() @ names.T
        return Outcome(ranked((cosines / recipe.temperature).softmax(dim=1), test))

    def measure(self, predictions, data):
        return accuracy(predictions, data["test"])


@torch.inference_mode()
def class_embeddings(backbone, classes, prompts) -> Tensor:
    """(C, T) float64 unit vectors: the mean, over the prompts, of each class's unit text embeddings."""
    embedded = [normalize(backbone.embed_text([p.format(name) for p in prompts]).double()) for name in classes]
    return normalize(torch.stack([e.mean(dim=0) for e in embedded])).cpu()
