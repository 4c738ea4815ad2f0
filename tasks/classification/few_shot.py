"""Few-shot classification: a head on frozen embeddings of 1 to 16 images a class, and of 1 % and 10 % of all.

Several draws of the images, the same for every backbone. The strength of a head's penalty is chosen on validation
images drawn alike: as many a class, 4 at most (Zhou et al. 2022, CoOp), or the same share. Heads: logistic regression;
least squares to targets of 1 and -1 in closed form (Raghu et al. 2021); the nearest class mean (Snell et al. 2017).
"""

from typing import Literal

import numpy as np
import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from ...backbones.errors import BadInput
from ..datasets import Split
from ..logistic import Path
from ..measure import Measure
from ..task import Needs, Outcome, Scores, Task, TaskRecipe, percent
from .accuracy import check_ids, names
from .prototypes import nearest_means

SHOTS = {f"shots_{k}": k for k in (1, 2, 4, 8, 16)}
SHARES = {f"percent_{p}": p / 100 for p in (1, 10)}  # of each class, and one image at least
FOR_CHOICE = 4  # validation images a class that shots are chosen with, at most


class FewShotRecipe(TaskRecipe):
    """`head`; `draws` of the images; `c`: inverse strengths of the penalty to choose from, as scikit-learn's C."""

    head: Literal["logistic", "least-squares", "prototype"] = "logistic"
    draws: int = Field(default=5, ge=1)
    c: tuple[PositiveFloat, ...] = Field(default=(1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), min_length=1)


class FewShot(Task):
    name, family, version = "few-shot", "classification", 1
    needs = Needs(data="classification")
    # The first is the mean over the numbers of shots that the data have: those that some class has images for.
    scores = Scores(mean_shots=percent, **dict.fromkeys([*SHOTS, *SHARES], percent))
    Recipe = FewShotRecipe

    def run(self, backbone, data, recipe, context):
        train, val = (
            Pool(context.embeddings(backbone, data[name]), data[name], len(data.classes)) for name in ("train", "val")
        )
        queries = context.embeddings(backbone, data["test"])
        budgets = {name: k for name, k in SHOTS.items() if k <= train.counts.max()} | SHARES
        said = {name: np.empty((recipe.draws, len(queries)), np.int32) for name in budgets}
        strengths = {name: [] for name in budgets}
        for draw in range(recipe.draws):
            rng = np.random.default_rng([context.seed, draw])
            train.shuffle(rng)
            val.shuffle(rng)
            for i, (name, budget) in enumerate(budgets.items()):
                few, choice = train.take(budget), val.take(min(budget, FOR_CHOICE))
                predicted, c = answers(recipe, few, choice, queries)
                said[name][draw] = predicted
                strengths[name].append(c)
                context.progress("few shots", draw * len(budgets) + i + 1, recipe.draws * len(budgets))
        columns = {
            "draw": np.repeat(np.arange(recipe.draws, dtype=np.int32), len(queries)),
            "id": np.tile(names(data["test"]), recipe.draws),
            **{name: predicted.reshape(-1) for name, predicted in said.items()},
        }
        short = {name: int((train.counts < k).sum()) for name, k in SHOTS.items() if name in budgets}
        chosen = {"classes_with_fewer_images": {name: count for name, count in short.items() if count}}
        return Outcome(columns, chosen | ({} if recipe.head == "prototype" else {"c": strengths}))

    def measure(self, predictions, data):
        test, draws = data["test"], predictions["draw"]
        for start in range(0, len(draws), len(test)):
            check_ids(predictions["id"][start : start + len(test)], test)
        rows = np.tile(np.arange(len(test)), len(draws) // len(test))
        found = [name for name in self.scores if name in predictions]
        shots = [i for i, name in enumerate(found) if name in SHOTS]
        whole = shots and [found[i] for i in shots] == list(SHOTS)[: len(shots)]
        if not whole or not np.array_equal(draws, np.arange(len(draws)) // len(test)):
            raise BadInput(f"predictions are not those of one draw after the other on {data.name}; run the task again")
        right = np.stack([predictions[name] == np.asarray(test.targets)[rows] for name in found]).astype(float)

        def scores(weights: np.ndarray) -> dict[str, float]:
            each = 100 * (right @ weights) / weights.sum()
            return {"mean_shots": float(each[shots].mean()), **dict(zip(found, each.tolist(), strict=True))}

        groups = rows if test.groups is None else test.groups[rows]
        return Measure(len(draws), scores, groups, trials=draws)


class Pool:
    """The labelled examples of a split with features (n, D), drawn class by class; `counts` (C,) there are."""

    def __init__(self, features: Tensor, split: Split, classes: int):
        self.features = features
        self.rows = np.flatnonzero(np.asarray(split.targets) >= 0)
        self.labels = np.asarray(split.targets)[self.rows]
        self.counts = np.bincount(self.labels, minlength=classes)
        self.place = np.arange(len(self.rows))

    def shuffle(self, rng: np.random.Generator) -> None:
        """Put the examples of each class in another order."""
        order = rng.permutation(len(self.rows))
        by_class = order[np.argsort(self.labels[order], kind="stable")]
        self.place[by_class] = np.arange(len(order)) - (np.cumsum(self.counts) - self.counts)[self.labels[by_class]]

    def take(self, budget: float) -> tuple[Tensor, Tensor]:
        """Features and labels of the first of each class: so many if `budget` is 1 or more, else that share and one at
        least. A class with fewer gives what it has; more of a budget adds to less."""
        most = np.full_like(self.counts, budget) if budget >= 1 else np.maximum(1, np.rint(budget * self.counts))
        taken = self.place < most[self.labels]
        return self.features[torch.as_tensor(self.rows[taken])], torch.as_tensor(self.labels[taken])


def answers(recipe: FewShotRecipe, few, choice, queries: Tensor) -> tuple[np.ndarray, float | None]:
    """(q,) classes that the head fitted to `few` gives queries (q, D), at the strength that `choice` chose, if any."""
    (x, y), (x_val, y_val) = few, choice
    classes, y = y.unique(return_inverse=True)  # a class without an image is never the answer
    if recipe.head == "prototype":
        return classes[nearest_means(x, y, queries).argmax(dim=1)].numpy(), None
    strengths = sorted(recipe.c)
    path = Path([(x, y)], len(classes))
    probes = list(path.probes(strengths) if recipe.head == "logistic" else path.ridge(strengths))
    right = [int((classes[probe.logits(x_val).argmax(dim=1)] == y_val).sum()) for probe in probes]
    best = int(np.argmax(right))  # of equals, the strongest penalty
    return classes[probes[best].logits(queries).argmax(dim=1)].numpy(), strengths[best]
