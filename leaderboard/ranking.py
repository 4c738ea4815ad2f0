"""From a table of scores to ranks, with what can and cannot be told apart (numpy only).

Everywhere: `scores` (…, n, m) for n backbones and m columns, all of them higher-is-better and none missing;
`families` names the task family of each column. No function depends on the order of the rows.
"""

from collections.abc import Sequence

import numpy as np

NORMAL_95 = 1.959964  # half-width of a 95 % interval in standard deviations
DECIMALS = 9  # overall scores nearer than this are equal: the rest is rounding


def z_scores(scores: np.ndarray) -> np.ndarray:
    """(…, n, m) z-scores of every column over the rows (population standard deviation); 0 where all rows are equal."""
    mean, spread = centre(scores)
    return standardise(scores, mean, spread)


def centre(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(…, 1, m) mean and population standard deviation of every column; the deviation of equal values is exactly 0."""
    ordered = np.sort(scores, axis=-2)  # sums of the same numbers in another order differ in the last bit
    mean, spread = ordered.mean(axis=-2, keepdims=True), ordered.std(axis=-2, keepdims=True)
    return mean, np.where(ordered[..., :1, :] == ordered[..., -1:, :], 0.0, spread)


def standardise(scores: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """`scores` in standard deviations from the mean; 0 in columns without spread."""
    flat = spread == 0
    return np.where(flat, 0.0, (scores - mean) / np.where(flat, 1.0, spread))


def family_means(values: np.ndarray, families: Sequence[str]) -> dict[str, np.ndarray]:
    """(…, n) mean over the columns of every family, families in order of appearance."""
    kinds = np.array(families)
    return {family: values[..., kinds == family].mean(axis=-1) for family in dict.fromkeys(families)}


def overall(scores: np.ndarray, families: Sequence[str]) -> np.ndarray:
    """(…, n) mean z-score per task family, then over families (Battle of the Backbones, Goldblum et al. 2023)."""
    means = family_means(z_scores(scores), families)
    return np.round(np.mean(list(means.values()), axis=0), DECIMALS)


def ranks(values: np.ndarray) -> np.ndarray:
    """(…, n) 1 for the highest; equal values share the better rank and leave a gap behind (1, 2, 2, 4)."""
    return 1 + (values[..., None, :] > values[..., :, None]).sum(axis=-1)


def column_ranks(scores: np.ndarray) -> np.ndarray:
    """(…, n, m) rank of every row in every column, 1 for the highest; equal values share the mean of their ranks."""
    above = (scores[..., None, :, :] > scores[..., :, None, :]).sum(axis=-2)
    equal = (scores[..., None, :, :] == scores[..., :, None, :]).sum(axis=-2)
    return above + (equal + 1) / 2


def mean_ranks(scores: np.ndarray, families: Sequence[str]) -> np.ndarray:
    """(n,) mean rank per task family, then over families: families weigh alike, as in `overall`. Lower is better."""
    return np.mean(list(family_means(column_ranks(scores), families).values()), axis=0)


def borda(scores: np.ndarray) -> np.ndarray:
    """(n,) Borda count, every column one voter: rows beaten, plus half of those equalled, summed over columns."""
    return (scores.shape[-2] - column_ranks(scores)).sum(axis=-1)


def resample(scores: np.ndarray, low: np.ndarray, high: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """(draws, n, m) every score drawn anew from its own 95 % interval, as a normal split at the score into two halves.

    Scores are drawn independently. On shared test examples they rise and fall together, so differences between rows
    are known better than this says: ties found here are on the cautious side, `compare` has the paired answer.
    """
    normal = np.random.default_rng(seed).standard_normal((draws, *scores.shape))
    side = np.where(normal > 0, high - scores, scores - low) / NORMAL_95
    return scores + normal * side


def interval(drawn: np.ndarray, value: np.ndarray, whole: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(n,) low and high 95 % percentiles over the first axis of (draws, n), widened to hold `value`."""
    low = np.percentile(drawn, 2.5, axis=0, method="lower" if whole else "linear")
    high = np.percentile(drawn, 97.5, axis=0, method="higher" if whole else "linear")
    return np.minimum(low, value), np.maximum(high, value)


def tied(drawn: np.ndarray) -> np.ndarray:
    """(n, n) whether two rows cannot be told apart: neither is ahead in over 97.5 % of the resampled (draws, n)."""
    ahead = np.array([(drawn[:, row : row + 1] > drawn).mean(axis=0) for row in range(drawn.shape[1])])
    return np.maximum(ahead, ahead.T) <= 0.975


def tie_groups(same: np.ndarray) -> list[range]:
    """The largest runs of two or more neighbours (rows in ranked order) in which no two rows can be told apart.

    A row may stand in several groups: A = B and B = C do not make A = C (a compact letter display, Piepho 2004).
    """
    groups: list[range] = []
    for start in range(len(same)):
        end = start + 1
        while end < len(same) and same[end, start:end].all():
            end += 1
        if end - start > 1 and (not groups or end > groups[-1].stop):
            groups.append(range(start, end))
    return groups


def tie_marks(groups: Sequence[range], rows: int) -> list[tuple[str, ...]]:
    """The letters of its groups (a … z, a2 … z2, …) for every row; none for a row that stands alone."""
    marks: list[tuple[str, ...]] = [()] * rows
    for index, group in enumerate(groups):
        turn, letter = divmod(index, 26)
        for row in group:
            marks[row] += ("abcdefghijklmnopqrstuvwxyz"[letter] + (str(turn + 1) if turn else ""),)
    return marks
