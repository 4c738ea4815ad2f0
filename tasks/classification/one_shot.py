"""One-shot classification in episodes: each query takes the label of the most similar support image (Lake et al. 2015).

Where episodes show several images of a class, the class whose mean is most similar stands beside it.
"""

import numpy as np
import torch
from torch.nn.functional import normalize

from ...backbones.errors import BadInput
from ..measure import Measure
from ..task import Needs, Outcome, Scores, Task, percent
from ..threads import one_thread
from .accuracy import check_ids, names
from .prototypes import nearest_means


class OneShot(Task):
    name, family, version = "one-shot", "classification", 1
    needs = Needs(data="episodes", splits=("support", "query"))
    scores = Scores(top1=percent, prototype_top1=percent)

    def run(self, backbone, data, recipe, context):
        support, query = data["support"], data["query"]
        known, asked = (context.embeddings(backbone, split) for split in (support, query))
        labels = torch.as_tensor(support.targets)
        said = {"nearest": np.empty(len(query), np.int32), "prototype": np.empty(len(query), np.int32)}
        several = False
        for shown, rows in episodes(data):
            classes, y = labels[shown].unique(return_inverse=True)
            several |= len(classes) < len(y)
            with one_thread():
                cosines = normalize(asked[rows].double()) @ normalize(known[shown].double()).T
            said["nearest"][rows] = labels[shown][cosines.argmax(dim=1)].numpy()
            said["prototype"][rows] = classes[nearest_means(known[shown], y, asked[rows]).argmax(dim=1)].numpy()
        if not several:  # the mean of one is that one
            del said["prototype"]
        return Outcome({"id": names(query), **said})

    def measure(self, predictions, data):
        query = data["query"]
        check_ids(predictions["id"], query)
        columns = {"top1": "nearest", "prototype_top1": "prototype"}
        right = {
            score: predictions[column] == query.targets for score, column in columns.items() if column in predictions
        }

        def scores(weights: np.ndarray) -> dict[str, float]:
            return {score: 100 * float(weights @ r / weights.sum()) for score, r in right.items()}

        return Measure(len(query), scores, query.groups, right=right["top1"])


def episodes(data) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of the support and of the query split, an episode each. Raises BadInput where they do not go together."""
    support, query = data["support"], data["query"]
    if support.groups is None or query.groups is None:
        raise BadInput(
            f"dataset {data.name}: the groups of support and query name the episode of each image; give both"
        )
    found = []
    for episode in np.unique(query.groups):
        shown = np.flatnonzero(support.groups == episode)
        if not len(shown):
            raise BadInput(
                f"dataset {data.name}: episode {episode} has queries and no support images; a limit cuts episodes apart"
            )
        found.append((shown, np.flatnonzero(query.groups == episode)))
    return found
