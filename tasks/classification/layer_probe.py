"""Layer-wise probes: how well each block's pooled output tells the classes, from the first block to the last.

A least-squares probe in closed form for every block and pooling (Raghu et al. 2021, who take ten images a class: set
`shots`), its strength chosen on validation data; there is no second fit on both, for the curve is what is asked for.
"""

from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field, PositiveFloat

from ..datasets import Dataset
from ..logistic import Path
from ..measure import Estimate, Measure, estimate
from ..predictions import Predictions
from ..task import Needs, Outcome, Scores, Task, TaskRecipe, percent
from .accuracy import check_ids, names, top1
from .few_shot import Pool
from .linear_probe import labelled

DEPTHS = (25, 50, 75, 100)  # percent of the blocks


class LayerProbeRecipe(TaskRecipe):
    """`c`: inverse strengths of the penalty to choose from; `shots`: training images a class (all if not given)."""

    c: tuple[PositiveFloat, ...] = Field(default=(1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0), min_length=1)
    shots: int | None = Field(default=None, ge=1)


class LayerProbe(Task):
    """The headline is the accuracy of the layer that validation chose; `depth_…` of the block so deep in percent."""

    name, family, version = "layer-probe", "classification", 1
    needs = Needs(data="classification", layers=True)
    scores = Scores(best_top1=percent, depth_of_best=percent, **{f"depth_{d}": percent for d in DEPTHS})
    Recipe = LayerProbeRecipe

    def run(self, backbone, data, recipe, context):
        train, val, test = (context.layers(backbone, data[name]) for name in ("train", "val", "test"))
        strengths, columns, chosen = sorted(recipe.c), [], {}
        for step, (layer, features) in enumerate(train.items()):
            x, y = few(features, data, recipe.shots, context.seed)
            x_val, y_val = labelled(val[layer], data["val"])
            probes = list(Path([(x, y)], len(data.classes)).ridge(strengths))
            found = [top1(probe.logits(x_val), y_val) for probe in probes]
            best = int(np.argmax(found))  # of equals, the strongest penalty
            predicted = probes[best].logits(test[layer]).argmax(dim=1).numpy().astype(np.int32)
            columns.append((layer, backbone.blocks.index(layer.rpartition(".")[0]) + 1, 100 * found[best], predicted))
            chosen[layer] = strengths[best]
            context.progress("probing layers", step + 1, len(train))
        layers, depths, accuracies, predicted = zip(*columns, strict=True)
        images = len(data["test"])
        predictions = {
            "layer": np.repeat(np.array(layers, dtype=object), images),
            "depth": np.repeat(np.array(depths, np.int16), images),
            "val_top1": np.repeat(np.array(accuracies), images),
            "id": np.tile(names(data["test"]), len(layers)),
            "predicted": np.concatenate(predicted),
        }
        return Outcome(predictions, {"c": chosen, "layer": layers[int(np.argmax(accuracies))]})

    def measure(self, predictions, data):
        table = Table.of(predictions, data)
        blocks = table.depth.max()
        best = np.argmax(table.val_top1)  # of equals, the first
        # The block at a share of the depth, and the pooling of it that is best on validation data.
        at = [np.flatnonzero(table.depth == max(1, round(share * blocks / 100))) for share in DEPTHS]
        shown = [best, *(rows[np.argmax(table.val_top1[rows])] for rows in at)]

        def scores(weights: np.ndarray) -> dict[str, float]:
            first, *others = 100 * (table.right[shown] @ weights) / weights.sum()
            found = {f"depth_{share}": float(value) for share, value in zip(DEPTHS, others, strict=True)}
            return {"best_top1": float(first), "depth_of_best": float(100 * table.depth[best] / blocks)} | found

        return Measure(len(data["test"]), scores, data["test"].groups, right=table.right[best] > 0)


@dataclass(frozen=True)
class Point:
    """One layer on the curve: a block's name, how deep it lies (0..1), how it was pooled, and its percent right."""

    block: str
    depth: float
    pool: str
    top1: Estimate


def curve(predictions: Predictions, data: Dataset) -> list[Point]:
    """Accuracy by depth, with intervals, out of stored predictions: what a plot of this task shows."""
    table = Table.of(predictions, data)

    def scores(weights: np.ndarray) -> dict[str, float]:
        return dict(zip(table.layers, (100 * (table.right @ weights) / weights.sum()).tolist(), strict=True))

    found = estimate(Measure(len(data["test"]), scores, data["test"].groups))
    places = zip(table.layers, (table.depth / table.depth.max()).tolist(), strict=True)
    return [Point(name.rpartition(".")[0], depth, name.rpartition(".")[2], found[name]) for name, depth in places]


def few(features: torch.Tensor, data: Dataset, shots: int | None, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and labels of `shots` training images a class, drawn by the seed, or of all that have a class."""
    if shots is None:
        return labelled(features, data["train"])
    pool = Pool(features, data["train"], len(data.classes))
    pool.shuffle(np.random.default_rng(seed))
    return pool.take(shots)


@dataclass(frozen=True)
class Table:
    """Stored predictions by layer: names, `depth` (L,) from 1 on, `val_top1` (L,), and `right` (L, n) as 0 and 1."""

    layers: list[str]
    depth: np.ndarray
    val_top1: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, predictions: Predictions, data: Dataset) -> "Table":
        """Raises BadInput where the rows are not those of the test images, layer by layer."""
        layer, split = predictions["layer"], data["test"]
        starts = np.flatnonzero(np.r_[True, layer[1:] != layer[:-1]])
        for ids in np.split(predictions["id"], starts[1:]):
            check_ids(ids, split)
        right = predictions["predicted"].reshape(len(starts), len(split)) == np.asarray(split.targets)
        depth, val_top1 = (predictions[name][starts] for name in ("depth", "val_top1"))
        return cls(layer[starts].tolist(), depth, val_top1, right.astype(float))
