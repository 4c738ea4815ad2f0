"""Image retrieval: each query ranks the whole gallery by the cosine of frozen embeddings (Philbin et al. 2007).

Class-level where labels say what is right, instance-level where judgements do. A data set with a gallery only has each
image look for the others.
"""

import numpy as np

from ...backbones.errors import BadInput
from ..classification.accuracy import check_ids, names
from ..measure import Measure
from ..predictions import Predictions
from ..task import Needs, Outcome, Scores, Task, TaskRecipe, percent
from .answers import Answers, answers
from .ranking import ranking

CUTS = (1, 5, 10)
FIRST = max(CUTS)  # places of a ranking that are stored


class RetrievalRecipe(TaskRecipe):
    """`queries`: their split, such as `query:hard`; else `query`, or without one each image of the gallery in turn."""

    queries: str | None = None


class Retrieval(Task):
    name, family, version = "retrieval", "retrieval", 2
    needs = Needs(data="retrieval", splits=("gallery",))
    scores = Scores(
        map=percent,
        map_trapezoid=percent,
        map_at_100=percent,
        mrr=percent,
        **{f"precision_at_{k}": percent for k in CUTS},
        **{f"recall_at_{k}": percent for k in CUTS},
    )
    Recipe = RetrievalRecipe

    def splits(self, data):
        return [n for n in data.split_names if n in ("query", "gallery") or n.startswith("query:")]

    def run(self, backbone, data, recipe, context):
        split = recipe.queries or ("query" if "query" in data.split_names else "gallery")
        asked = answers(data, split)
        query, gallery = (context.embeddings(backbone, split) for split in (asked.query, asked.gallery))
        first, ranks = ranking(query, gallery, asked.right, asked.left_out, FIRST)
        stored = np.empty(len(ranks), dtype=object)
        stored[:] = [r.astype(np.int32) for r in ranks]
        columns = {"split": np.full(len(asked.query), split, dtype=object), "id": names(asked.query)}
        return Outcome(columns | {"first": first.astype(np.int32), "ranks": stored})

    def measure(self, predictions, data):
        """Means over the queries that have an answer in the gallery; see `per_query`."""
        asked = answers(data, only_split(predictions))
        check_ids(predictions["id"], asked.query)
        if not any(map(len, asked.right)):
            raise BadInput(
                f"dataset {data.name}: no query has a match in the gallery; use more images or another split"
            )
        ranks = checked_ranks(predictions, asked)
        each = per_query(ranks)
        counted = np.array([len(r) > 0 for r in ranks])
        table = np.where(counted[:, None], np.stack([each[name] for name in self.scores], axis=1), 0.0)

        def scores(weights: np.ndarray) -> dict[str, float]:
            weights = weights * counted
            total = weights.sum()
            means = 100 * (weights @ table) / total if total else np.zeros(table.shape[1])
            return dict(zip(self.scores, means.tolist(), strict=True))

        return Measure(len(asked.query), scores, asked.query.groups)


def per_query(ranks: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Scores in 0..1 of each query from the ranks, rising from 1, of its right answers; NaN of one without any.

    map: average precision, the mean of the precision at each answer, without interpolation, as scikit-learn's.
    map_trapezoid: the area under the precision by trapezoids, as the revisited Oxford and Paris, DINO and Battle of the
    Backbones have it. map_at_100: answers after the 100th place count for nothing and no more than 100 are asked for,
    as in Google Landmarks v2. mrr: 1 / rank of the first answer. recall_at_k: 1 if any of the first k is an answer.
    precision_at_k: share of answers among k places, also where there are fewer answers than k.
    """
    count = np.array([len(r) for r in ranks])
    query = np.repeat(np.arange(len(ranks)), count)
    rank = np.concatenate([np.asarray(r, float) for r in ranks])
    nth = np.arange(len(rank)) - np.repeat(count.cumsum() - count, count) + 1.0
    precision = nth / rank
    before = np.where(rank > 1, (nth - 1) / np.maximum(rank - 1, 1), 1)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(query, values, minlength=len(ranks))

    hits = {k: total(rank <= k) for k in CUTS}
    some = np.maximum(count, 1)
    found = {
        "map": total(precision) / some,
        "map_trapezoid": total((before + precision) / 2) / some,
        "map_at_100": total(precision * (rank <= 100)) / np.minimum(some, 100),
        "mrr": total((nth == 1) / rank),
        **{f"precision_at_{k}": hits[k] / k for k in CUTS},
        **{f"recall_at_{k}": (hits[k] > 0).astype(float) for k in CUTS},
    }
    return {name: np.where(count > 0, values, np.nan) for name, values in found.items()}


def only_split(predictions: Predictions) -> str:
    """The split that all the queries are of. Raises BadInput where there are several or none."""
    found = sorted(set(predictions["split"]))
    if len(found) != 1:
        raise BadInput(f"predictions are for queries of {len(found)} splits {found}; one is needed")
    return found[0]


def checked_ranks(predictions: Predictions, asked: Answers) -> list[np.ndarray]:
    """The stored ranks of each query's answers. Raises BadInput where they contradict the data or the first places."""
    found = []
    rows = zip(predictions["id"], predictions["first"], predictions["ranks"], asked.right, asked.left_out, strict=True)
    for query, first, stored, right, left_out in rows:
        ranks, ranked = np.asarray(stored, np.int64), len(asked.gallery) - len(left_out)
        shown = first[: min(ranked, FIRST)]
        if len(ranks) != len(right):
            wrong = f"has ranks of {len(ranks)} answers, the data set has {len(right)}"
        elif len(ranks) and (ranks[0] < 1 or ranks[-1] > ranked or (np.diff(ranks) < 1).any()):
            wrong = f"has ranks that are not rising from 1 to {ranked} at most"
        elif not _places(first, len(shown), len(asked.gallery)) or np.isin(shown, left_out).any():
            wrong = f"has first places that are not {len(shown)} images of the ranked gallery"
        elif not np.array_equal(np.flatnonzero(np.isin(shown, right)) + 1, ranks[ranks <= FIRST]):
            wrong = "has ranks that contradict its first places"
        else:
            found.append(ranks)
            continue
        raise BadInput(f"predictions: query {query} {wrong}; is it the same data set?")
    return found


def _places(first: np.ndarray, count: int, size: int) -> bool:
    """Whether these are `count` different positions among `size`, and -1 after them."""
    shown, rest = first[:count], first[count:]
    return len(set(shown.tolist())) == count and bool(((shown >= 0) & (shown < size)).all() and (rest == -1).all())
