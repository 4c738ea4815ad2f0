"""Where a query's right answers stand in its ranking of a whole gallery."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ..neighbours import keys, position, unit
from ..threads import cores, one_thread

ROWS = 8192  # of the gallery at a time
PAIRS = 2**23  # of queries and gallery rows that are ranked at a time
OUT = np.iinfo(np.int64).min  # the key of what is out of the ranking: below all others

Positions = Sequence[np.ndarray]  # positions in the gallery, an array a query


def ranking(
    queries: Tensor, gallery: Tensor, answers: Positions, left_out: Positions, first: int = 10
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The `first` positions (q, first) of each query's ranking by cosine, and the ranks, rising from 1, of its answers.

    What is `left_out` has no rank. Of equal cosines the lower position is first; -1 stands where there is no more to
    rank. Cosines are rounded to float32 from float64, which makes equal images equal wherever they stand. In memory
    are a part of the gallery, and the rankings of some queries.
    """
    step = max(1, PAIRS // len(gallery))

    def rank(start: int) -> tuple[np.ndarray, list[np.ndarray]]:
        some = unit(queries[start : start + step]).double()
        found = np.empty((len(some), len(gallery)), np.int64)
        for at in range(0, len(gallery), ROWS):
            cosines = (some @ unit(gallery[at : at + ROWS]).double().T).float().numpy()
            found[:, at : at + ROWS] = keys(cosines, at + np.arange(cosines.shape[1]))
        for row, out in zip(found, left_out[start : start + step], strict=True):
            row[out] = OUT
        right = [row[a] for row, a in zip(found, answers[start : start + step], strict=True)]
        found.sort(axis=1)
        ranks = [np.sort(len(row) - np.searchsorted(row, r)) for row, r in zip(found, right, strict=True)]
        head = found[:, ::-1][:, :first]
        head = np.where(head == OUT, -1, position(head))
        return np.pad(head, [(0, 0), (0, first - head.shape[1])], constant_values=-1), ranks

    with one_thread(), ThreadPoolExecutor(cores(), "ranking", torch.set_num_threads, (1,)) as pool:
        done = list(pool.map(rank, range(0, len(queries), step)))
    return np.concatenate([head for head, _ in done]), [ranks for _, part in done for ranks in part]
