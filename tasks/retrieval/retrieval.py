"""Instance retrieval: each query ranks the whole gallery by the cosine of frozen embeddings (Philbin et al. 2007)."""

import numpy as np
import torch
from torch.nn.functional import normalize

from ...backbones.errors import BadInput
from ..classification.accuracy import check_ids, names
from ..measure import Measure
from ..task import Needs, Outcome, Scores, Task, percent
from ..threads import one_thread

CHUNK = 1024  # queries that are ranked at a time


class Retrieval(Task):
    name, family, version = "retrieval", "retrieval", 1
    needs = Needs(data="retrieval", splits=("query", "gallery"))
    scores = Scores(
        map=percent, mrr=percent, recall_at_1=percent, recall_at_5=percent, recall_at_10=percent, precision_at_5=percent
    )

    def run(self, backbone, data, recipe, context):
        query, gallery = (context.embeddings(backbone, data[name]) for name in ("query", "gallery"))
        with one_thread():
            gallery = normalize(gallery)
            ranking = [
                (chunk @ gallery.T).sort(dim=1, descending=True, stable=True).indices.to(torch.int32)
                for chunk in normalize(query).split(CHUNK)
            ]
        return Outcome({"id": names(data["query"]), "ranking": torch.cat(ranking).numpy()})

    def measure(self, predictions, data):
        """Scores averaged over the queries that have a match in the gallery; recall@k: any match among the first k."""
        query, gallery = data["query"], data["gallery"]
        check_ids(predictions["id"], query)
        ranking = predictions["ranking"]
        if ranking.shape[1] != len(gallery):
            raise BadInput(f"predictions rank {ranking.shape[1]} images, the gallery of {data.name} has {len(gallery)}")
        each = per_query(np.asarray(gallery.targets)[ranking] == np.asarray(query.targets)[:, None])
        counted = np.isfinite(each["map"])
        if not counted.any():
            raise BadInput(
                f"dataset {data.name}: no query has a match in the gallery; use more images or another split"
            )
        table = np.where(counted[:, None], np.stack(list(each.values()), axis=1), 0.0)

        def scores(weights: np.ndarray) -> dict[str, float]:
            weights = weights * counted
            total = weights.sum()
            means = 100 * (weights @ table) / total if total else np.zeros(table.shape[1])
            return dict(zip(each, means.tolist(), strict=True))

        return Measure(len(query), scores, query.groups)


def per_query(match: np.ndarray) -> dict[str, np.ndarray]:
    """Scores in 0..1 of each row of (n, gallery) matches in ranked order; NaN in a row without any match."""
    ranks = np.arange(1, match.shape[1] + 1)
    hits = match.cumsum(axis=1)
    count = hits[:, -1]
    none = np.where(count > 0, 1.0, np.nan)
    found = {
        "map": (match * hits / ranks).sum(axis=1) / np.maximum(count, 1),
        "mrr": 1 / (match.argmax(axis=1) + 1),
        **{f"recall_at_{k}": (hits[:, min(k, len(ranks)) - 1] > 0).astype(float) for k in (1, 5, 10)},
        "precision_at_5": hits[:, min(5, len(ranks)) - 1] / 5,
    }
    return {name: values * none for name, values in found.items()}
