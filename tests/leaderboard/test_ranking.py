"""Ranking against references in plain Python, on tables with many ties, and against truth that was simulated."""

import statistics

import numpy as np
import pytest
from backbench.leaderboard import drawing, ranking
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


def over_families(columns, families):
    """Of every row the mean over its columns in a family, then over families; `columns`: a list of numbers each."""
    found = []
    for row in range(len(columns[0])):
        per_family = {}
        for family, column in zip(families, columns, strict=True):
            per_family.setdefault(family, []).append(column[row])
        found.append(statistics.fmean(statistics.fmean(v) for v in per_family.values()))
    return found


def beaten(column, row):
    """Rows beaten in a column, those equalled by half."""
    others = [x for i, x in enumerate(column) if i != row]
    return sum((column[row] > x) + 0.5 * (column[row] == x) for x in others)


@given(tables, kinds)
def test_every_ranking_equals_its_reference(scores, families):
    families, rows = families[: scores.shape[1]], range(len(scores))
    columns = scores.T.tolist()
    found = ranking.rank(scores, None, None, families)
    z = [reference_z(c) for c in columns]
    assert found.z == pytest.approx(np.array(z).T, abs=1e-6)
    assert found.overall == pytest.approx(over_families(z, families), abs=1e-6)
    for family, values in found.by_family.items():
        own = [c for c, f in zip(z, families, strict=True) if f == family]
        assert values == pytest.approx(over_families(own, [family] * len(own)), abs=1e-6)
    assert list(found.by_family) == list(dict.fromkeys(families))
    assert found.rank.tolist() == rankdata([-v for v in found.overall], method="min").tolist()
    assert [found.rank[i] for i in found.order] == sorted(found.rank)
    places = [rankdata([-x for x in c]).tolist() for c in columns]
    assert found.mean_rank == pytest.approx(over_families(places, families))
    assert found.borda.tolist() == [sum(beaten(c, row) for c in columns) for row in rows]
    share = [[beaten(c, row) / (len(c) - 1) if len(c) > 1 else 0.5 for row in rows] for c in columns]
    assert found.win_rate == pytest.approx(over_families(share, families))


@given(tables)
def test_ranks_in_columns_share_the_mean(scores):
    expected = np.array([rankdata([-x for x in c]) for c in scores.T.tolist()]).T
    assert ranking.column_ranks(scores).tolist() == expected.tolist()


def test_z_scores_agree_with_scipy():
    scores = np.random.default_rng(0).normal(50, 9, (20, 7))
    np.testing.assert_allclose(ranking.z_scores(scores), zscore(scores, axis=0), atol=1e-12)


@given(arrays(float, st.tuples(st.integers(1, 3), st.integers(1, 9)), elements=numbers))
def test_places_leave_gaps_after_ties(values):
    expected = [[1 + sum(other > value for other in row) for value in row] for row in values.tolist()]
    assert drawing.places(values).tolist() == expected


FIELDS = ("rank", "overall", "z", "borda", "mean_rank", "win_rate")


@given(tables, kinds, st.randoms())
def test_order_of_rows_changes_nothing_to_the_last_bit(scores, families, random):
    families = families[: scores.shape[1]]
    order = list(range(len(scores)))
    random.shuffle(order)
    found, shuffled = (ranking.rank(table, None, None, families) for table in (scores, scores[order]))
    for field in FIELDS:
        assert (getattr(shuffled, field) == getattr(found, field)[order]).all(), field


def test_without_intervals_nothing_is_said_of_doubt():
    found = ranking.rank(np.array([[1.0], [1.0], [3.0]]), None, None, ["ood"])
    assert (found.rank_low, found.rank_high, found.overall_low, found.overall_high) == (None,) * 4
    assert found.ties == [(), (), ()]
    assert found.rank.tolist() == [2, 2, 1]
    assert found.order.tolist() == [2, 0, 1]


def test_rows_known_exactly_have_no_doubt_and_equal_ones_are_tied():
    scores = np.array([[1.0, 7.0], [4.0, 7.0], [1.0, 7.0], [9.0, 7.0]])
    found = ranking.rank(scores, scores, scores, ["ood", "retrieval"])
    assert found.rank.tolist() == found.rank_low.tolist() == found.rank_high.tolist() == [3, 2, 3, 1]
    for ends in (found.overall_low, found.overall_high):
        assert ends == pytest.approx(found.overall, abs=1e-5)
    assert found.ties == [("a",), (), ("a",), ()]


def test_one_row_is_first():
    found = ranking.rank(np.array([[3.0]]), np.array([[2.0]]), np.array([[5.0]]), ["ood"])
    assert (found.rank, found.rank_low, found.rank_high, found.overall, found.win_rate) == (1, 1, 1, 0, 0.5)


def noisy(rows, columns, seed=0):
    rng = np.random.default_rng(seed)
    scores = 50 + 9 * rng.normal(size=(rows, 1)) + 4 * rng.normal(size=(rows, columns))
    return scores, scores - rng.uniform(1, 5, scores.shape), scores + rng.uniform(1, 5, scores.shape)


def test_draws_are_standardised_anew_each_time():
    """Against the same in plain numpy, with normals of another generator: equal in distribution."""
    scores, low, high = noisy(7, 4)
    families = ["ood", "ood", "retrieval", "detection"]
    drawn = drawing.draw(scores, low, high, families, seed=1, draws=20_000)
    normal = np.random.default_rng(0).standard_normal((20_000, 7, 4))
    sides = np.stack([(scores - low) / 1.959964, (high - scores) / 1.959964])
    values = scores + normal * np.where(normal > 0, sides[1], sides[0])
    sample = np.random.default_rng(2).standard_normal((200_000, 1, 1))
    noise = (np.where(sample > 0, sides[1], sides[0]) * sample).var(axis=0).mean(axis=0) * 6 / 7
    variance = values.var(axis=1, keepdims=True)
    z = (values - values.mean(axis=1, keepdims=True)) / np.sqrt(np.maximum(variance - 2 * noise, 0.3 * variance))
    expected = np.mean([z[:, :, :2].mean(axis=2), z[:, :, 2], z[:, :, 3]], axis=0)
    for q in (2.5, 25, 50, 75, 97.5):
        np.testing.assert_allclose(np.percentile(drawn, q, axis=0), np.percentile(expected, q, axis=0), atol=0.02)
    assert drawn.std(axis=0).min() > 0.05


def test_draws_follow_the_seed_alone():
    scores, low, high = noisy(40, 6)
    families = ["ood", "ood", "retrieval", "detection", "detection", "detection"]
    first, again, other = (ranking.rank(scores, low, high, families, seed=s) for s in (3, 3, 4))
    for field in ("rank_low", "rank_high", "overall_low", "overall_high"):
        assert (getattr(first, field) == getattr(again, field)).all()
    assert first.ties == again.ties
    assert (first.overall_low != other.overall_low).any()
    np.testing.assert_allclose(first.overall_low, other.overall_low, atol=0.1)


def test_intervals_hold_the_rank_and_the_score():
    for seed in range(5):
        scores, low, high = noisy(30, 3, seed)
        found = ranking.rank(scores, low, high, ["ood", "ood", "retrieval"])
        assert (found.rank_low <= found.rank).all()
        assert (found.rank <= found.rank_high).all()
        assert (found.overall_low <= found.overall).all()
        assert (found.overall <= found.overall_high).all()


@given(arrays(float, st.tuples(st.integers(2, 9), st.integers(1, 6)), elements=st.integers(-3, 3).map(float)))
def test_places_among_true_scores(drawn):
    """By its definition, row by row: how many others, drawn nearer to the mean by their noise, lie above."""
    drawn = drawn.astype(np.float32)
    noise = drawn.var(axis=0, dtype=float)
    centred = drawn - drawn.mean(axis=1, keepdims=True)
    variance = float((centred.astype(float) ** 2).mean())
    true = max(variance - 2 * noise.mean(), 0.3 * variance)
    nearer = [np.float32(np.sqrt(true / (true + 2 * v))) if v else np.float32(1) for v in noise]
    expected = [
        [1 + sum(row[j] * nearer[j] > row[i] for j in range(len(row)) if j != i) for i in range(len(row))]
        for row in centred
    ]
    assert drawing.places_among_true(drawn).tolist() == expected


@given(st.lists(numbers, min_size=1, max_size=7), st.integers(0, 9))
def test_tie_groups_are_the_largest_runs_in_which_all_are_tied(values, seed):
    """Tied: neither is ahead in over 97.5 % of the draws."""
    drawn = (np.sort(values)[::-1] + np.random.default_rng(seed).normal(0, 0.5, (80, len(values)))).round(1)
    rows, n = drawn.T.tolist(), len(values)
    same = [
        [max(sum(a > b for a, b in zip(*pair, strict=True)) for pair in ((x, y), (y, x))) <= 78 for y in rows]
        for x in rows
    ]
    runs = [
        range(i, j)
        for i in range(n)
        for j in range(i + 2, n + 1)
        if all(same[a][b] for a in range(i, j) for b in range(i, j))
    ]
    largest = [r for r in runs if not any(r != o and o.start <= r.start and r.stop <= o.stop for o in runs)]
    assert drawing.tie_groups(drawing.places(drawn)) == largest
    marks = drawing.tie_marks(largest, n)
    for i in range(n - 1):
        assert bool(set(marks[i]) & set(marks[i + 1])) == same[i][i + 1]


def test_tie_marks_never_run_out():
    marks = drawing.tie_marks([range(i, i + 2) for i in range(60)], 61)
    letters = [m for row in marks for m in row]
    assert marks[0] == ("a",)
    assert marks[27] == ("a2", "b2")
    assert all(letters.count(m) == 2 for m in letters)


def coverage(rows, columns, noise, boards, even):
    """Share of rows whose intervals hold the true overall z-score, and the true rank; mean share of the ranks held.

    True scores are normal and go along between columns; they are seen with normal noise, of `noise` times their spread
    (even, or from 0.3 to 1.7 times as much), and with its honest 95 % intervals.
    """
    rng, families = np.random.default_rng([rows, columns]), [("ood", "retrieval", "knn")[j % 3] for j in range(columns)]
    score, place, width = [], [], []
    for board in range(boards):
        skill = rng.normal(size=(rows, 1))
        true = 50 + 10 * (0.8 * skill + 0.6 * rng.normal(size=(rows, columns)))
        deviation = 10 * noise * (1 if even else rng.uniform(0.3, 1.7, true.shape)) * np.ones_like(true)
        seen = true + deviation * rng.normal(size=true.shape)
        truth = over_families([reference_z(c) for c in true.T.tolist()], families)
        half = 1.959964 * deviation
        found = ranking.rank(seen, seen - half, seen + half, families, seed=board, draws=400)
        places = rankdata([-v for v in truth], method="min")
        score.append((found.overall_low <= truth) & (truth <= found.overall_high))
        place.append((found.rank_low <= places) & (places <= found.rank_high))
        width.append((found.rank_high - found.rank_low + 1) / rows)
    return np.mean(score), np.mean(place), np.mean(width)


@pytest.mark.parametrize(("rows", "boards"), [(6, 300), (20, 150), (100, 30)])
@pytest.mark.parametrize(("noise", "widest"), [(0.1, 0.3), (1.0, 0.7)])
def test_intervals_cover_the_truth(rows, boards, noise, widest):
    of_score, of_rank, width = coverage(rows, 9, noise, boards, even=True)
    assert 0.93 <= of_score <= 0.97
    assert of_rank >= 0.93
    assert width <= widest  # and they say something


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "boards"), [(6, 1500), (20, 600), (100, 150)])
@pytest.mark.parametrize("columns", [1, 4, 12])
@pytest.mark.parametrize("noise", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("even", [True, False])
def test_intervals_cover_the_truth_on_boards_of_every_shape(rows, boards, columns, noise, even):
    of_score, of_rank, width = coverage(rows, columns, noise, boards, even)
    assert 0.93 <= of_score <= 0.97
    assert of_rank >= 0.93
    assert width <= 0.85
