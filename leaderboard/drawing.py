"""Scores drawn anew from their intervals, many times: how surely a row stands where it does.

`families` names the task family of each of m columns; `drawn` is (draws, n), of n rows, one after the other.

What is measured with noise is spread wider than what is true, and what is drawn around it wider still: z-scores of such
draws lie too near to 0, and ranks too near to the middle (naive 95 % intervals of the overall z-score of 100 rows over
9 columns cover 88 % with noise of a third of the spread, 65 % with noise as large as the spread). The noise is known,
so its part of a variance is taken out: the correction for attenuation (Spearman 1904), for a set of values as for one
(Louis 1984; Shen & Louis 1998, triple-goal estimates). The intervals then cover 93 to 97 %, which tests hold.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

NORMAL_95 = 1.959964  # half-width of a 95 % interval in standard deviations
APART = 0.975  # a row is ahead of another when it is so in more than this share of the draws
LEAST = (
    0.3  # of a variance in the draws is true at least: a smaller estimate says little but that of noise there is much
)
FIRST_LOOK = 200  # draws that show most of the ties already
AT_ONCE = 50_000  # numbers of a column that are drawn at once: they stay in the processor's cache


def draw(
    scores: np.ndarray, low: np.ndarray, high: np.ndarray, families: Sequence[str], seed: int, draws: int
) -> np.ndarray:
    """(draws, n) float32 overall z-scores: all (n, m) scores drawn anew each time, and standardised anew.

    A score is drawn from its own 95 % interval, as a normal split at the score into two halves, apart from all others.
    On shared test examples they rise and fall together, so differences between rows are known better than this says:
    ties found here are on the cautious side, `compare` has the paired answer.
    """
    rows, sizes = len(scores), Counter(families)
    weights = [np.float32(1 / (len(sizes) * sizes[family])) for family in families]
    mean = scores.mean(axis=0)
    scale = np.maximum(np.abs(scores - mean).max(axis=0), (high - low).max(axis=0))
    scale[scale == 0] = 1  # a column of equal scores without doubt
    up, down = (high - scores) / scale / NORMAL_95, (scores - low) / scale / NORMAL_95
    noise = ((up**2 + down**2) / 2 - (up - down) ** 2 / (2 * np.pi)).mean(axis=0) * (1 - 1 / rows)
    middle, up, down = (np.ascontiguousarray(a.T, dtype=np.float32) for a in ((scores - mean) / scale, up, down))
    found = np.zeros((draws, rows), dtype=np.float32)
    step = max(1, AT_ONCE // rows)

    def fill(start: int) -> None:
        part = found[start : start + step]
        rng = np.random.Generator(np.random.SFC64([seed, start]))
        for column, weight in enumerate(weights):
            values = rng.standard_normal(part.shape, dtype=np.float32)
            values *= np.where(values > 0, up[column], down[column])
            values += middle[column]
            values -= values.mean(axis=1, keepdims=True)
            variance = np.einsum("ij,ij->i", values, values)[:, None] / rows
            # Two noises are in it, that of the score and that of the draw.
            spread = np.sqrt(np.maximum(variance - 2 * noise[column], LEAST * variance), dtype=np.float32)
            values *= np.divide(weight, spread, out=np.zeros_like(spread), where=spread > 0)
            part += values

    with ThreadPoolExecutor() as pool:  # every part has a seed of its own, so nothing depends on how many there are
        list(pool.map(fill, range(0, draws, step)))
    return np.round(found, 5)  # what is nearer is equal: the rest is rounding


def places_among_true(drawn: np.ndarray) -> np.ndarray:
    """(draws, n) place of what is drawn for a row among the others' scores, the noise's part taken out of their spread.

    For each row's own doubt: two rows of one draw may both be before the other. `places` has who is ahead of whom.
    """
    centred = drawn - drawn.mean(axis=1, keepdims=True)
    noise, variance = drawn.var(axis=0, dtype=float), np.square(centred).mean(dtype=float)
    true = max(variance - 2 * noise.mean(), LEAST * variance)
    shrunk = centred * np.sqrt(np.divide(true, true + 2 * noise, out=np.ones_like(noise), where=noise > 0), dtype="f4")
    ordered, order = np.sort(shrunk, axis=1), np.argsort(centred, axis=1)
    places = np.empty(drawn.shape, dtype=np.int32)
    for place, theirs, mine, own in zip(places, ordered, order, centred, strict=True):
        place[mine] = 1 + drawn.shape[1] - np.searchsorted(theirs, own[mine], side="right")
    return places - (shrunk > centred)  # a row is not before itself


def places(values: np.ndarray) -> np.ndarray:
    """(…, n) 1 for the highest; equal values share the better place and leave a gap behind (1, 2, 2, 4)."""
    order = np.argsort(-values, axis=-1)
    ordered = np.take_along_axis(values, order, axis=-1)
    first = np.broadcast_to(np.arange(1, values.shape[-1] + 1, dtype=np.int32), values.shape).copy()
    first[..., 1:][ordered[..., 1:] == ordered[..., :-1]] = 0
    found = np.empty(values.shape, dtype=np.int32)
    np.put_along_axis(found, order, np.maximum.accumulate(first, axis=-1), axis=-1)
    return found


def interval(drawn: np.ndarray, value: np.ndarray, whole: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(n,) low and high 95 % percentiles over the first axis of (draws, n), widened to hold `value`."""
    low = np.percentile(drawn, 2.5, axis=0, method="lower" if whole else "linear")
    high = np.percentile(drawn, 97.5, axis=0, method="higher" if whole else "linear")
    return np.minimum(low, value), np.maximum(high, value)


def tie_groups(drawn_places: np.ndarray) -> list[range]:
    """The largest runs of two or more neighbours (rows in ranked order) in which no two rows can be told apart: neither
    is before the other in over 97.5 % of the (draws, n) places.

    A row may stand in several groups: A = B and B = C do not make A = C (a compact letter display, Piepho 2004).
    """
    draws, rows = drawn_places.shape
    by_row, some = np.ascontiguousarray(drawn_places.T), min(draws, FIRST_LOOK)
    first_look = np.ascontiguousarray(by_row[:, :some])
    least = (1 - APART) * draws * (1 - 1e-9)  # draws in which neither of two tied rows is ahead
    groups: list[range] = []
    start = 0
    for end in range(1, rows + 1):
        new = end
        if end < rows:
            open_ = start + np.flatnonzero(_not_ahead(first_look[start:end], first_look[end]) < least)
            apart = open_[_not_ahead(by_row[open_], by_row[end]) < least]
            new = int(apart[-1]) + 1 if len(apart) else start
        if new > start:
            if end - start > 1:
                groups.append(range(start, end))
            start = new
    return groups


def _not_ahead(places: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(n,) draws in which a row of (n, draws) places is not before the `other`, or this not before it: the fewer."""
    counts = [np.bitwise_count(np.packbits(c, axis=1)).sum(axis=1) for c in (places >= other, places <= other)]
    return np.minimum(*counts)


def tie_marks(groups: Sequence[range], rows: int) -> list[tuple[str, ...]]:
    """The letters of its groups (a … z, a2 … z2, …) for every row; none for a row that stands alone."""
    marks: list[tuple[str, ...]] = [()] * rows
    for index, group in enumerate(groups):
        turn, letter = divmod(index, 26)
        for row in group:
            marks[row] += ("abcdefghijklmnopqrstuvwxyz"[letter] + (str(turn + 1) if turn else ""),)
    return marks
