"""Zero-shot classification by names with an ensemble of prompts (Radford et al. 2021, CLIP), or by descriptions.

A description says what to look for: `{name}, {description}` takes the place of the name in each prompt, and the
similarity to a class is the mean over all its texts (Menon and Vondrick 2023).
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from ...backbones.errors import BadInput
from ..task import Needs, Outcome, Task, TaskRecipe
from ..threads import one_thread
from .accuracy import ACCURACY, accuracy, ranked


class ZeroShotRecipe(TaskRecipe):
    """`by`: what stands for a class; `temperature` of the cosines, for the probabilities only (CLIP ends at 0.01)."""

    by: Literal["name", "description"] = "name"
    temperature: float = Field(default=0.01, gt=0)


class ZeroShot(Task):
    name, family, version = "zero-shot", "classification", 2
    needs = Needs(data="classification", splits=("test",), text=True)
    scores = ACCURACY
    Recipe = ZeroShotRecipe

    def run(self, backbone, data, recipe, context):
        test = data["test"]
        with one_thread():
            if recipe.by == "name":
                classes = class_embeddings(backbone, data.classes, data.prompts)
            else:
                classes = mean_texts(backbone, described(data), data.prompts)
        images = context.projections(backbone, test)
        with one_thread():
            similarities = normalize(images).double() @ classes.T
        return Outcome(ranked((similarities / recipe.temperature).softmax(dim=1), test))

    def measure(self, predictions, data):
        return accuracy(predictions, data["test"])


def class_embeddings(backbone, classes, prompts) -> Tensor:
    """(C, T) float64 unit vectors: the mean, over the prompts, of each class's unit text embeddings."""
    return normalize(mean_texts(backbone, [[name] for name in classes], prompts))


def described(data) -> list[list[str]]:
    """Each class's name with each of its descriptions. Raises BadInput where the data set has none."""
    if bare := [name for name in data.classes if not data.descriptions.get(name)]:
        raise BadInput(f"dataset {data.name}: descriptions: none of {bare[0]!r}; add some to its card, or set by=name")
    return [[f"{name}, {description}" for description in data.descriptions[name]] for name in data.classes]


@torch.inference_mode()
def mean_texts(backbone, phrases: list[list[str]], prompts) -> Tensor:
    """(C, T) float64: the mean of the unit text embeddings of each class's phrases in all the prompts."""
    texts = [[prompt.format(phrase) for phrase in of_class for prompt in prompts] for of_class in phrases]
    return torch.stack([normalize(backbone.embed_text(of_class).double()).mean(dim=0) for of_class in texts]).cpu()
