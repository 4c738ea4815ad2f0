"""Weighted k-NN on frozen embeddings (Caron et al. 2021, DINO)."""

import torch
from pydantic import Field, PositiveFloat, PositiveInt, field_validator
from torch import Tensor

from ..neighbours import nearest
from ..task import Needs, Outcome, Task, TaskRecipe
from ..threads import one_thread
from .accuracy import ACCURACY, accuracy, ranked
from .linear_probe import labelled

CHUNK = 8192  # images whose neighbours are in memory at a time


class KnnRecipe(TaskRecipe):
    """`k`: numbers of neighbours, and `temperature`s of their votes, to choose from on validation data.

    0.07 is DINO's. Networks differ in how far their cosines spread: 0.02 still tells neighbours apart where all are
    near 1, 0.2 is almost a plain majority. `k` is DINO's grid, filled up and begun lower for few images a class.
    """

    k: tuple[PositiveInt, ...] = Field(default=(5, 10, 20, 50, 100, 200), min_length=1)
    temperature: tuple[PositiveFloat, ...] = Field(default=(0.02, 0.07, 0.2), min_length=1)

    @property
    def settings(self) -> list[tuple[int, float]]:
        """All of k and temperature; of equally good ones the first: the fewest neighbours, then the evenest vote."""
        return [(k, t) for k in sorted(self.k) for t in sorted(self.temperature, reverse=True)]

    @field_validator("k", "temperature", mode="before")
    @classmethod
    def _alone(cls, value):
        return (value,) if isinstance(value, (int, float)) else value


class Knn(Task):
    name, family, version = "knn", "classification", 2
    needs = Needs(data="classification")
    scores = ACCURACY
    Recipe = KnnRecipe

    def run(self, backbone, data, recipe, context):
        (train, y_train), (val, y_val) = (
            labelled(context.embeddings(backbone, data[name]), data[name]) for name in ("train", "val")
        )
        right = dict.fromkeys(recipe.settings, 0)
        for queries, labels in zip(val.split(CHUNK), y_val.split(CHUNK), strict=True):
            cosines, rows = nearest(queries, train, max(recipe.k))
            for k, t in recipe.settings:
                shares = vote(cosines, y_train[rows], len(data.classes), k, t)
                right[k, t] += int((shares.argmax(dim=1) == labels).sum())
        best = k, t = max(right, key=lambda setting: right[setting])
        y, shares = torch.cat([y_train, y_val]), []
        for queries in context.embeddings(backbone, data["test"]).split(CHUNK):
            cosines, rows = nearest(queries, [train, val], k)
            shares.append(vote(cosines, y[rows], len(data.classes), k, t))
        chosen = {"k": k, "temperature": t, "val_top1": 100 * right[best] / len(val)}
        return Outcome(ranked(torch.cat(shares), data["test"]), chosen)

    def measure(self, predictions, data):
        return accuracy(predictions, data["test"])


def vote(cosines: Tensor, labels: Tensor, classes: int, k: int, temperature: float) -> Tensor:
    """Shares (q, C) float64 of the first k neighbours' votes, of their labels (q, K); one weighs exp(cosine / t)."""
    with one_thread():
        # Beside the nearest one's, so that never all votes vanish.
        weights = torch.exp((cosines[:, :k].double() - cosines[:, :1].double()) / temperature)
        shares = torch.zeros(len(cosines), classes, dtype=torch.double).scatter_add_(1, labels[:, :k], weights)
        return shares / shares.sum(dim=1, keepdim=True)
