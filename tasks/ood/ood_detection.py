"""Out-of-distribution detection: post-hoc scores on frozen embeddings tell known images from unknown ones.

Deep nearest neighbours is the headline, fixed beforehand: it has no training and assumes no distribution, so it shows
the embedding and little else. Sets and measures are OpenOOD's (Zhang et al. 2023): splits `unknown:near/…` and
`unknown:far/…` are near and far, and the full spectrum takes `shift:…` splits as known too, all in one set. Scores are
means over the unknown sets. What differs from OpenOOD's code: AUPR is average precision, not the area under lines
between points; FPR95 is the share of the unknown that pass where 95 % of the known do (Liang et al. 2018), where
version 1.5 has the share of the known that are lost where 95 % of the unknown are caught; detectors are fitted on
training and validation images, not on training images alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field

from ...backbones.errors import BadInput
from ..classification.accuracy import names
from ..classification.linear_probe import LinearProbeRecipe, chosen_probe, labelled
from ..classification.zero_shot import class_embeddings
from ..datasets import Dataset
from ..measure import Measure
from ..pictures import COLOURS, canvas
from ..predictions import Predictions
from ..task import Needs, Outcome, Scores, Task, percent, percent_error
from .detectors import (
    Mahalanobis,
    React,
    RelativeMahalanobis,
    Vim,
    energy,
    kth_cosine,
    max_logit,
    mcm,
    msp,
    prototype_cosine,
)
from .separation import Separation
from .splits import rows, together

HEADLINE, BY_TEXT = "knn", "mcm"
DETECTORS = {  # in names of scores and columns, and for people
    HEADLINE: "k-NN",
    "msp": "MSP",
    "max_logit": "max logit",
    "energy": "energy",
    "mahalanobis": "Mahalanobis",
    "relative_mahalanobis": "relative Mahalanobis",
    "vim": "ViM",
    "react": "ReAct",
    "prototype": "prototype",
    BY_TEXT: "MCM",
}
MEASURES = {"auroc": percent, "aupr_in": percent, "aupr_out": percent, "fpr95": percent_error}
NEAR, FAR, FULL = "near", "far", "full_spectrum"


def score_name(measure: str, detector: str) -> str:
    """The headline's scores have no detector in their names."""
    return measure if detector == HEADLINE else f"{measure}_{detector}"


class OodDetectionRecipe(LinearProbeRecipe):
    """`k`: the known neighbour whose cosine is the score of k-NN; `percentile` of activations where ReAct cuts off."""

    k: int = Field(default=10, ge=1)
    percentile: float = Field(default=90.0, gt=0, le=100)


class OodDetection(Task):
    """Every detector's measures over all unknown sets, and its AUROC over near, far, and the full spectrum's."""

    name, family, version = "ood-detection", "ood", 3
    needs = Needs(data="classification", splits=("train", "val", "test", "unknown:*"))
    scores = Scores(
        **{score_name(m, d): metric for d in DETECTORS for m, metric in MEASURES.items()},
        **{score_name(f"{which}_auroc", d): percent for d in DETECTORS for which in (NEAR, FAR, FULL)},
    )
    Recipe = OodDetectionRecipe

    def splits(self, data):
        return [*super().splits(data), *_shifted(data)]  # which a data set may have or not

    def run(self, backbone, data, recipe, context):
        probe, chosen = chosen_probe(backbone, data, recipe, context)
        known = [labelled(context.embeddings(backbone, data[name]), data[name]) for name in ("train", "val")]
        x, y = (torch.cat(parts) for parts in zip(*known, strict=True))
        on_features = {
            "knn": lambda features: kth_cosine(x, features, recipe.k),
            "mahalanobis": Mahalanobis(x, y),
            "relative_mahalanobis": RelativeMahalanobis(x, y),
            "vim": Vim(probe, x),
            "react": React(probe, known[1][0], recipe.percentile),
            "prototype": lambda features: prototype_cosine(x, y, features),
        }
        on_logits = {"msp": msp, "max_logit": max_logit, "energy": energy}
        texts = class_embeddings(backbone, data.classes, data.prompts) if backbone.has_text else None
        parts, splits = {}, reported(data)
        for step, name in enumerate(splits):
            features = context.embeddings(backbone, data[name])
            logits = probe.logits(features)
            found = {detector: score(features) for detector, score in on_features.items()}
            found |= {detector: score(logits) for detector, score in on_logits.items()}
            if texts is not None:
                found[BY_TEXT] = mcm(context.projections(backbone, data[name]), texts)
            parts[name] = {"id": names(data[name])} | {d: found[d].numpy() for d in DETECTORS if d in found}
            context.progress("telling known from unknown", step + 1, len(splits))
        return Outcome(together(parts), chosen)

    def measure(self, predictions, data):
        table = Table.of(predictions, data)
        sets = [u for u, name in enumerate(table.names) if name.startswith("unknown:")]
        groups = {
            which: [place for place, u in enumerate(sets) if table.names[u].startswith(f"unknown:{which}/")]
            for which in (NEAR, FAR)
        }
        shifts = [s for s, name in enumerate(table.names) if name.startswith("shift:")]
        pairs = [table.against([0], u) for u in sets]
        full = [table.against([0, *shifts], u) for u in sets] if shifts else []

        def scores(weights: np.ndarray) -> dict[str, float]:
            told = 100 * np.array([pair(weights) for pair in pairs])  # sets, measures, detectors
            means = dict(zip(MEASURES, told.mean(axis=0), strict=True))
            means |= {f"{which}_auroc": told[of, 0].mean(axis=0) for which, of in groups.items() if of}
            if full:
                means[f"{FULL}_auroc"] = 100 * np.mean([pair.auroc(weights) for pair in full], axis=0)
            found = {
                score_name(measure, detector): value
                for measure, values in means.items()
                for detector, value in zip(table.detectors, values.tolist(), strict=True)
            }
            return {name: found[name] for name in self.scores if name in found}

        return Measure(len(table.split), scores, table.groups)

    def picture(self, predictions, data):
        table = Table.of(predictions, data)
        figure, (left, right) = canvas(1, 2, (5.6, 3.8))
        spread(table, left)
        ones = np.ones(len(table.split))
        unknown = [u for u, name in enumerate(table.names) if name.startswith("unknown:")]
        places = np.arange(len(table.detectors))
        for place, u in enumerate(unknown):
            auroc = 100 * table.against([0], u).auroc(ones)
            right.plot(auroc, places, "o", color=COLOURS[(place + 1) % len(COLOURS)], label=_short(table.names[u]))
        right.axvline(50, color="0.7", linewidth=1, linestyle=":")
        right.set(title="Known against each unknown set", xlabel="AUROC in %, 50 by chance")
        right.set_yticks(places, [DETECTORS[d] for d in table.detectors])
        right.invert_yaxis()
        right.grid(axis="y", color="0.92")
        right.set_axisbelow(True)
        right.legend(loc="best")
        return figure


@dataclass(frozen=True)
class Table:
    """Stored scores (n,) by detector; index into `names` of each row's split; groups of the images, or None."""

    columns: Predictions
    names: list[str]
    split: np.ndarray
    groups: np.ndarray | None

    @classmethod
    def of(cls, predictions: Predictions, data: Dataset) -> "Table":
        """Raises BadInput for scores of other images, or that are missing or not finite."""
        splits = reported(data)
        truth = rows(predictions, data, splits)
        for detector in DETECTORS:
            if detector not in predictions and detector != BY_TEXT:
                raise BadInput(f"predictions: column {detector!r} is missing; run the task again")
            if (wrong := np.flatnonzero(~np.isfinite(predictions.get(detector, np.zeros(0))))).size:
                raise BadInput(f"predictions row {wrong[0]}: {detector} is not finite; run the task again")
        return cls(predictions, splits, truth.split, truth.groups)

    @property
    def detectors(self) -> list[str]:
        """Those that there are scores of: one by text needs a backbone that has it."""
        return [detector for detector in DETECTORS if detector in self.columns]

    def against(self, known: list[int], unknown: int) -> Separation:
        """How well the detectors tell the splits `known` from the split `unknown`."""
        of = np.flatnonzero(np.isin(self.split, [*known, unknown]))
        scores = np.stack([self.columns[detector][of] for detector in self.detectors])
        return Separation(scores, self.split[of] != unknown, of)


def spread(table: Table, axes) -> None:
    """Draws how the headline's scores are spread over the known, the shifted, and each unknown set."""
    scores, split = table.columns[HEADLINE], table.split
    shifted = [s for s, name in enumerate(table.names) if name.startswith("shift:")]
    sets = {"known": [0]} | ({"known, shifted": shifted} if shifted else {})
    sets |= {_short(name): [u] for u, name in enumerate(table.names) if name.startswith("unknown:")}
    edges = np.linspace(scores.min(), scores.max(), 41) if scores.min() < scores.max() else 41
    colours = iter(COLOURS[1:] * len(sets))
    for name, of in sets.items():
        values = scores[np.isin(split, of)]
        known = name.startswith("known")
        axes.hist(
            values,
            edges,
            weights=np.full(len(values), 100 / len(values)),
            histtype="stepfilled" if name == "known" else "step",
            color=COLOURS[0] if known else next(colours),
            alpha=0.35 if name == "known" else 1,
            linestyle="--" if known else "-",
            linewidth=1.5,
            label=name,
        )
    axes.set(title="k-NN score", xlabel="cosine to the k-th nearest known image", ylabel="images of the set in %")
    axes.legend(loc="best")


def reported(data: Dataset) -> list[str]:
    """The known test split, then every shifted one, then every unknown one."""
    return ["test", *_shifted(data), *(name for name in data.split_names if name.startswith("unknown:"))]


def _shifted(data: Dataset) -> list[str]:
    return [name for name in data.split_names if name.startswith("shift:")]


def _short(name: str) -> str:
    return name.partition(":")[2]
