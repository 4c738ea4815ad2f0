"""Where a linear probe looks, and whether it is what it needs: Grad-CAM, attention rollout, insertion and deletion.

Petsiuk et al. 2018 (RISE): the pixels that a heat map holds to be important are taken out of an image first (deletion,
towards the card's mean colour), or put into a blurred one first (insertion); the score is the area under the curve of
the predicted class's probability. A good map inserts high and deletes low, higher and lower than a random map of as
many places, which is scored beside it. Rollout is scored where every block attends to all places. The blur is a tenth
of the side: the paper's 5 pixels of 224 leave the objects of small images as plain as they were. Of equally important
pixels the order is random, the same for all maps.
"""

from base64 import b64decode, b64encode
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.functional import gaussian_blur

from ...backbones.errors import BadInput, NotApplicable
from ..classification.linear_probe import LinearProbeRecipe, chosen_probe
from ..datasets import Dataset
from ..extraction import batch_size
from ..measure import Measure
from ..ood.adversarial import PixelClassifier, frozen
from ..pictures import COLOURS, canvas
from ..predictions import Predictions
from ..task import Metric, Needs, Outcome, Scores, Task, percent, percent_error
from ..threads import one_thread
from .explaining import grad_cam, last_seen, rollout
from .profile import Profile

PARTS = ("method",)
percent_difference = Metric("%", -100.0, 100.0)
NAMES = {"gradcam": "Grad-CAM", "rollout": "attention rollout", "random": "random map"}


class ExplainRecipe(LinearProbeRecipe):
    """`images` of the test split, evenly spread, to explain, of which the first `shown` are kept for the picture;
    `steps` in which pixels go; `blur`: standard deviation, as a share of the side. Grad-CAM is of the last block whose
    map has `grid` places each way, and on whose places the logits depend."""

    images: int = Field(default=64, ge=1)
    shown: int = Field(default=6, ge=0)
    steps: int = Field(default=16, ge=2)
    blur: float = Field(default=0.1, gt=0, le=1)
    grid: int = Field(default=4, ge=1)


class Explain(Task):
    """`insertion` and `deletion` are Grad-CAM's; `…_gain`: by how much it is better than a random map."""

    name, family, version = "explain", "analysis", 1
    needs = Needs(data="classification", layers=True)
    scores = Scores(
        insertion=percent,
        deletion=percent_error,
        insertion_gain=percent_difference,
        deletion_gain=percent_difference,
        **{f"{method}_insertion": percent for method in ("rollout", "random")},
        **{f"{method}_deletion": percent_error for method in ("rollout", "random")},
    )
    Recipe = ExplainRecipe

    def run(self, backbone, data, recipe, context):
        probe, chosen = chosen_probe(backbone, data, recipe, context)
        split, size = data["test"].take(recipe.images), backbone.transform.size
        rng, parts = np.random.default_rng(context.seed), []
        with one_thread(), frozen(backbone):
            classifier = PixelClassifier(backbone, probe).to(context.device).eval()
            step = batch_size(size, context.device)
            for first in range(0, len(split), step):
                rows = range(first, min(first + step, len(split)))
                images = torch.stack([backbone.transform.pixels(split.images[i]) for i in rows])
                pixels = images.to(context.device) / 255
                with torch.no_grad():
                    classes = classifier(pixels).argmax(dim=1)
                if not parts:
                    chosen["block"] = last_seen(classifier, pixels, classes, recipe.grid)
                heats = maps_of(classifier, pixels, classes, chosen["block"], rng)
                ties = torch.from_numpy(rng.random((len(rows), size * size)))
                curves = []
                for i in range(len(rows)):
                    curves.append(curves_of(classifier, pixels[i], int(classes[i]), heats[:, i], ties[i], recipe))
                    context.progress("taking pixels out and in", first + i + 1, len(split))
                context.images += len(rows) * (2 + 2 * len(heats) * (recipe.steps + 1))
                views = [png(image) if i < recipe.shown else "" for i, image in zip(rows, images, strict=True)]
                parts.append((heats, classes, np.stack(curves, axis=1), views))
        methods = [name for name in NAMES if name != "rollout" or len(parts[0][0]) == len(NAMES)]
        heats, curves = (np.concatenate([np.asarray(part[of]) for part in parts], axis=1) for of in (0, 2))
        columns = {
            "predicted": np.tile(
                torch.cat([part[1] for part in parts]).cpu().numpy().astype(np.int32), (len(methods), 1)
            ),
            "deletion": curves[:, :, 0].astype(np.float32),
            "insertion": curves[:, :, 1].astype(np.float32),
            "heat": heats.reshape(*heats.shape[:2], -1).astype(np.float32),
            "view": np.array([[view for part in parts for view in part[3]]] * len(methods), dtype=object),
        }
        profile = Profile({"method": np.array(methods, dtype=object)}, columns)
        return Outcome(profile.rows(split, np.arange(len(split))), chosen)

    def measure(self, predictions, data):
        profile = read(predictions, data)
        areas = {name: area(profile.values[name]) for name in ("insertion", "deletion")}  # (methods, n)
        of = {
            f"{method}_{name}".removeprefix("gradcam_"): rows[i]
            for i, method in enumerate(profile.parts["method"])
            for name, rows in areas.items()
        }
        of["insertion_gain"] = of["insertion"] - of["random_insertion"]
        of["deletion_gain"] = of["random_deletion"] - of["deletion"]
        shown = {name: of[name] for name in self.scores if name in of}

        def scores(weights: np.ndarray) -> dict[str, float]:
            return {name: float(100 * (rows @ weights) / weights.sum()) for name, rows in shown.items()}

        return Measure(profile.images, scores, profile.groups)

    def picture(self, predictions, data):
        """Images as the network sees them, under each heat map; and the mean curves."""
        profile = read(predictions, data)
        methods, views = list(profile.parts["method"]), profile.values["view"][0]
        shown = [i for i, view in enumerate(views) if view]
        maps = [method for method in methods if method != "random"]
        figure, axes = canvas(1 + len(maps), len(shown) + 2, (1.9, 2.0))
        table = np.array(axes).reshape(1 + len(maps), -1)
        for column, i in enumerate(shown):
            with Image.open(BytesIO(b64decode(views[i]))) as picture:
                image = np.asarray(picture.convert("RGB"))
            said, sure = profile.values["predicted"][0, i], profile.values["deletion"][0, i, 0]
            for row, method in enumerate(["", *maps]):
                panel = table[row, column]
                panel.imshow(image)
                panel.set(xticks=[], yticks=[])
                for spine in panel.spines.values():
                    spine.set_visible(False)
                if not method:
                    panel.set_title(f"{data.classes[said]}: {100 * sure:.0f} %")
                else:
                    side = image.shape[0]
                    heat = profile.values["heat"][methods.index(method), i]
                    heat = spread(torch.from_numpy(heat.astype(np.float64))[None], side)[0].numpy()
                    panel.imshow(heat, cmap="inferno", alpha=0.6, vmin=0, vmax=max(heat.max(), np.finfo(float).tiny))
                if not column:
                    panel.set_ylabel(NAMES.get(method, "image, prediction"))
        for axis in table[:, len(shown) :].flat:
            axis.set_axis_off()
        beside = table[0, 0].get_gridspec()[:, len(shown) :].subgridspec(2, 1)
        for row, name in enumerate(("insertion", "deletion")):
            panel = figure.add_subplot(beside[row])
            curves = 100 * profile.values[name].mean(axis=1)
            for method, curve in zip(methods, curves, strict=True):
                colour = COLOURS[list(NAMES).index(method)] if method != "random" else "0.6"
                panel.plot(np.linspace(0, 100, len(curve)), curve, color=colour, label=NAMES[method])
            panel.set(title=name.capitalize(), xlabel=f"pixels put {'in' if not row else 'away'} (%)", ylim=(0, 101))
            panel.set_ylabel("probability (%)")
            panel.legend(loc="lower right" if not row else "upper right", fontsize=8)
        return figure


def maps_of(
    classifier: PixelClassifier, pixels: Tensor, classes: Tensor, block: str, rng: np.random.Generator
) -> np.ndarray:
    """(methods, B, H, W) ≥ 0 heat maps of images (B, 3, S, S) in 0…1, in the order of NAMES; rollout where there is
    one. Raises BadInput where one is not finite."""
    backbone = classifier.backbone
    found = [grad_cam(classifier, pixels, classes, block)]
    grid = found[0].shape[1:]
    try:
        rolled = rollout(backbone, backbone.transform.normalise(255 * pixels))
        found.append(rolled if rolled.shape[1:] == grid else interpolate(rolled[:, None], grid, mode="area")[:, 0])
    except NotApplicable:
        pass
    heats = np.stack([*(map.double().cpu().numpy() for map in found), rng.random((len(pixels), *grid))])
    if not np.isfinite(heats).all():
        told = "is not finite; its weights, or the mean and std on its card, are wrong"
        raise BadInput(f"{backbone.name}: a heat map of {block!r} {told}")
    return heats


def curves_of(
    classifier: PixelClassifier, image: Tensor, label: int, heats: np.ndarray, ties: Tensor, recipe: ExplainRecipe
) -> np.ndarray:
    """(methods, 2, steps + 1) probabilities of `label` of an image (3, S, S) in 0…1, as its pixels are deleted and
    inserted in the order of each of the heat maps (methods, H, W); `ties` (S²,) decides between equals."""
    side, device = image.shape[-1], image.device
    blank = torch.tensor(classifier.backbone.input.mean, device=device)[:, None, None].expand_as(image)
    sigma = recipe.blur * side
    reach = min(max(1, round(2 * sigma)), (side - 1) // 2)
    vague = gaussian_blur(image[None], [2 * reach + 1] * 2, [sigma] * 2)[0]
    counts = torch.linspace(0, side * side, recipe.steps + 1).round()
    places = [place_in_order(heat, ties) for heat in spread(torch.from_numpy(heats), side)]
    gone = (torch.stack(places)[:, None] < counts[:, None, None]).to(device)[
        :, :, None
    ]  # (methods, steps + 1, 1, S, S)
    mixed = torch.stack([torch.where(gone, blank, image), torch.where(gone, image, vague)], dim=1).flatten(0, 2)
    with torch.no_grad():
        batches = mixed.split(batch_size(side, str(device)))
        sure = torch.cat([classifier(batch).softmax(dim=1)[:, label] for batch in batches])
    return sure.unflatten(0, (len(heats), 2, -1)).cpu().numpy()


def spread(heats: Tensor, side: int) -> Tensor:
    """(N, side, side) of heat maps (N, H, W) or (N, H·W) of a square: what lies between places is interpolated."""
    square = heats if heats.ndim == 3 else heats.unflatten(1, (round(heats.shape[1] ** 0.5), -1))
    return interpolate(square[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]


def place_in_order(heat: Tensor, ties: Tensor) -> Tensor:
    """(S, S) of each pixel how many are more important, for a heat map (S, S) and random numbers (S²,)."""
    order = np.lexsort((ties.numpy(), -heat.flatten().numpy()))
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order))
    return torch.from_numpy(places).reshape(heat.shape)


def area(curves: np.ndarray) -> np.ndarray:
    """(…,) the area under curves (…, steps + 1) over 0…1, by trapezoids."""
    return np.trapezoid(curves.astype(float), dx=1 / (curves.shape[-1] - 1), axis=-1)


def png(image: Tensor) -> str:
    """An image (3, S, S) uint8 as the base64 of a PNG."""
    file = BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "PNG")
    return b64encode(file.getvalue()).decode()


def read(predictions: Predictions, data: Dataset) -> Profile:
    """The table of stored curves. Raises BadInput where it lacks a map, or holds what is no probability."""
    profile = Profile.of(predictions, data, PARTS)
    if lacking := {"gradcam", "random"} - set(profile.parts["method"]):
        raise BadInput(f"predictions: method: there is no {' and no '.join(sorted(lacking))}; run the task again")
    for name in ("insertion", "deletion"):
        curves = profile.values[name]
        if curves.ndim != 3 or curves.shape[-1] < 2 or not ((curves >= 0) & (curves <= 1)).all():
            raise BadInput(f"predictions: {name}: holds what is no curve of probabilities; run the task again")
    return profile
