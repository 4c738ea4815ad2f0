"""What each query of a retrieval data set asks for: by equal labels, or by the judgements that come with the set."""

from dataclasses import dataclass

import numpy as np

from ...backbones.errors import BadInput
from ..classification.accuracy import names
from ..datasets import Dataset, Judgement, Split

NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Answers:
    """For each image of `query`: positions in `gallery` of its right answers, and of what its ranking leaves out."""

    query: Split
    gallery: Split
    right: list[np.ndarray]
    left_out: list[np.ndarray]


def answers(data: Dataset, split: str) -> Answers:
    """The protocol of the queries of a split.

    If that is the gallery itself, every image is a query in turn and is left out of its own ranking. Judgements of the
    queries name right answers, and junk that is left out (Radenović et al. 2018, revisited Oxford and Paris); else
    images of an equal label are right, and label -1 is never. Raises BadInput when judgements contradict themselves or
    the gallery.
    """
    query, gallery = data[split], data["gallery"]
    if query.judgements is None:
        labels = np.asarray(gallery.targets)
        order = labels.argsort(kind="stable")
        wanted = np.asarray(query.targets)
        low, high = (np.searchsorted(labels[order], wanted, side) for side in ("left", "right"))
        right = [order[a:b] if label >= 0 else NONE for a, b, label in zip(low, high, wanted, strict=True)]
        left_out = [NONE] * len(query)
    else:
        place = {name: i for i, name in enumerate(names(gallery))}
        pairs = [_judged(data, str(q), j, place) for q, j in zip(names(query), query.judgements, strict=True)]
        right, left_out = [p[0] for p in pairs], [p[1] for p in pairs]
    if split == "gallery":
        right = [r[r != i] for i, r in enumerate(right)]
        left_out = [np.union1d(out, [i]).astype(np.int64) for i, out in enumerate(left_out)]
    return Answers(query, gallery, right, left_out)


def _judged(data: Dataset, query: str, judgement: Judgement, place: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    if both := set(judgement.positive) & set(judgement.junk):
        raise BadInput(
            f"dataset {data.name}: query {query}: {min(both)!r} is both positive and junk; take it out of one"
        )
    found = []
    for ids in (judgement.positive, judgement.junk):
        missing = [name for name in ids if name not in place]
        # A run of a few images has but a part of the gallery.
        if missing and data.limit is None:
            raise BadInput(f"dataset {data.name}: query {query}: its answer {missing[0]!r} is not in the gallery")
        found.append(np.unique([place[name] for name in ids if name in place]).astype(np.int64))
    return found[0], found[1]
