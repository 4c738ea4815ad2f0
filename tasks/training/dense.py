"""A head on a backbone's feature maps, trained on scenes: with the backbone, or on maps that the bank holds."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...backbones import Backbone, Letterbox
from ..context import Context
from ..datasets import Split
from ..extraction import batch_size, pixels_of
from .dense_recipe import DenseRecipe, map_shapes
from .loop import Trained, Trainee, train
from .optimisation import adamw, schedule
from .pictures import shuffled, steps_of
from .plan import FOLDER, plan_of
from .randomness import seed_all
from .scenes import Scenes, Target, batches_of_scenes
from .trainable import keep_statistics, train_mode, trainable_copy
from .windows import attend_in_windows

MakeHead = Callable[[list[tuple[int, int]]], nn.Module]
"""Channels and side of each feature map → a head on them."""


class DenseModel(nn.Module):
    """A head on the maps of a network: a copy of the backbone to be trained, or the frozen one itself.

    `head.loss(maps, targets)` is a scalar, the mean of some scenes. `banked`: training pictures never change and
    neither does the network, so their maps come from the bank.
    """

    head: Any

    def __init__(self, backbone: Backbone, letterbox: Letterbox, make_head: MakeHead, recipe: DenseRecipe):
        super().__init__()
        self.recipe, self.letterbox = recipe, letterbox
        frozen = recipe.trainable == "frozen"
        self.banked, self.dropping = frozen and not recipe.augmented, 0
        if frozen:
            self._frozen = (backbone,)  # hidden from nn.Module: it has no weights of this model
        else:
            self.network, self.dropping = trainable_copy(backbone, recipe.trainable, recipe.drop_path, maps=True)
            if recipe.window:
                attend_in_windows(self.network, recipe.window, letterbox.size)
        self.head = make_head(map_shapes(backbone, letterbox.size))

    @property
    def backbone(self) -> Backbone:
        """The network whose maps the head sees."""
        return self._frozen[0] if self.recipe.trainable == "frozen" else self.network

    def maps_of(self, pixels: Tensor, device: str) -> list[Tensor]:
        """Feature maps [(B, C, h, w), …] of pictures (B, 3, S, S) uint8 of any size that the network takes."""
        images = self.letterbox.normalise(pixels.to(device, non_blocking=True))
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.recipe.trainable != "frozen"):
            return self.backbone.to(device)(images, embedding=False, maps=True).maps

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for an optimiser that cover every trainable weight once; the head learns at the full rate."""
        decay = self.recipe.weight_decay
        groups = [{"params": list(self.head.parameters()), "weight_decay": decay}]
        if self.recipe.trainable == "frozen":
            return groups
        return [*self.network.parameter_groups(self.recipe.layer_decay, decay), *groups]


class DenseTrainee(Trainee):
    """A dense model in training on the scenes of a split; `score(model)`: validation scores by name."""

    model: DenseModel

    def __init__(
        self,
        backbone: Backbone,
        make_head: MakeHead,
        scenes: Scenes,
        rate: float,
        context: Context,
        score: Callable[[DenseModel], dict[str, float]],
    ):
        seed_all(context.seed)
        self.scenes, self.recipe, self.context, self.score = scenes, scenes.recipe, context, score
        self.model = DenseModel(backbone, scenes.letterbox, make_head, self.recipe).to(context.device)
        self.maps = context.maps(backbone, scenes.split, scenes.letterbox.size) if self.model.banked else None
        self.optimizer = adamw(self.model.parameter_groups(), rate)
        self.schedule = schedule(self.recipe, self.optimizer, steps_of(scenes.rows, self.recipe.batch))

    def batches(self, first: int) -> Iterator[tuple[Tensor, list[Target]]]:
        """Pictures (B, 3, S, S) uint8, of banked ones their rows (B,) instead, and targets."""
        epochs = range(first, self.recipe.epochs)
        order = shuffled(self.scenes.rows, self.recipe.batch, self.context.seed, epochs, even=False)
        if self.maps is None:
            yield from batches_of_scenes(self.scenes, order, self.context.device)
        else:
            for places in order:
                rows = [row for _, row in places]
                yield torch.tensor(rows), [self.scenes.boxed(row) for row in rows]

    def loss(self, seen: Tensor, targets: Sequence[Target]) -> Tensor:
        """The head's loss."""
        device = self.context.device
        maps = self.model.maps_of(seen, device) if self.maps is None else rows_of(self.maps, seen, device)
        return self.model.head.loss(maps, [{name: t.to(device) for name, t in target.items()} for target in targets])

    def train(self) -> None:
        """Frozen parts stay in eval mode, with `norm_eval` the backbone's batch norm does."""
        train_mode(self.model)
        if self.recipe.trainable != "frozen" and self.recipe.norm_eval:
            keep_statistics(self.model.network)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """What `score` gives."""
        return self.score(self.model)


def train_dense(
    backbone: Backbone,
    make_head: MakeHead,
    scenes: Scenes,
    rate: float,
    context: Context,
    score: Callable[[DenseModel], dict[str, float]],
    made_of: Any = None,
) -> Trained:
    """A model trained at one rate, from where a former run left it; asked for again, it is read back.

    `score(model)`: validation scores for the curve; `made_of` (JSON): what else decides it, as validation data do where
    they are chosen by. Raises Diverged, NotApplicable, Unavailable.
    """
    make = partial(DenseTrainee, backbone, make_head, scenes, rate, context, score)
    recipe, data = scenes.recipe, [scenes.split.fingerprint, made_of]
    plan = plan_of(backbone, recipe, rate, steps_of(scenes.rows, recipe.batch), context, data)
    return train(make, plan, context.folder / FOLDER / f"learning-rate-{rate:g}", context)


def maps_by_batch(
    model: DenseModel, backbone: Backbone, split: Split, context: Context
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Rows of a split and the maps of their letterboxed pictures, batch by batch, in order; the model in eval mode."""
    size = model.letterbox.size
    banked = context.maps(backbone, split, size) if model.recipe.trainable == "frozen" else None
    for rows in torch.arange(len(split)).split(batch_size(size, context.device)):
        if banked:
            yield rows.tolist(), rows_of(banked, rows, context.device)
        else:
            pixels = torch.stack([pixels_of(split.images, row, model.letterbox) for row in rows.tolist()])
            context.images += len(pixels)
            yield rows.tolist(), model.maps_of(pixels, context.device)


def rows_of(maps: Sequence[Tensor], rows: Tensor, device: str) -> list[Tensor]:
    """Some rows of feature maps [(n, C, H, W), …] in float32 on a device."""
    return [m[rows].to(device).float() for m in maps]
