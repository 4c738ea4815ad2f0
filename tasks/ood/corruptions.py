"""Common corruptions: a linear probe trained on clean images, tested on corrupted ones (Hendrycks and Dietterich 2019).

Each corruption's error is the mean over severities, the headline the mean over corruptions. Divided by the errors of a
reference, corruption by corruption, it is their mCE; the same of what is lost against clean images is the relative mCE.
The reference is another backbone under this very protocol, or the published AlexNet of ImageNet-C.
"""

from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from ...backbones import load_backbone
from ...backbones.errors import BadInput, unknown
from ..classification.accuracy import check_ids, names
from ..classification.linear_probe import LinearProbeRecipe, chosen_probe
from ..measure import Measure
from ..predictions import Predictions
from ..task import Metric, Needs, Outcome, Scores, Task, percent_error
from .corrupted import CORRUPTIONS, COUNTED, SEVERITIES, corrupted
from .corruption_picture import draw

ALEXNET = {  # mean error over severities in percent, as the authors of ImageNet-C measured and normalise by
    "gaussian-noise": 88.6428,
    "shot-noise": 89.4468,
    "impulse-noise": 92.2640,
    "defocus-blur": 81.9880,
    "glass-blur": 82.6268,
    "motion-blur": 78.5948,
    "zoom-blur": 79.8360,
    "snow": 86.6816,
    "frost": 82.6572,
    "fog": 81.9324,
    "brightness": 56.4592,
    "contrast": 85.3204,
    "elastic-transform": 64.6056,
    "pixelate": 71.7840,
    "jpeg-compression": 60.6500,
}
ALEXNET_CLEAN = 43.478  # of torchvision's AlexNet, whose weights these are
PUBLISHED = "alexnet-published"
CLEAN = "clean"
REFERENCE = "reference "  # before the columns of the reference backbone
SHARE, MOST = "% of the reference", 1000.0  # what is worse is cut off
LEAST = 0.1  # points: a resample in which the reference makes fewer errors tells no more


class CorruptionsRecipe(LinearProbeRecipe):
    """`corruptions`, `severities`: which. `images`: at most so many test images, spread evenly (all if null).
    `reference`: a backbone to divide by, or alexnet-published, which holds for ImageNet alone."""

    corruptions: tuple[str, ...] = Field(default=COUNTED, min_length=1)
    severities: tuple[Literal[1, 2, 3, 4, 5], ...] = Field(default=SEVERITIES, min_length=1)
    images: int | None = Field(default=500, ge=1)
    reference: str | None = None

    @field_validator("corruptions", "severities")
    @classmethod
    def _once(cls, given):
        return tuple(dict.fromkeys(given))

    @field_validator("corruptions")
    @classmethod
    def _known(cls, given):
        if strange := [name for name in given if name not in CORRUPTIONS]:
            raise ValueError(str(unknown("corruption", strange[0], CORRUPTIONS)))
        return given


class Corruptions(Task):
    """Predictions have a row an image and a column a corruption and severity, of the class that the probe says."""

    name, family, version = "corruptions", "ood", 1
    needs = Needs(data="classification")
    scores = Scores(
        corruption_error=percent_error,
        clean_error=percent_error,
        error_increase=Metric("points", -100.0, 100.0, higher_is_better=False),
        mce=Metric(SHARE, 0.0, MOST, higher_is_better=False),
        relative_mce=Metric(SHARE, -MOST, MOST, higher_is_better=False),
        **{"error:*": percent_error},
    )
    Recipe = CorruptionsRecipe

    def run(self, backbone, data, recipe, context):
        if recipe.reference == PUBLISHED:
            check_published(data, recipe)
        columns, chosen = answers(backbone, data, recipe, context)
        if recipe.reference == PUBLISHED:
            columns[REFERENCE.strip()] = np.full(len(columns["id"]), PUBLISHED, dtype=object)
        elif recipe.reference:
            other = load_backbone(recipe.reference, context.device)
            theirs, _ = answers(other, data, recipe, context)
            columns |= {REFERENCE + name: values for name, values in theirs.items() if name != "id"}
            chosen["reference_weights"] = other.weights_digest
        return Outcome(columns, chosen)

    def measure(self, predictions, data):
        split = data["test"].take(len(predictions["id"]))
        check_ids(predictions["id"], split)
        labels = np.asarray(split.targets)
        wrong, reference = errors(predictions, labels), errors(predictions, labels, REFERENCE)
        names = [name for name in wrong if name != CLEAN]
        own, clean = np.stack([wrong[name] for name in names]), wrong[CLEAN]
        published = "reference" in predictions
        if published:
            fixed, fixed_clean = np.array([ALEXNET[name] for name in names]), ALEXNET_CLEAN
        elif reference:
            theirs, theirs_clean = np.stack([reference[name] for name in names]), reference[CLEAN]

        def beside(share: np.ndarray) -> tuple[np.ndarray, float]:
            return (fixed, fixed_clean) if published else (theirs @ share, float(theirs_clean @ share))

        made = more = np.zeros(len(names), bool)  # where the reference makes errors, and more than on clean images
        if published or reference:
            by, by_clean = beside(np.full(len(labels), 1 / len(labels)))
            made, more = by > 0, by > by_clean

        def scores(weights: np.ndarray) -> dict[str, float]:
            share = weights / weights.sum()
            each, clean_error = own @ share, float(clean @ share)
            found = {
                "corruption_error": float(each.mean()),
                "clean_error": clean_error,
                "error_increase": float(each.mean() - clean_error),
            }
            if made.any():
                by, by_clean = beside(share)
                found["mce"] = ratio(each[made], by[made])
                if more.any():
                    found["relative_mce"] = ratio(each[more] - clean_error, by[more] - by_clean)
            return found | {f"error:{name}": float(error) for name, error in zip(names, each, strict=True)}

        return Measure(len(labels), scores, split.groups)

    def picture(self, predictions, data):
        split = data["test"].take(len(predictions["id"]))
        return draw(accuracy_table(predictions, np.asarray(split.targets)), split)


def answers(backbone, data, recipe: CorruptionsRecipe, context) -> tuple[Predictions, dict]:
    """The class that a probe says of each test image, by corruption and severity; and what was chosen for it."""
    probe, chosen = chosen_probe(backbone, data, recipe, context)
    split = data["test"].take(recipe.images)
    conditions = [(name, severity) for name in recipe.corruptions for severity in recipe.severities]
    columns = {"id": names(split), CLEAN: predicted(probe, context.embeddings(backbone, split))}
    for done, (name, severity) in enumerate(conditions):
        context.progress("corrupting", done, len(conditions))
        made = corrupted(split, name, severity)
        columns[f"{name} {severity}"] = predicted(probe, context.embeddings(backbone, made))
    return columns, chosen


def predicted(probe, features) -> np.ndarray:
    """(n,) the class of the highest logit."""
    return probe.logits(features).argmax(dim=1).numpy().astype(np.int32)


def accuracy_table(predictions: Predictions, labels: np.ndarray) -> dict[str, dict[int, float]]:
    """Percent right by corruption and severity; of clean images under severity 0."""
    found: dict[str, dict[int, float]] = {}
    for column, values in predictions.items():
        name, _, severity = column.rpartition(" ")
        if column == CLEAN or name in CORRUPTIONS:
            right = 100 * float((values == labels).mean())
            found.setdefault(name or CLEAN, {})[int(severity) if name else 0] = right
    return found


def errors(predictions: Predictions, labels: np.ndarray, prefix: str = "") -> dict[str, np.ndarray]:
    """Percent wrong (n,) of each image: clean, and by corruption the mean over severities. Nothing without columns."""
    by_name: dict[str, list[np.ndarray]] = {}
    for column, values in predictions.items():
        if column.startswith(prefix):
            name = column.removeprefix(prefix)
            corruption = name.rpartition(" ")[0]
            if name == CLEAN or corruption in CORRUPTIONS:
                by_name.setdefault(corruption or CLEAN, []).append(100.0 * (values != labels))
    return {name: np.mean(wrong, axis=0) for name, wrong in by_name.items()}


def ratio(own: np.ndarray, reference: np.ndarray) -> float:
    """Mean over corruptions of `own` in percent of the reference's, cut off at MOST either way."""
    return float(np.clip(np.mean(100 * own / np.maximum(reference, LEAST)), -MOST, MOST))


def check_published(data, recipe: CorruptionsRecipe) -> None:
    """Raises BadInput unless AlexNet's published errors are of what is asked for."""
    if len(data.classes) != 1000 or set(recipe.severities) != set(SEVERITIES) or set(recipe.corruptions) - set(ALEXNET):
        raise BadInput(
            f"reference={PUBLISHED}: it was measured on ImageNet's 1,000 classes, over the five severities of the "
            "15 corruptions; name a backbone instead, such as reference=mini/cnn-random"
        )
