"""Spatial localisation: how well a token at some depth still tells what lies at its own place of the image.

CKA between one token (or the features at one place of a map) and the patch of pixels at every place (Raghu et al.
2021), over images. Tokens and patches lie in one grid; a token is the mean over its cell where a layer is finer.
"""

from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ...backbones.errors import BadInput
from ..measure import Measure
from ..pictures import canvas
from ..predictions import Predictions
from ..task import Needs, Outcome, Scores, Task, percent
from .batches import AnalysisRecipe, drawn, finite, passed
from .cka import LEAST, centred_gram, cka, hsic
from .profile import DEPTHS, by_depth
from .similarity import alignment

CLS = -1  # where the class token stands in the grid: nowhere


class LocalisationRecipe(AnalysisRecipe):
    """`grid`: patches each way."""

    images: int = Field(default=256, ge=LEAST)
    minibatch: int = Field(default=32, ge=LEAST)
    grid: int = Field(default=8, ge=2)


class Localisation(Task):
    """`localisation` is of the last block: CKA of a token with the patch at its own place, less that with the others,
    mean over tokens. `depth_…` is that of the block so deep in percent. `own_place`: tokens of the last block that are
    most like the patch at their own place."""

    name, family, version = "localisation", "analysis", 1
    needs = Needs(data="classification", splits=("test",), layers=True)
    scores = Scores(localisation=alignment, **{f"depth_{d}": alignment for d in DEPTHS}, own_place=percent)
    Recipe = LocalisationRecipe

    def run(self, backbone, data, recipe, context):
        batches, parts = drawn(data["test"], recipe, context.seed, LEAST), []
        for number, (_, images) in enumerate(passed(backbone, data["test"], batches, context, "places")):
            pixels = grams(patches(images, recipe.grid))
            own = hsic_of_each(pixels)
            for depth, (block, tokens) in enumerate(tokens_of(backbone, images, recipe.grid).items()):
                found = grams(tokens)
                places = np.arange(len(found)) if len(found) == len(pixels) else np.r_[: len(pixels), CLS]
                parts.append(
                    {
                        "minibatch": np.full(len(found), number, np.int32),
                        "block": np.full(len(found), block, object),
                        "depth": np.full(len(found), depth + 1, np.int32),
                        "place": places.astype(np.int32),
                        "hsic_ab": finite(backbone, block, hsic(found, pixels)).cpu().numpy(),
                        "hsic_aa": hsic_of_each(found).cpu().numpy(),
                        "hsic_bb": own.expand(len(found), -1).cpu().numpy(),
                    }
                )
        return Outcome({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    def measure(self, predictions, data):
        table = Table.of(predictions)
        placed = table.place != CLS
        depth, place = table.depth[placed], table.place[placed]

        def scores(weights: np.ndarray) -> dict[str, float]:
            found = table.alignment(weights)[placed]
            own = found[np.arange(len(found)), place]
            others = (found.sum(axis=1) - own) / (found.shape[1] - 1)
            last = depth == depth.max()
            hits = found.argmax(axis=1) == place
            return (
                {"localisation": float((own - others)[last].mean())}
                | by_depth(depth, own - others)
                | {"own_place": 100 * float(hits[last].mean())}
            )

        return Measure(table.minibatches, scores)

    def picture(self, predictions, data):
        """For some tokens at four depths: how like they are to the patch at each place; a cross marks their own."""
        table = Table.of(predictions)
        found, grid = table.alignment(np.ones(table.minibatches)), round(table.terms["hsic_ab"].shape[-1] ** 0.5)
        blocks = np.unique(table.depth)
        blocks = blocks[np.unique(np.linspace(0, len(blocks) - 1, 4).round().astype(int))]
        tokens = {"corner": 0, "edge": grid // 2, "centre": grid // 2 * grid + grid // 2}
        tokens |= {"class token": CLS} if (table.place == CLS).any() else {}
        figure, axes = canvas(len(tokens), len(blocks), (1.9, 1.9))
        cells = [(name, place, depth) for name, place in tokens.items() for depth in blocks]
        highest = max(float(found.max()), np.finfo(float).tiny)
        image = None
        for axis, (name, place, depth) in zip(axes, cells, strict=True):
            rows = np.flatnonzero((table.depth == depth) & (table.place == place))
            axis.set(xticks=[], yticks=[])
            if depth == blocks[0]:
                axis.set_ylabel(name)
            if place == next(iter(tokens.values())):
                axis.set_title(f"block {depth}")
            if len(rows):
                image = axis.imshow(found[rows[0]].reshape(grid, grid), cmap="magma", vmin=0, vmax=highest)
                if place != CLS:
                    axis.plot(place % grid, place // grid, "x", color="#56B4E9", markersize=5)
        assert image is not None
        figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, label="CKA with the patch there")
        figure.suptitle("What part of the image a token is like")
        return figure


def tokens_of(backbone, images: Tensor, grid: int) -> dict[str, Tensor]:
    """{"block": (B, places, C)}: the tokens in a grid row by row, then the class token where there is one."""
    with torch.inference_mode():
        tokens = {block: map.flatten(2).mT for block, map in backbone.layer_tokens(images, grid).items()}
        pooled = backbone.pooled_layers(images)
    classes = {block: pooled[f"{block}.cls"][:, None] for block in tokens if f"{block}.cls" in pooled}
    return {
        block: torch.cat([rows, *([classes[block]] if block in classes else [])], 1) for block, rows in tokens.items()
    }


def patches(images: Tensor, grid: int) -> Tensor:
    """(B, grid², values) of images: the pixels of each patch; a side that the grid does not divide is made smaller."""
    side = max(1, images.shape[-1] // grid)
    whole = adaptive_avg_pool2d(images, side * grid)
    return (
        whole.unflatten(3, (grid, side)).unflatten(2, (grid, side)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    )


def grams(tokens: Tensor) -> Tensor:
    """(N, B, B) centred Gram matrices of tokens (B, N, values), each over the images."""
    return torch.stack([centred_gram(token) for token in tokens.unbind(dim=1)])


def hsic_of_each(stack: Tensor) -> Tensor:
    """(N,) HSIC of each of a stack (N, n, n) of centred Gram matrices with itself."""
    return stack.square().sum(dim=(1, 2)) / (stack.shape[-1] * (stack.shape[-1] - 3))


@dataclass(frozen=True)
class Table:
    """Stored predictions of T tokens, all blocks together: `depth` and `place` (T,), `terms` (minibatches, T, …)."""

    minibatches: int
    depth: np.ndarray
    place: np.ndarray
    terms: dict[str, np.ndarray]

    @classmethod
    def of(cls, predictions: Predictions) -> "Table":
        """Raises BadInput where a minibatch lacks a token."""
        number = predictions["minibatch"]
        minibatches = int(number.max()) + 1
        tokens, left = divmod(len(number), minibatches)
        if left or not np.array_equal(number, np.repeat(np.arange(minibatches), tokens)):
            raise BadInput("predictions: rows are missing: each minibatch has one for each token of each block")
        terms = {name: predictions[name] for name in ("hsic_ab", "hsic_aa", "hsic_bb")}
        terms = {name: values.reshape(minibatches, tokens, *values.shape[1:]) for name, values in terms.items()}
        return cls(minibatches, predictions["depth"][:tokens], predictions["place"][:tokens], terms)

    def alignment(self, weights: np.ndarray) -> np.ndarray:
        """(T, patches) CKA of each token with each patch over minibatches of these weights."""
        ab, aa, bb = (np.tensordot(weights, values, axes=1) for values in self.terms.values())
        return cka(ab, aa[:, None], bb)
