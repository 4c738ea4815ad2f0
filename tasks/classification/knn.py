"""Weighted k-NN on frozen embeddings (Caron et al. 2021, DINO)."""

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn.functional import normalize

from ..task import Needs, Outcome, Task, TaskRecipe
from ..threads import one_thread
from .accuracy import ACCURACY, accuracy, ranked, top1
from .linear_probe import labelled

CHUNK = 1024  # images compared with the whole memory at a time


class KnnRecipe(TaskRecipe):
    """`k`: numbers of neighbours to choose from; `temperature` of their votes."""

    k: tuple[PositiveInt, ...] = Field(default=(5, 10, 20, 100, 200), min_length=1)
    temperature: float = Field(default=0.07, gt=0)


class Knn(Task):
    name, family, version = "knn", "classification", 1
    needs = Needs(data="classification")
    scores = ACCURACY
    Recipe = KnnRecipe

    def run(self, backbone, data, recipe, context):
        train, val, test = (context.embeddings(backbone, data[name]) for name in ("train", "val", "test"))
        train, y_train = labelled(train, data["train"])
        val, y_val = labelled(val, data["val"])
        tried = {k: top1(p, y_val) for k, p in votes(train, y_train, val, data.classes, recipe.k, recipe.temperature)}
        k = max(sorted(tried), key=lambda k: tried[k])  # of equals, the fewest
        memory, y = torch.cat([train, val]), torch.cat([y_train, y_val])
        ((_, probabilities),) = votes(memory, y, test, data.classes, [k], recipe.temperature)
        return Outcome(ranked(probabilities, data["test"]), {"k": k, "val_top1": 100 * tried[k]})

    def measure(self, predictions, data):
        return accuracy(predictions, data["test"])


def votes(memory: Tensor, labels: Tensor, queries: Tensor, classes, ks, temperature: float):
    """For each k, (k, shares (q, C) of the k most similar rows' votes); a vote weighs exp(cosine / temperature).

    A k beyond the rows of the memory means all of them.
    """
    with one_thread():
        memory, queries = normalize(memory), normalize(queries)
        most = min(max(ks), len(memory))
        near = [(chunk @ memory.T).topk(most) for chunk in queries.split(CHUNK)]
        similarity = torch.cat([n.values for n in near]).double()
        votes = torch.exp((similarity - 1) / temperature)
        voted = labels[torch.cat([n.indices for n in near])]
        for k in ks:
            shares = torch.zeros(len(queries), len(classes), dtype=torch.double)
            shares.scatter_add_(1, voted[:, :k], votes[:, :k])
            yield k, shares / shares.sum(dim=1, keepdim=True)
