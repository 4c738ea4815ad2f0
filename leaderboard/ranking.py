"""From a table of scores to ranks, with what can and cannot be told apart (numpy only).

Everywhere: `scores` (n, m) for n backbones and m columns, all of them higher-is-better and none missing; `families`
names the task family of each column. No function depends on the order of the rows, but for the draws of `rank`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .drawing import draw, interval, places, places_among_true, tie_groups, tie_marks

DRAWS = 1000  # of all scores from their intervals, for the intervals of ranks
DECIMALS = 9  # overall scores nearer than this are equal: the rest is rounding


@dataclass(frozen=True)
class Ranking:
    """Where n rows stand, each array in the order in which they were given; `order` (n,) lists them best first.

    `rank` (n,) from 1, `overall` (n,) mean z-score, `by_family` (n,) a family, `z` (n, m), `borda`, `mean_rank`,
    `win_rate` (n,). `…_low`, `…_high` (n,) bound 95 % intervals, None without those of the scores; `ties`: the letters
    of each row's tied groups.
    """

    order: np.ndarray
    rank: np.ndarray
    overall: np.ndarray
    by_family: dict[str, np.ndarray]
    z: np.ndarray
    borda: np.ndarray
    mean_rank: np.ndarray
    win_rate: np.ndarray
    ties: list[tuple[str, ...]]
    rank_low: np.ndarray | None = None
    rank_high: np.ndarray | None = None
    overall_low: np.ndarray | None = None
    overall_high: np.ndarray | None = None


def rank(
    scores: np.ndarray,
    low: np.ndarray | None,
    high: np.ndarray | None,
    families: Sequence[str],
    seed: int = 0,
    draws: int = DRAWS,
) -> Ranking:
    """The ranking of (n, m) `scores`, n ≥ 1, m ≥ 1; `low`, `high` (n, m) are the ends of their 95 % intervals.

    The overall score is the mean z-score per task family, then over families (Battle of the Backbones, Goldblum et al.
    2023); its interval is of the same mean of z-scores of the true scores, without noise (see `drawing`).

    Rows that are equal stand in the order given, and a row's draws go with its place in it: give rows in an order of
    their own, such as that of their names, and nothing depends on how they came. Without intervals there are no ties.
    """
    z = z_scores(scores)
    by_family = family_means(z, families)
    overall = np.round(np.mean(list(by_family.values()), axis=0), DECIMALS)
    in_columns = column_ranks(scores)
    place = places(overall)
    order = np.argsort(place, kind="stable")
    ranking: dict[str, Any] = {
        "order": order,
        "rank": place,
        "overall": overall,
        "by_family": by_family,
        "z": z,
        "borda": borda(in_columns),
        "mean_rank": mean_ranks(in_columns, families),
        "win_rate": win_rates(in_columns, families),
    }
    if low is None or high is None:
        return Ranking(**ranking, ties=[()] * len(scores))
    drawn = draw(scores, low, high, families, seed, draws)
    rank_low, rank_high = interval(places_among_true(drawn), place, whole=True)
    overall_low, overall_high = interval(drawn, overall)
    marks = tie_marks(tie_groups(places(drawn)[:, order]), len(order))
    ties = [marks[i] for i in np.argsort(order)]
    ranking |= {"rank_low": rank_low, "rank_high": rank_high, "overall_low": overall_low, "overall_high": overall_high}
    return Ranking(**ranking, ties=ties)


def z_scores(scores: np.ndarray) -> np.ndarray:
    """(n, m) z-scores of every column over the rows (population standard deviation); 0 where all rows are equal."""
    mean, spread = centre(scores)
    return standardise(scores, mean, spread)


def centre(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(m,) mean and population standard deviation of every column; the deviation of equal values is exactly 0."""
    ordered = np.sort(scores.T)  # sums of the same numbers in another order differ in the last bit
    return ordered.mean(axis=1), np.where(ordered[:, 0] == ordered[:, -1], 0.0, ordered.std(axis=1))


def standardise(scores: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """`scores` in standard deviations from the mean; 0 in columns without spread."""
    flat = spread == 0
    return np.where(flat, 0.0, (scores - mean) / np.where(flat, 1.0, spread))


def family_means(values: np.ndarray, families: Sequence[str]) -> dict[str, np.ndarray]:
    """(n,) mean over the columns of every family, families in order of appearance."""
    kinds = np.array(families)
    return {family: values[:, kinds == family].mean(axis=1) for family in dict.fromkeys(families)}


def column_ranks(scores: np.ndarray) -> np.ndarray:
    """(n, m) rank of every row in every column, 1 for the highest; equal values share the mean of their ranks."""
    below = -scores.T
    order = np.argsort(below, axis=1)
    ordered = np.take_along_axis(below, order, axis=1)
    position = np.arange(ordered.shape[1])
    new = np.diff(ordered, axis=1) != 0
    edge = np.ones((len(ordered), 1), dtype=bool)
    first = np.maximum.accumulate(np.where(np.hstack([edge, new]), position, 0), axis=1)
    last = np.where(np.hstack([new, edge]), position, position[-1])[:, ::-1]
    last = np.minimum.accumulate(last, axis=1)[:, ::-1]
    found = np.empty_like(ordered)
    np.put_along_axis(found, order, 1 + (first + last) / 2, axis=1)
    return found.T


def mean_ranks(in_columns: np.ndarray, families: Sequence[str]) -> np.ndarray:
    """(n,) mean of `column_ranks` per task family, then over families: they weigh alike, as in `overall`."""
    return np.mean(list(family_means(in_columns, families).values()), axis=0)


def borda(in_columns: np.ndarray) -> np.ndarray:
    """(n,) Borda count of `column_ranks`, every column one voter: rows beaten, plus half of those equalled, summed."""
    return (len(in_columns) - in_columns).sum(axis=1)


def win_rates(in_columns: np.ndarray, families: Sequence[str]) -> np.ndarray:
    """(n,) share of the other rows beaten, those equalled by half, of `column_ranks`: mean per family, then over
    families (mean win rate, HELM, Liang et al. 2023); 0.5 where there is no other row."""
    rows = len(in_columns)
    share = (rows - in_columns) / (rows - 1) if rows > 1 else np.full(in_columns.shape, 0.5)
    return np.mean(list(family_means(share, families).values()), axis=0)
