"""Likeness to people: error consistency with them, shape bias, and accuracy on edges and silhouettes.

A backbone's own ImageNet classifier, or its text tower, decides among 16 categories, as ten people did in Geirhos et
al. (2019). Error consistency (Geirhos et al. 2020) is the headline: shape bias alone can be had by a network that errs
on quite other images than people do.
"""

import numpy as np
import torch
from pydantic import Field
from torch.nn.functional import normalize

from ...backbones.classifier import load_classifier
from ...backbones.errors import BadInput, NotApplicable, unknown
from ..classification.accuracy import names
from ..classification.zero_shot import class_embeddings
from ..datasets import Dataset, Split
from ..datasets.naming import CLASS_NAMES
from ..measure import Measure
from ..ood.splits import rows, together
from ..predictions import Predictions
from ..task import Metric, Needs, Outcome, Scores, Task, TaskRecipe, percent
from ..threads import one_thread
from .agreement import FARTHEST, Panel, between, defined, js_distances, mean
from .categories import CATEGORIES, CLASSES, decisions, members
from .cues import Cues

SETS = ("cue-conflict", "edges", "silhouettes")
kappa = Metric("κ", -1.0, 1.0)
distance = Metric("√nat", 0.0, FARTHEST, higher_is_better=False)


class HumanLikenessRecipe(TaskRecipe):
    """`temperature` of the cosines of a text tower, whose probabilities are averaged (CLIP ends at 0.01)."""

    temperature: float = Field(default=0.01, gt=0)


class HumanLikeness(Task):
    """Consistency and distances are means over people, then over the three sets; those of a person, or a backbone,
    without an error are left out of the distances. `human_…` is the same of people among themselves: the ceiling.

    `shape_accuracy` and `texture_accuracy` are of the images whose two cues differ. With each class's errors spread
    evenly over the others the inter-class distance is the class-wise one: their difference is Tuli et al.'s "norm.".
    """

    name, family, version = "human-likeness", "human", 1
    needs = Needs(data="classification", splits=SETS)
    scores = Scores(
        error_consistency=kappa,
        human_error_consistency=kappa,
        shape_bias=percent,
        human_shape_bias=percent,
        shape_accuracy=percent,
        texture_accuracy=percent,
        edges=percent,
        silhouettes=percent,
        classwise_js=distance,
        interclass_js=distance,
        **{"error_consistency_*": kappa},
    )
    Recipe = HumanLikenessRecipe

    def run(self, backbone, data, recipe, context):
        groups = [members(category) for category in categories_of(data)]
        for name in SETS:
            people(name, data[name])
        if backbone.has_text:
            asked = sorted(number for group in groups for number in group)
            groups = [[asked.index(number) for number in group] for group in groups]
            called = CLASS_NAMES["open_clip/imagenet"]()
            with one_thread():
                texts = class_embeddings(backbone, [called[number] for number in asked], data.prompts)

            def logits(split: Split) -> torch.Tensor:
                images = context.projections(backbone, split)
                with one_thread():
                    return normalize(images).double() @ texts.T / recipe.temperature

            chosen = {"by": "text"}
        else:
            classifier = load_classifier(backbone)
            if classifier.embed_dim != CLASSES:
                told = f"{backbone.name}: its classifier has {classifier.embed_dim} classes"
                raise NotApplicable(f"{told}; categories are known of ImageNet-1k's {CLASSES}")

            def logits(split: Split) -> torch.Tensor:
                return context.embeddings(classifier, split)

            chosen = {"by": "classifier", "weights_digest": classifier.weights_digest}
        parts = {
            name: {
                "id": names(data[name]),
                "category": decisions(logits(data[name]), groups).numpy().astype(np.int32),
            }
            for name in SETS
        }
        return Outcome(together(parts), chosen)

    def measure(self, predictions, data):
        truth = rows(predictions, data, SETS)
        panels, cues = panels_of(predictions, data), cues_of(predictions, data)
        edges = np.flatnonzero(np.diff(truth.split)) + 1

        def told(weights: np.ndarray) -> dict[str, float]:
            by_set = dict(zip(SETS, np.split(weights, edges), strict=True))
            kappas = {name: panels[name].kappas(w) for name, w in by_set.items()}
            own = {name: mean(matrix[0, 1:]) for name, matrix in kappas.items()}
            right = {name: 100 * panels[name].accuracies(w)[0] for name, w in by_set.items()}
            wrong = [panels[name].class_errors(w) for name, w in by_set.items()]
            mixed = [panels[name].confusions(w) for name, w in by_set.items()]
            conflict = by_set["cue-conflict"]
            bias, (shape, texture) = cues.bias(conflict), cues.accuracies(conflict)
            return {
                "error_consistency": mean(np.array(list(own.values()))),
                "human_error_consistency": mean(np.array([between(m[1:, 1:]) for m in kappas.values()])),
                "shape_bias": 100 * bias[0],
                "human_shape_bias": 100 * mean(bias[1:]),
                "shape_accuracy": 100 * shape[0],
                "texture_accuracy": 100 * texture[0],
                "edges": right["edges"],
                "silhouettes": right["silhouettes"],
                "classwise_js": mean(np.array([mean(js_distances(e[:1], e[1:])) for e in wrong])),
                "interclass_js": mean(np.array([mean(js_distances(e[:1], e[1:])) for e in mixed])),
                **{f"error_consistency_{name.replace('-', '_')}": value for name, value in own.items()},
            }

        return Measure(
            len(truth.split),
            defined(told, len(truth.split)),
            truth.groups,
            answers=np.concatenate([panel.answers[0] for panel in panels.values()]),
            labels=truth.labels,
        )

    def picture(self, predictions, data):
        from .likeness_picture import draw

        return draw(panels_of(predictions, data), cues_of(predictions, data), data.classes)


def categories_of(data: Dataset) -> tuple[str, ...]:
    """The classes of the data. Raises BadInput unless each is one of the 16 categories."""
    for name in data.classes:
        if name not in CATEGORIES:
            raise unknown("category", name, CATEGORIES, where=f"dataset {data.name}: classes")
    return data.classes


def people(name: str, split: Split) -> dict[str, np.ndarray]:
    """The answers of people among a set's trials, which call them subject-01, -02, …. Raises BadInput without any."""
    found = {who: answers for who, answers in (split.trials or {}).items() if who.startswith("subject")}
    if not found:
        raise BadInput(f"{split.name or name}: no person's answers; give `trials`, a folder of tables, on its card")
    return found


def panels_of(predictions: Predictions, data: Dataset) -> dict[str, Panel]:
    """Of each set, the backbone's answers and then those of people. Raises BadInput."""
    found = {}
    for name in SETS:
        answers = predictions["category"][predictions["split"] == name].astype(int)
        if ((answers < 0) | (answers >= len(data.classes))).any():
            raise BadInput(f"predictions: split {name}: 'category' is one of the {len(data.classes)} of {data.name}")
        table = np.stack([answers, *people(name, data[name]).values()])
        found[name] = Panel(table, np.asarray(data[name].targets), len(data.classes))
    return found


def cues_of(predictions: Predictions, data: Dataset) -> Cues:
    """What shape and texture of the cue-conflict images are, and the answers to them. Raises BadInput."""
    split, panel = data["cue-conflict"], panels_of(predictions, data)["cue-conflict"]
    return Cues.of(panel.answers, names(split).tolist(), panel.labels, data.classes)
