"""Similarity of representations: minibatch CKA between all layers, of one backbone or of two.

Raghu et al. (2021), by the estimator of Nguyen et al. (2021): every layer's output, all of its tokens or places in one
row an image, layer against layer. A uniform network's first layers resemble its last ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ...backbones import Backbone, load_backbone
from ...backbones.errors import BadInput, NotApplicable, unknown
from ..measure import Measure
from ..pictures import canvas, heat_map
from ..predictions import Predictions
from ..task import Metric, Needs, Outcome, Scores, Task
from .batches import AnalysisRecipe, drawn, finite, passed
from .cka import LEAST, centred_gram, cka, hsic

alignment = Metric("CKA", -1.0, 1.0)
TERMS = ("hsic_ab", "hsic_aa", "hsic_bb")


class SimilarityRecipe(AnalysisRecipe):
    """`other`: a second backbone, seen against the first at its blocks; `layers`: patterns of the first one's named
    layers instead of its blocks, such as `blocks.*.attn`."""

    images: int = Field(default=512, ge=LEAST)
    minibatch: int = Field(default=32, ge=LEAST)
    other: str | None = None
    layers: tuple[str, ...] = ()


class Similarity(Task):
    """`mean` is of all pairs of different layers, `first_to_last` of the first quarter with the last; `neighbours` of
    layers that follow each other. Of two backbones: `across` of all pairs, `best_match` of each layer of the first with
    the layer of the other that is most like it, `same_depth` with that at its own share of the depth."""

    name, family, version = "similarity", "analysis", 1
    needs = Needs(data="classification", splits=("test",), layers=True)
    scores = Scores(
        mean=alignment,
        first_to_last=alignment,
        neighbours=alignment,
        across=alignment,
        best_match=alignment,
        same_depth=alignment,
    )
    Recipe = SimilarityRecipe

    def run(self, backbone, data, recipe, context):
        batches = drawn(data["test"], recipe, context.seed, LEAST)
        networks, chosen = [(backbone, matching(backbone, recipe.layers))], {}
        if recipe.other:
            other = load_backbone(context.other or recipe.other, context.device)
            self.check_backbone(other)
            networks.append((other, other.blocks))
            chosen = {"other": {"name": other.name, "weights_digest": other.weights_digest}}
        if alone := next((network.name for network, layers in networks if len(layers) < 2), None):
            raise NotApplicable(f"{alone} has one layer to look at: there is no second to compare it with")
        grams = [grams_of(network, layers, data["test"], batches, context) for network, layers in networks]
        names = [network.name for network, _ in networks]
        if len(set(names)) < len(names):
            names[1] += " (other)"
        of = np.repeat(np.array(names, object), [len(parts[0]) for parts in grams])
        layers = np.array([name for parts in grams for name in parts[0]], object)
        tables = []
        for parts in zip(*grams, strict=True):
            stack = torch.stack([gram for part in parts for gram in part.values()])
            tables.append(hsic(stack, stack).cpu().numpy())
        return Outcome(stored(np.stack(tables), of, layers), chosen)

    def measure(self, predictions, data):
        table = Table.of(predictions)
        own, other = table.networks

        def scores(weights: np.ndarray) -> dict[str, float]:
            found = table.alignment(weights)
            within = found[own, own]
            count = len(within)
            quarter = max(1, count // 4)
            values = {
                "mean": within[~np.eye(count, dtype=bool)].mean(),
                "first_to_last": within[:quarter, -quarter:].mean(),
                "neighbours": np.diagonal(within, 1).mean(),
            }
            if len(found) > count:
                across = found[own, other]
                ends = np.ceil((np.arange(count) + 1) / count * across.shape[1]).astype(int) - 1
                values |= {
                    "across": across.mean(),
                    "best_match": across.max(axis=1).mean(),
                    "same_depth": across[np.arange(count), ends].mean(),
                }
            return {name: float(value) for name, value in values.items()}

        return Measure(len(table.terms), scores)

    def picture(self, predictions, data):
        """A heat map of the layers of a backbone; of two, both and the one against the other."""
        table = Table.of(predictions)
        found, (own, other) = table.alignment(np.ones(len(table.terms))), table.networks
        shown = [(own, own)] if len(found) == own.stop else [(own, own), (other, other), (own, other)]
        figure, axes = canvas(1, len(shown), (4.4, 4.0))
        for place, (rows, columns) in zip(axes, shown, strict=True):
            a, b = table.of_each[rows][0], table.of_each[columns][0]
            title = a if a == b else f"{a}\nagainst {b}"
            heat_map(place, found[rows, columns], title, f"layer of {b}", f"layer of {a}", 0.0, 1.0)
            layer_ticks(place, table.layers[columns], table.layers[rows])
        figure.suptitle(f"CKA of layers with layers, over {len(table.terms)} minibatches")
        return figure


def matching(backbone: Backbone, patterns: Sequence[str]) -> list[str]:
    """Names of the layers that a pattern matches; without any, the blocks. Raises BadInput where one matches none."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in backbone.layer_names):
            raise unknown("layer", pattern, backbone.layer_names, where=backbone.name)
    if not patterns:
        return backbone.blocks
    return [name for name in backbone.layer_names if any(fnmatchcase(name, pattern) for pattern in patterns)]


@torch.inference_mode()
def grams_of(backbone: Backbone, layers: Sequence[str], split, batches, context) -> list[dict[str, Tensor]]:
    """{"layer": (n, n) centred Gram matrix} of each minibatch; a layer's output is in memory while that is made."""
    found = []
    for rows, images in passed(backbone, split, batches, context, "layers"):

        def gram(layer: str, output: Any, images: int = len(rows)) -> Tensor:
            if not isinstance(output, Tensor) or len(output) != images or output.ndim < 2:
                raise BadInput(f"{backbone.name}: layer {layer!r} does not give one output an image; leave it out")
            return finite(backbone, layer, centred_gram(output))

        found.append(backbone.reduced_layers(images, gram, layers))
    return found


def stored(tables: np.ndarray, of: np.ndarray, layers: np.ndarray) -> Predictions:
    """A row a minibatch and pair of layers, of HSIC (minibatches, L, L) of `layers` (L,) `of` their networks."""
    a, b = np.triu_indices(len(layers))
    columns = {"of_a": of[a], "layer_a": layers[a], "of_b": of[b], "layer_b": layers[b]}
    own = np.diagonal(tables, axis1=1, axis2=2)
    terms = {"hsic_ab": tables[:, a, b], "hsic_aa": own[:, a], "hsic_bb": own[:, b]}
    return (
        {"minibatch": np.repeat(np.arange(len(tables), dtype=np.int32), len(a))}
        | {name: np.tile(column, len(tables)) for name, column in columns.items()}
        | {name: values.reshape(-1) for name, values in terms.items()}
    )


@dataclass(frozen=True)
class Table:
    """Stored predictions: `layers` (L,), the network `of_each`, and the `terms` (minibatches, 3, pairs) of HSIC."""

    layers: np.ndarray
    of_each: np.ndarray
    terms: np.ndarray

    @classmethod
    def of(cls, predictions: Predictions) -> "Table":
        """Raises BadInput where a minibatch lacks a pair of layers."""
        minibatches = int(predictions["minibatch"].max()) + 1
        pairs, left = divmod(len(predictions["minibatch"]), minibatches)
        count = int(np.sqrt(2 * pairs))
        first = slice(count)  # the first layer with all of them
        if left or count * (count + 1) != 2 * pairs:
            raise BadInput("predictions: rows are missing: each minibatch has one for each pair of layers")
        terms = np.stack([predictions[name].reshape(minibatches, pairs) for name in TERMS], axis=1)
        return cls(predictions["layer_b"][first], predictions["of_b"][first], terms)

    @property
    def networks(self) -> tuple[slice, slice]:
        """The layers of the first network, and those of the second."""
        own = int((self.of_each == self.of_each[0]).sum())
        return slice(0, own), slice(own, len(self.of_each))

    def alignment(self, weights: np.ndarray) -> np.ndarray:
        """(L, L) CKA over minibatches of these weights."""
        count = len(self.layers)
        found = np.empty((count, count))
        a, b = np.triu_indices(count)
        found[a, b] = found[b, a] = cka(*np.tensordot(weights, self.terms, axes=1))
        return found


def layer_ticks(axes, columns: np.ndarray, rows: np.ndarray) -> None:
    """Layers by number, from 1 on, as many as can be read."""
    for names, axis in ((columns, axes.xaxis), (rows, axes.yaxis)):
        at = np.arange(0, len(names), -(-len(names) // 12))
        axis.set_ticks(at, [str(i + 1) for i in at])
