"""Ranking against references in plain Python, on tables with many ties."""

import statistics

import numpy as np
import pytest
from backbench.leaderboard import ranking
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata, zscore

# Few distinct values make ties; the odd ones make rounding matter.
numbers = st.sampled_from([0.0, 1.0, 2.0, 3.0, 0.1, 0.2, 0.3, 33.3, 66.6, 1e6 + 0.1])
tables = st.tuples(st.integers(1, 6), st.integers(1, 5)).flatmap(lambda shape: arrays(float, shape, elements=numbers))
kinds = st.lists(st.sampled_from(["classification", "ood", "retrieval"]), min_size=5, max_size=5)


def reference_z(column):
    mean, spread = statistics.fmean(column), statistics.pstdev(column)
    return [0.0 if len(set(column)) == 1 else (x - mean) / spread for x in column]


def reference_overall(scores, families):
    columns = [reference_z(c) for c in scores.T.tolist()]
    found = []
    for row in range(len(scores)):
        per_family = {}
        for family, column in zip(families, columns, strict=True):
            per_family.setdefault(family, []).append(column[row])
        found.append(statistics.fmean(statistics.fmean(v) for v in per_family.values()))
    return found


@given(tables)
def test_z_scores(scores):
    assert ranking.z_scores(scores) == pytest.approx(np.array([reference_z(c) for c in scores.T.tolist()]).T, abs=1e-6)
    assert np.isfinite(ranking.z_scores(scores)).all()


def test_z_scores_agree_with_scipy():
    scores = np.random.default_rng(0).normal(50, 9, (20, 7))
    np.testing.assert_allclose(ranking.z_scores(scores), zscore(scores, axis=0), atol=1e-12)


@given(tables, kinds)
def test_overall_is_mean_over_families_of_means_over_columns(scores, families):
    families = families[: scores.shape[1]]
    assert ranking.overall(scores, families) == pytest.approx(reference_overall(scores, families), abs=1e-6)


@given(st.lists(numbers, min_size=1, max_size=9))
def test_ranks_leave_gaps_after_ties(values):
    expected = [1 + sum(other > value for other in values) for value in values]
    assert ranking.ranks(np.array(values)).tolist() == expected
    assert rankdata([-v for v in values], method="min").tolist() == expected


@given(tables)
def test_borda_counts_the_beaten_and_half_the_equalled(scores):
    rows = scores.tolist()
    expected = [
        sum(
            (a > b) + 0.5 * (a == b)
            for other, theirs in enumerate(rows)
            if other != row
            for a, b in zip(mine, theirs, strict=True)
        )
        for row, mine in enumerate(rows)
    ]
    assert ranking.borda(scores).tolist() == expected


@given(tables, kinds)
def test_mean_rank(scores, families):
    families = families[: scores.shape[1]]
    by_column = [rankdata([-x for x in c]).tolist() for c in scores.T.tolist()]
    names = list(dict.fromkeys(families))
    expected = [
        statistics.fmean(
            statistics.fmean(c[row] for c, f in zip(by_column, families, strict=True) if f == name) for name in names
        )
        for row in range(len(scores))
    ]
    assert ranking.mean_ranks(scores, families) == pytest.approx(expected)


@given(tables, kinds, st.randoms())
def test_order_of_rows_changes_nothing_to_the_last_bit(scores, families, random):
    families = families[: scores.shape[1]]
    order = list(range(len(scores)))
    random.shuffle(order)
    shuffled = scores[order]
    assert (ranking.z_scores(shuffled) == ranking.z_scores(scores)[order]).all()
    assert (ranking.overall(shuffled, families) == ranking.overall(scores, families)[order]).all()
    assert (ranking.borda(shuffled) == ranking.borda(scores)[order]).all()
    assert (ranking.mean_ranks(shuffled, families) == ranking.mean_ranks(scores, families)[order]).all()


def test_resampling_follows_both_halves_of_the_interval():
    score, low, high = np.array([[50.0]]), np.array([[48.0]]), np.array([[51.0]])
    drawn = ranking.resample(score, low, high, 40_000, seed=3)[:, 0, 0]
    assert np.percentile(drawn, [2.5, 50, 97.5]) == pytest.approx([48, 50, 51], abs=0.05)
    assert (ranking.resample(score, low, high, 100, seed=3)[:, 0, 0] == drawn[:100]).all()
    assert (ranking.resample(score, score, score, 100, seed=3) == 50).all()


@given(st.lists(numbers, min_size=1, max_size=6), st.integers(0, 9))
def test_tied_unless_one_is_ahead_in_nearly_every_draw(values, seed):
    drawn = (np.array(values) + np.random.default_rng(seed).normal(0, 0.5, (80, len(values)))).round(1)
    rows = drawn.T.tolist()
    expected = [
        [max(sum(a > b for a, b in zip(*pair, strict=True)) for pair in ((x, y), (y, x))) <= 78 for y in rows]
        for x in rows
    ]
    assert ranking.tied(drawn).tolist() == expected


@given(st.integers(0, 7).flatmap(lambda n: arrays(bool, (n, n))))
def test_tie_groups_are_the_largest_runs_in_which_all_are_tied(same):
    same = same | same.T | np.eye(len(same), dtype=bool)
    n = len(same)
    runs = [
        range(i, j)
        for i in range(n)
        for j in range(i + 2, n + 1)
        if all(same[a, b] for a in range(i, j) for b in range(i, j))
    ]
    largest = [r for r in runs if not any(r != o and o.start <= r.start and r.stop <= o.stop for o in runs)]
    assert ranking.tie_groups(same) == largest
    marks = ranking.tie_marks(largest, n)
    for i in range(n - 1):
        assert bool(set(marks[i]) & set(marks[i + 1])) == same[i, i + 1]


def test_tie_marks_never_run_out():
    marks = ranking.tie_marks([range(i, i + 2) for i in range(60)], 61)
    letters = [m for row in marks for m in row]
    assert marks[0] == ("a",)
    assert marks[27] == ("a2", "b2")
    assert all(letters.count(m) == 2 for m in letters)
