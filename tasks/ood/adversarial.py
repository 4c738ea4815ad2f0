"""Adversarial robustness of a linear probe: FGSM, and PGD in L∞ and L2, by foolbox, through the whole network.

FGSM: Goodfellow et al. 2015. PGD: Madry et al. 2018, one random start in the ball and steps of 2.5 radii over their
number. Radii are in pixels of 0…1, before normalisation, on images as the backbone sees them. L∞: 1/255 is one grey
level, the least that an image file can hold; 4/255 and 8/255 are RobustBench's for ImageNet and CIFAR-10 (Croce et al.
2021). L2: 0.5 is RobustBench's for CIFAR-10, 3 that of Salman et al. 2020 for ImageNet; a radius in L2 weighs the less,
the more pixels a backbone takes. 2/255 and 1 lie between. Only what is classified rightly is attacked, and what falls
stays fallen at larger radii, which allow the same change: FGSM is thereby a little stronger than at one radius alone.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ...backbones import Backbone
from ...backbones.errors import BadInput, Unavailable
from ..classification.accuracy import check_ids, names
from ..classification.linear_probe import LinearProbeRecipe, chosen_probe
from ..datasets import Dataset, Split
from ..design import Probe
from ..extraction import batch_size, pixels_of
from ..measure import Measure, estimate
from ..pictures import COLOURS, canvas
from ..predictions import Predictions
from ..task import Needs, Outcome, Scores, Task, percent
from ..threads import compute_alone, cores, one_thread

LINF, L2 = (1, 2, 4, 8), (0.5, 1, 3)  # in 255ths; in pixels of 0…1
SURE = 10.0  # nats between the likeliest classes
RADII = {"fgsm": LINF, "pgd_linf": LINF, "pgd_l2": L2}
NAMES = tuple(f"{attack}_{radius}" for attack, radii in RADII.items() for radius in radii)
HEADLINE = "pgd_linf_1"


class AdversarialRecipe(LinearProbeRecipe):
    """`images` of the test split, evenly spread, to attack; `steps` of PGD."""

    images: int = Field(default=200, ge=1)
    steps: int = Field(default=10, ge=1)


class Adversarial(Task):
    """Top-1 of the plain images, and under each attack at each radius."""

    name, family, version = "adversarial", "ood", 1
    needs = Needs(data="classification")
    scores = Scores(**dict.fromkeys((HEADLINE, "top1", *NAMES), percent))
    Recipe = AdversarialRecipe

    def run(self, backbone, data, recipe, context):
        imported()  # a missing package is told before the work, not after it
        probe, chosen = chosen_probe(backbone, data, recipe, context)
        split = data["test"].take(recipe.images)
        parts = []
        with one_thread(), frozen(backbone):
            classifier = PixelClassifier(backbone, probe).to(context.device).eval()
            for part in attacked(classifier, split, recipe.steps, context):
                parts.append(part)
                context.progress("attacking images", sum(len(p["predicted"]) for p in parts), len(split))
        columns = {column: np.concatenate([part[column] for part in parts]) for column in parts[0]}
        return Outcome({"id": names(split)} | columns, chosen)

    def measure(self, predictions, data):
        split, right = judged(predictions, data)

        def scores(weights: np.ndarray) -> dict[str, float]:
            found = {name: float(100 * (of @ weights) / weights.sum()) for name, of in right.items()}
            return {name: found[name] for name in self.scores}

        return Measure(len(split), scores, split.groups, right=right[HEADLINE] > 0)

    def picture(self, predictions, data):
        found = estimate(self.measure(predictions, data))
        figure, panels = canvas(1, 2, (4.6, 3.6))
        shown = {"L∞": (("fgsm", "FGSM"), ("pgd_linf", "PGD")), "L2": (("pgd_l2", "PGD"),)}
        for axes, (norm, attacks) in zip(panels, shown.items(), strict=True):
            for attack, label in attacks:
                points = [found["top1"], *(found[f"{attack}_{radius}"] for radius in RADII[attack])]
                values, low, high = (np.array([getattr(p, key) for p in points]) for key in ("value", "low", "high"))
                colour = COLOURS[0 if label == "PGD" else 1]
                axes.errorbar(
                    (0, *RADII[attack]), values, (values - low, high - values), fmt="-o", color=colour, capsize=3,
                    markersize=4, label=label,
                )  # fmt: skip
            unit = "in 255ths" if norm == "L∞" else "in pixels of 0…1"
            axes.set(title=f"Under attack in {norm}", xlabel=f"radius {unit}", ylabel="top-1 in %", ylim=(-2, 102))
            axes.set_xticks((0, *RADII[attacks[0][0]]))
            axes.legend(loc="upper right")
        return figure


class PixelClassifier(nn.Module):
    """Logits (B, C) float64 of pixels (B, 3, size, size) in 0…1, differentiable: transform, backbone, linear head.

    Where an image's two likeliest classes lie further apart than `SURE`, all its logits are scaled down so that they do
    not: its class is the same, and the softmax of an attack's loss keeps a gradient (Carlini et al. 2019).
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, backbone: Backbone, probe: Probe):
        super().__init__()
        self.backbone = backbone
        weight, bias = probe.plain
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        embedding = self.backbone(self.backbone.transform.normalise(pixels * 255)).embedding
        logits = nn.functional.linear(embedding.double(), self.weight, self.bias)
        best = logits.detach().topk(min(2, logits.shape[1]), dim=1).values
        return logits * (SURE / (best[:, :1] - best[:, -1:])).clamp(max=1)


def attacked(classifier: PixelClassifier, split: Split, steps: int, context) -> Iterator[Predictions]:
    """For each batch: `predicted` (b,), and by attack (b, radii), the classes after it; in order.

    On a CPU every batch is attacked by one thread, several at a time, so that the number of cores changes no bit.
    """
    size = classifier.backbone.transform.size
    on_cpu = torch.device(context.device).type == "cpu"
    step = batch_size(size, context.device)
    step = step if on_cpu else max(1, step // 8)  # a gradient keeps what every layer gave in memory
    spans = [range(first, min(first + step, len(split))) for first in range(0, len(split), step)]
    labels = torch.as_tensor(split.targets)

    def whole(span: range) -> Predictions:
        transform = classifier.backbone.transform
        pixels = torch.stack([pixels_of(split.images, i, transform) for i in span]).to(context.device) / 255
        noise = [np.random.default_rng([context.seed, i]) for i in span]
        return attack_all(classifier, pixels, labels[list(span)].to(context.device), steps, noise)

    setting = (compute_alone, (classifier.backbone.loading.precision,))
    with ThreadPoolExecutor(cores(), "attack", *setting) if on_cpu else nullcontext() as pool:
        yield from pool.map(whole, spans) if pool else map(whole, spans)
    torch.clear_autocast_cache()


def attack_all(classifier: PixelClassifier, pixels: Tensor, labels: Tensor, steps: int, noise) -> Predictions:
    """The classes of images (B, 3, H, W) in 0…1 before and after each attack at each radius; `noise`: a numpy
    generator an image, for random starts."""
    foolbox = imported()
    model = foolbox.models.pytorch.PyTorchModel(classifier, bounds=(0, 1), device=pixels.device)
    starts = {kind: torch.stack([in_ball(rng, pixels.shape[1:], kind) for rng in noise]) for kind in ("linf", "l2")}
    predicted = classes_of(classifier, pixels)
    found = {"predicted": predicted.cpu().numpy().astype(np.int32)}
    for name, radii in RADII.items():
        after, standing = [predicted], predicted == labels
        for radius in radii:
            said = after[-1].clone()
            if standing.any():
                size = radius if name == "pgd_l2" else radius / 255
                if name == "fgsm":
                    attack = foolbox.attacks.FGSM()
                else:
                    kind = name.removeprefix("pgd_")
                    attack = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[kind](
                        rel_stepsize=2.5 / steps, steps=steps, random_start=True
                    )
                    start = starts[kind].to(pixels)[standing]
                    attack.get_random_start = lambda x, epsilon, start=start: x + epsilon * type(x)(start)
                changed = attack(model, pixels[standing], labels[standing], epsilons=size)[1]
                said[standing] = classes_of(classifier, changed)
                standing = standing & (said == labels)
            after.append(said)
        found[name] = torch.stack(after[1:], dim=1).cpu().numpy().astype(np.int32)
    return found


@torch.no_grad()
def classes_of(classifier: PixelClassifier, pixels: Tensor) -> Tensor:
    """(B,) the likeliest class of each image."""
    return classifier(pixels).argmax(dim=1)


def in_ball(rng: np.random.Generator, shape, kind: str) -> Tensor:
    """A uniformly random point of the unit ball: `linf` or `l2`."""
    if kind == "linf":
        return torch.from_numpy(rng.uniform(-1, 1, shape)).float()
    way = rng.normal(size=shape)
    return torch.from_numpy(way / np.linalg.norm(way) * rng.uniform() ** (1 / way.size)).float()


def imported():
    """foolbox. Raises Unavailable without it."""
    # Its model zoo clones repositories: without this it cannot be imported where there is no git.
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    try:
        import foolbox
    except ImportError:
        raise Unavailable("foolbox is not installed: pip install 'backbench[adversarial]'") from None
    return foolbox


@contextmanager
def frozen(backbone: Backbone) -> Iterator[None]:
    """Inside, no parameter wants a gradient: only the pixels do."""
    wanted = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


def judged(predictions: Predictions, data: Dataset) -> tuple[Split, dict[str, np.ndarray]]:
    """The images that were attacked, and by score, (n,) whether each is right. Raises BadInput for other images, or an
    image that stands at a radius where it fell at a smaller one."""
    split = data["test"].take(len(predictions["id"]))
    check_ids(predictions["id"], split)
    labels = np.asarray(split.targets)
    right = {"top1": predictions["predicted"] == labels}
    for attack, radii in RADII.items():
        columns = predictions[attack]
        if columns.shape != (len(split), len(radii)):
            raise BadInput(f"predictions: {attack} has the shape {columns.shape}, not {(len(split), len(radii))}")
        stands = np.column_stack([right["top1"], columns == labels[:, None]])
        if (wrong := np.flatnonzero((np.diff(stands.astype(int), axis=1) > 0).any(axis=1))).size:
            raise BadInput(f"predictions row {wrong[0]}: {attack} is right at a radius beyond one where it is not")
        right |= {f"{attack}_{radius}": stands[:, place + 1] for place, radius in enumerate(radii)}
    return split, {name: of.astype(float) for name, of in right.items()}
