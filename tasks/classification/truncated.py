"""Truncated embeddings: k-NN accuracy on their first dimensions alone, D/32 to D (Kusupati et al. 2022, Matryoshka).

By k-NN, not by a probe: nothing is trained, so what is lost is the embedding's own, not made up for by a head; and it
is what a gallery of shortened vectors is used for. Networks not trained for it spread what they know over all
dimensions, in no order: for them this measures redundancy. `k` and `temperature` are chosen on validation data at each
length.
"""

import numpy as np
import torch

from ..measure import Measure
from ..neighbours import nearest
from ..task import Needs, Outcome, Scores, Task, percent
from .accuracy import check_ids, names
from .knn import KnnRecipe, vote
from .linear_probe import labelled

PARTS = {"dims_3": 32, "dims_6": 16, "dims_12": 8, "dims_25": 4, "dims_50": 2, "dims_100": 1}


class Truncated(Task):
    """`dims_…`: on so many percent of the dimensions, each twice the one before; the headline is their mean."""

    name, family, version = "truncated", "classification", 1
    needs = Needs(data="classification")
    scores = Scores(mean_top1=percent, **dict.fromkeys(PARTS, percent))
    Recipe = KnnRecipe

    def run(self, backbone, data, recipe, context):
        (train, y_train), (val, y_val) = (
            labelled(context.embeddings(backbone, data[name]), data[name]) for name in ("train", "val")
        )
        test = context.embeddings(backbone, data["test"])
        columns, chosen = {"id": names(data["test"])}, {}
        for step, (name, part) in enumerate(PARTS.items()):
            first = slice(0, max(1, round(train.shape[1] / part)))

            def answers(queries, gallery, labels, settings, first=first):
                cosines, rows = nearest(queries[:, first], gallery[:, first], max(k for k, _ in settings))
                voted = labels[rows]
                return [vote(cosines, voted, len(data.classes), k, t).argmax(dim=1) for k, t in settings]

            right = [(found == y_val).sum() for found in answers(val, train, y_train, recipe.settings)]
            best = recipe.settings[int(torch.stack(right).argmax())]
            both, labels = torch.cat([train, val]), torch.cat([y_train, y_val])
            columns[name] = answers(test, both, labels, [best])[0].numpy().astype(np.int32)
            chosen[name] = {"dimensions": first.stop, "k": best[0], "temperature": best[1]}
            context.progress("shorter embeddings", step + 1, len(PARTS))
        return Outcome(columns, chosen)

    def measure(self, predictions, data):
        split = data["test"]
        check_ids(predictions["id"], split)
        right = np.stack([predictions[name] == np.asarray(split.targets) for name in PARTS]).astype(float)

        def scores(weights: np.ndarray) -> dict[str, float]:
            each = 100 * (right @ weights) / weights.sum()
            return {"mean_top1": float(each.mean()), **dict(zip(PARTS, each.tolist(), strict=True))}

        return Measure(len(split), scores, split.groups)
