"""Exact nearest neighbours by cosine, in blocks, so that a memory-mapped gallery may be larger than memory.

Every pair is screened in bfloat16 where the CPU multiplies that natively (else float32), with a bound on the error of
the screen. The few pairs that may be among the answers are then computed in float32, each by itself: neither blocks,
parts nor cores change a bit.
"""

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .threads import cores, one_thread

ROWS = 4096  # of the gallery at a time
QUERIES = 512  # compared with them at a time: a block of similarities stays in the cache
TOGETHER = 16 * QUERIES  # queries that share one pass over the gallery
LAST = 2**32 - 1  # a key is 32 bits of a similarity above 32 bits of a position


def nearest(queries: Tensor, gallery: Tensor | Sequence[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Cosines (q, k) float32, falling, and positions (q, k) int64 of the k rows of the gallery nearest to each query.

    The gallery may come in parts, counted through. Of equal cosines the lower position is first. A `k` beyond the
    gallery means all of it.
    """
    parts = [gallery] if isinstance(gallery, Tensor) else list(gallery)
    k = min(k, sum(map(len, parts)))
    found = []
    with (
        one_thread(),
        ThreadPoolExecutor(cores(), "neighbours", torch.set_num_threads, (1,)) as pool,
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        for chunk in queries.split(TOGETHER):
            searches = [Search(unit(q), k) for q in chunk.split(QUERIES)]
            for block in blocks(parts):
                list(pool.map(lambda search, block=block: search.through(block), searches))
            found += [np.sort(search.best, axis=1)[:, ::-1] for search in searches]
    best = np.concatenate(found)
    return torch.from_numpy(similarity(best)), torch.from_numpy(position(best))


@dataclass(frozen=True)
class Block:
    """Unit rows of the gallery from position `first` on; and, screened, what is left of them without `centre`.

    Taking the centre away changes no query's order, and leaves less for the screen to round where embeddings all point
    one way.
    """

    rows: Tensor
    first: int
    centre: Tensor

    def __post_init__(self):
        rest = self.rows - self.centre
        object.__setattr__(self, "screen", rest.to(screening()))
        object.__setattr__(self, "error", float((rest - self.screen.float()).norm(dim=1).max()))
        object.__setattr__(self, "length", float(rest.norm(dim=1).max()))

    screen: Tensor = field(init=False)
    error: float = field(init=False)
    length: float = field(init=False)


def blocks(parts: Sequence[Tensor]) -> Iterator[Block]:
    """The gallery, normalised block by block."""
    first, centre = 0, None
    for rows in (rows for part in parts for rows in part.split(ROWS) if len(rows)):
        rows = unit(rows)
        centre = rows.mean(dim=0) if centre is None else centre
        yield Block(rows, first, centre)
        first += len(rows)


class Search:
    """The best `k` so far of each of some unit queries (q, D), as keys (q, k), the worst in the first column."""

    def __init__(self, queries: Tensor, k: int):
        self.queries, self.k = queries, k
        self.screen = queries.to(screening())
        self.error = (queries - self.screen.float()).norm(dim=1)
        self.best = np.full((len(queries), k), keys(np.full(1, -np.inf, np.float32), LAST))

    def through(self, block: Block) -> None:
        """Takes in what the block has that is better. Blocks come in the order of the gallery."""
        row, column = self.candidates(block)
        starts = np.concatenate([[0], np.bincount(row, minlength=len(self.best)).cumsum()])
        found = np.full((len(self.best), self.k + np.diff(starts).max()), self.best.min())
        found[:, : self.k] = self.best
        slots = self.k + np.arange(len(row)) - starts[row]
        found[row, slots] = keys(dots(self.queries, block.rows, starts, column), block.first + column)
        found.partition(found.shape[1] - self.k, axis=1)
        self.best = found[:, -self.k :].copy()

    def candidates(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of all pairs that may be among the best: none that is may be missing."""
        seen = (self.screen @ block.screen.T).float()
        # |q·g - q'·g'| <= |q - q'| |g| + |q'| |g - g'|, and sums of D terms in float32, here and in `dots`.
        slack = self.error * block.length + (1 + self.error) * block.error + self.queries.shape[1] * 2**-22
        least = torch.from_numpy(similarity(self.best[:, 0])) - self.queries @ block.centre - slack
        if seen.shape[1] >= self.k and least.isneginf().any():
            kth = torch.from_numpy(np.partition(seen.numpy(), -self.k, axis=1)[:, -self.k])
            least = torch.maximum(least, kth - 2 * slack - kth.abs() * 2**-8)
        # The screen's products were rounded to its precision: rounded alike, the bound still holds.
        least = least.to(self.screen.dtype).float()
        return np.divmod(np.flatnonzero((seen >= least[:, None]).numpy()), seen.shape[1])


def dots(queries: Tensor, rows: Tensor, starts: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Inner products of query i with the rows `column[starts[i] : starts[i + 1]]`, each summed in the same order."""
    pairs = torch.sparse_csr_tensor(
        torch.from_numpy(starts),
        torch.from_numpy(column),
        torch.zeros(len(column)),
        (len(queries), len(rows)),
        check_invariants=False,
    )
    return torch.sparse.sampled_addmm(pairs, queries, rows.T, beta=0).values().numpy()


def unit(rows: Tensor) -> Tensor:
    """Rows (n, D) at length 1 in float32; a row of zeros stays one."""
    rows = rows.float()
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.double).clamp(min=1e-12).float()


def screening() -> torch.dtype:
    """The precision that this CPU multiplies fastest."""
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def keys(similarities: np.ndarray, positions) -> np.ndarray:
    """int64 keys that sort as a ranking does: by similarity (float32), then the lower position above the higher."""
    bits = (similarities + np.float32(0)).view(np.int32)  # + 0 takes the sign off -0
    return ((bits ^ (bits >> 31 & 0x7FFFFFFF)).astype(np.int64) << 32) | (LAST - positions)


def similarity(found: np.ndarray) -> np.ndarray:
    """The similarities, float32, in keys."""
    bits = (found >> 32).astype(np.int32)
    return (bits ^ (bits >> 31 & 0x7FFFFFFF)).view(np.float32)


def position(found: np.ndarray) -> np.ndarray:
    """The positions, int64, in keys."""
    return LAST - (found & LAST)
