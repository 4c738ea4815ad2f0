"""A backbone with a linear classifier on its embedding, trained end to end on a split's pictures."""

import copy
from collections.abc import Iterator, Sequence
from math import log
from typing import Any

import numpy as np
import torch
from timm.data.mixup import mixup_target
from timm.loss.cross_entropy import SoftTargetCrossEntropy
from torch import Tensor, nn

from ...backbones import Backbone, Loading
from ..context import Context
from ..datasets import Split
from ..design import Probe
from ..extraction import batch_size, pixels_of
from .loop import Trainee
from .pictures import Augmented, batches_of, shuffled, steps_of
from .randomness import own_randomness, seed_all
from .recipe import ClassifierRecipe, adamw, augmentation, cosine, mixing, random_erasing
from .trainable import set_drop_path, set_trainable, train_mode


class Classifier(nn.Module):
    """Normalised images (B, 3, H, W) to class scores (B, C); a copy of the backbone, which itself stays as it is.

    The head begins as `probe`, or as in Battle of the Backbones with Xavier-normal weights and no bias. `dropping`: how
    many blocks drop paths.
    """

    def __init__(self, backbone: Backbone, classes: int, recipe: ClassifierRecipe, probe: Probe | None = None):
        super().__init__()
        self.backbone = copy.deepcopy(backbone)
        vars(self.backbone).pop("weights_digest", None)  # it will have other weights
        self.backbone.load_as(Loading())  # what was compiled is the other's pass
        set_trainable(self.backbone, recipe.trainable)
        self.dropping = set_drop_path(self.backbone.image_tower, recipe.drop_path) if recipe.drop_path else 0
        self.backbone.load_as(backbone.loading)
        self.head = nn.Linear(backbone.embed_dim, classes)
        self.begin_at_random()
        if probe:
            weight = probe.weight / probe.scale
            self.head.load_state_dict({"weight": weight, "bias": probe.bias - weight @ probe.mean})

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
        rate: float,
        context: Context,
        probe: Probe | None = None,
    ):
        seed_all(context.seed)
        self.model = Classifier(backbone, classes, recipe, probe).to(context.device)
        self.rows, self.val, self.recipe, self.context, self.classes = rows, val, recipe, context, classes
        self.pictures = Augmented(train, augmentation(recipe, backbone.input), context.seed)
        self.erase, self.mix = random_erasing(recipe, context.device), mixing(recipe, classes)
        self.cross_entropy = SoftTargetCrossEntropy()
        if probe and self._first_loss() > log(classes):  # worse than no knowledge
            self.model.begin_at_random()
        self.optimizer = adamw(self.model.parameter_groups(recipe), rate)
        self.schedule = cosine(recipe, self.optimizer, steps_of(rows, recipe.batch))

    def batches(self, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented pictures (B, 3, S, S) uint8 and labels (B,)."""
        epochs = range(first, self.recipe.epochs)
        order = shuffled(self.rows, self.recipe.batch, self.context.seed, epochs, even=self.mix is not None)
        return batches_of(self.pictures, order, self.context.device)

    def prepare(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images, erased and mixed as the recipe says, and soft targets (B, C)."""
        device = self.context.device
        images = self.model.backbone.transform.normalise(pixels.to(device, non_blocking=True))
        labels = labels.to(device, non_blocking=True)
        if self.erase:
            images = self.erase(images)
        if self.mix:
            return self.mix(images, labels)
        return images, mixup_target(labels, self.classes, smoothing=self.recipe.label_smoothing)

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy with soft targets."""
        return self.cross_entropy(self.model(images), targets)

    def train(self) -> None:
        """Frozen parts stay in eval mode: their batch norm and dropout are those of the pretrained network."""
        train_mode(self.model)

    @torch.no_grad()
    def _first_loss(self) -> float:
        # In training, batch norm whose statistics were never learnt makes another network of this one, of which the
        # probe knows nothing. A pass changes them, so they are put back.
        before = {name: tensor.clone() for name, tensor in self.model.named_buffers()}
        self.train()
        loss = self.loss(*self.prepare(*next(self.batches(0)))).item()
        for name, tensor in self.model.named_buffers():
            tensor.copy_(before[name])
        return loss

    def validate(self) -> dict[str, float]:
        """`val_top1` in percent."""
        if self.val is None:
            return {}
        labels = np.asarray(self.val.targets)
        rows = np.flatnonzero(labels >= 0)
        found = probabilities(self.model, self.val, rows, self.context).argmax(1).numpy()
        return {"val_top1": 100 * float((found == labels[rows]).mean())}


@own_randomness()  # a loader draws a number
@torch.no_grad()  # not inference mode: what a network keeps of a pass must serve the next epoch
def probabilities(model: Classifier, split: Split, rows: Sequence[int] | np.ndarray, context: Context) -> Tensor:
    """(n, C) float64 on the CPU, of these rows of a split as the backbone's own transform shows them."""
    transform, step = model.backbone.transform, batch_size(model.backbone.transform.size, context.device)
    places = [[(0, int(row)) for row in rows[i : i + step]] for i in range(0, len(rows), step)]
    pictures = Augmented(split, lambda images, row: pixels_of(images, row, transform))
    found = [torch.zeros(0, model.head.out_features, dtype=torch.double)]
    for pixels, _ in batches_of(pictures, places, context.device):
        found.append(model(transform.normalise(pixels.to(context.device))).double().softmax(1).cpu())
        context.images += len(pixels)
    return torch.cat(found)
