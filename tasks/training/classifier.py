"""A backbone with a linear classifier on its embedding, trained end to end on a split's pictures."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...backbones import Backbone
from ..context import Context
from ..datasets import Split
from ..design import Probe
from ..extraction import batch_size, pixels_of
from .loop import Trainee
from .optimisation import adamw, schedule
from .pictures import Augmented, batches_of, shuffled, steps_of
from .randomness import own_randomness, seed_all
from .recipe import ClassifierRecipe, augmentation, random_erasing
from .trainable import train_mode, trainable_copy

CERTAIN = 10.0  # the largest bias of a first classifier


class Objective:
    """What a classifier learns of the targets of a split: how they become a loss, and how good its scores are.

    `score`: what the curve calls `value`; `pairs`: `prepare` needs an even number of images.
    """

    score: str
    pairs = False

    def rows(self, targets: np.ndarray, fraction: float, seed: int) -> np.ndarray:
        """Sorted rows of a share of the examples that have a target; with 1, of all these."""
        raise NotImplementedError

    def prepare(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """A batch of normalised images and targets as `loss` takes them; it may mix them."""
        raise NotImplementedError

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean over the rows of logits (B, C): a batch in parts has the loss of the whole."""
        raise NotImplementedError

    def value(self, logits: Tensor, targets: Tensor) -> float:
        """Of logits (n, C) and targets as the split has them, in percent; higher is better."""
        raise NotImplementedError


class Classifier(nn.Module):
    """Normalised images (B, 3, H, W) to class scores (B, C); a copy of the backbone, which itself stays as it is.

    The head begins as `probe`, or as in Battle of the Backbones with Xavier-normal weights and no bias. `dropping`: how
    many blocks drop paths.
    """

    def __init__(self, backbone: Backbone, classes: int, recipe: ClassifierRecipe, probe: Probe | None = None):
        super().__init__()
        self.backbone, self.dropping = trainable_copy(backbone, recipe.trainable, recipe.drop_path)
        self.head = nn.Linear(backbone.embed_dim, classes)
        self.begin_at_random()
        if probe:
            weight = probe.weight / probe.scale
            # Of a class without examples the probe is certain, which would be hard to unlearn.
            bias = probe.bias.clamp(-CERTAIN, CERTAIN) - weight @ probe.mean
            self.head.load_state_dict({"weight": weight, "bias": bias})

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images).embedding)

    def begin_at_random(self) -> None:
        """Gives the head its random first weights."""
        nn.init.xavier_normal_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def parameter_groups(self, recipe: ClassifierRecipe) -> list[dict[str, Any]]:
        """Groups for an optimiser that cover every trainable weight once; the head learns at the full rate."""
        weight, bias = {"weight_decay": recipe.weight_decay}, {"weight_decay": 0.0}
        head = [weight | {"params": [self.head.weight]}, bias | {"params": [self.head.bias]}]
        return [*self.backbone.parameter_groups(recipe.layer_decay, recipe.weight_decay), *head]


class ClassifierTrainee(Trainee):
    """A classifier in training on `rows` of a split, scored on the labelled ones of `val` where that is given."""

    model: Classifier

    def __init__(
        self,
        backbone: Backbone,
        train: Split,
        rows: np.ndarray,
        val: Split | None,
        classes: int,
        recipe: ClassifierRecipe,
        objective: Objective,
        rate: float,
        context: Context,
        probe: Probe | None = None,
    ):
        seed_all(context.seed)
        self.model = Classifier(backbone, classes, recipe, probe).to(context.device)
        self.rows, self.val, self.recipe, self.objective, self.context = rows, val, recipe, objective, context
        self.pictures = Augmented(train, augmentation(recipe, backbone.input), context.seed)
        self.erase = random_erasing(recipe, context.device)
        if probe and self._worse_than_nothing():
            self.model.begin_at_random()
        self.optimizer = adamw(self.model.parameter_groups(recipe), rate)
        self.schedule = schedule(recipe, self.optimizer, steps_of(rows, recipe.batch))

    def batches(self, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented pictures (B, 3, S, S) uint8 and targets (B, …)."""
        epochs = range(first, self.recipe.epochs)
        order = shuffled(self.rows, self.recipe.batch, self.context.seed, epochs, even=self.objective.pairs)
        return batches_of(self.pictures, order, self.context.device)

    def prepare(self, pixels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images, erased and mixed as the recipe says, and targets as the loss takes them."""
        device = self.context.device
        images = self.model.backbone.transform.normalise(pixels.to(device, non_blocking=True))
        if self.erase:
            images = self.erase(images)
        return self.objective.prepare(images, targets.to(device, non_blocking=True))

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """The objective's."""
        return self.objective.loss(self.model(images), targets)

    def train(self) -> None:
        """Frozen parts stay in eval mode: their batch norm and dropout are those of the pretrained network."""
        train_mode(self.model)

    @torch.no_grad()
    def _worse_than_nothing(self) -> bool:
        # In training, batch norm whose statistics were never learnt makes another network of this one, of which the
        # probe knows nothing. A pass changes them, so they are put back.
        before = {name: tensor.clone() for name, tensor in self.model.named_buffers()}
        self.train()
        images, targets = self.prepare(*next(self.batches(0)))
        fits = batch_size(self.model.backbone.input.size, self.context.device)
        logits, targets = self.model(images[:fits]), targets[:fits]
        for name, tensor in self.model.named_buffers():
            tensor.copy_(before[name])
        return bool(self.objective.loss(logits, targets) > self.objective.loss(torch.zeros_like(logits), targets))

    def validate(self) -> dict[str, float]:
        """The objective's score on `val`."""
        if self.val is None:
            return {}
        targets = np.asarray(self.val.targets)
        rows = self.objective.rows(targets, 1.0, self.context.seed)
        logits = logits_of(self.model, self.val, rows, self.context)
        return {self.objective.score: self.objective.value(logits, torch.as_tensor(targets[rows]))}


@own_randomness()  # a loader draws a number
@torch.no_grad()  # not inference mode: what a network keeps of a pass must serve the next epoch
def logits_of(model: Classifier, split: Split, rows: Sequence[int] | np.ndarray, context: Context) -> Tensor:
    """(n, C) float64 on the CPU, of these rows of a split as the backbone's own transform shows them."""
    transform, step = model.backbone.transform, batch_size(model.backbone.transform.size, context.device)
    places = [[(0, int(row)) for row in rows[i : i + step]] for i in range(0, len(rows), step)]
    pictures = Augmented(split, lambda images, row: pixels_of(images, row, transform))
    found = [torch.zeros(0, model.head.out_features, dtype=torch.double)]
    for pixels, _ in batches_of(pictures, places, context.device):
        found.append(model(transform.normalise(pixels.to(context.device))).double().cpu())
        context.images += len(pixels)
    return torch.cat(found)
