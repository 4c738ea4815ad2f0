"""Intervals from bootstrap weights: against their known widths, alone, by groups, and crossed with repetitions."""

import numpy as np
import pytest
from backbench.tasks import estimate
from backbench.tasks.measure import Measure, replicate
from hypothesis import given, settings
from hypothesis import strategies as st


def mean_of(values, **facts):
    values = np.asarray(values, dtype=float)
    return Measure(len(values), lambda w: {"mean": float(w @ values / w.sum())}, **facts)


def spread(measure):
    return replicate(measure)[:, 0].std()


def test_examples_on_their_own():
    values = np.random.default_rng(0).normal(size=400)
    assert spread(mean_of(values)) == pytest.approx(values.std() / 20, rel=0.1)


def test_groups_stand_or_fall_together():
    values = np.random.default_rng(0).normal(size=100)
    whole = mean_of(np.repeat(values, 5), groups=np.repeat([f"g{i}" for i in range(100)], 5))
    assert spread(whole) == pytest.approx(values.std() / 10, rel=0.1)


@settings(max_examples=20)
@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_crossed_weights_are_a_product(groups, trials, seed):
    """Every row's weight is that of its group times that of its trial, whatever the order of the rows."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(groups * trials)
    group, trial = np.arange(groups * trials)[order] % groups, np.arange(groups * trials)[order] // groups
    seen = []

    def scores(weights):
        seen.append(weights)
        return {"mean": 0.0}

    replicate(Measure(len(order), scores, groups=group, trials=trial, replicates=5), seed=seed % 100)
    for weights in seen:
        table = np.empty((trials, groups))
        table[trial, group] = weights
        assert np.linalg.matrix_rank(table) == 1
        assert table.sum() == groups * max(1, trials - 1)


def test_without_trials_the_weights_are_what_they_were():
    """The intervals of stored results must come out again."""
    seen = []
    replicate(Measure(6, lambda w: seen.append(w) or {"mean": 0.0}, groups=np.array(list("aabbcd")), replicates=2))
    rng = np.random.default_rng(0)
    for weights in seen:
        drawn = np.bincount(rng.integers(0, 4, 4), minlength=4)
        assert weights.tolist() == drawn[[0, 0, 1, 1, 2, 3]].tolist()


@pytest.mark.parametrize("trials", [2, 5, 20])
def test_luck_of_the_trials_alone_has_its_unbiased_variance(trials):
    levels = np.random.default_rng(1).normal(size=trials)
    measure = mean_of(
        np.repeat(levels, 50), groups=np.tile(np.arange(50), trials), trials=np.repeat(np.arange(trials), 50)
    )
    assert spread(measure) == pytest.approx(levels.std(ddof=1) / np.sqrt(trials), rel=0.1)


def test_trials_that_agree_add_nothing():
    values = np.random.default_rng(2).normal(size=200)
    once = spread(mean_of(values))
    crossed = mean_of(np.tile(values, 5), groups=np.tile(np.arange(200), 5), trials=np.repeat(np.arange(5), 200))
    assert spread(crossed) == pytest.approx(once, rel=0.1)
    # Taken for a thousand examples of their own, they would seem to be known better than they are.
    assert spread(mean_of(np.tile(values, 5))) < 0.6 * once


def covered(simulations, images, draws, sd_draw, seed=0):
    """How often the interval of the mean over draws holds the mean over all draws and images; right or wrong rows."""
    rng = np.random.default_rng(seed)

    def chances(draw, image, both):
        return 1 / (1 + np.exp(-(0.8 + sd_draw * draw + 1.5 * image + 0.8 * both)))

    truth = chances(*rng.normal(size=(3, 1_000_000))).mean()
    groups, trials = np.tile(np.arange(images), draws), np.repeat(np.arange(draws), images)
    hits = 0
    for _ in range(simulations):
        chance = chances(rng.normal(size=(draws, 1)), rng.normal(size=images), rng.normal(size=(draws, images)))
        right = (rng.random((draws, images)) < chance).reshape(-1)
        found = estimate(mean_of(right, groups=groups, trials=trials, replicates=300))["mean"]
        hits += found.low <= truth <= found.high
    return hits / simulations


def test_crossed_intervals_cover():
    assert covered(100, images=150, draws=5, sd_draw=0.3) >= 0.88  # 0.943 over 600 simulations of 500 images


@pytest.mark.slow
@pytest.mark.parametrize(("sd_draw", "least", "most"), [(0.0, 0.94, 1.0), (0.3, 0.91, 0.98), (0.6, 0.86, 0.96)])
def test_crossed_intervals_cover_at_length(sd_draw, least, most):
    """Where the draws decide all, five of them are few: 0.90 instead of 0.95."""
    assert least <= covered(500, images=300, draws=5, sd_draw=sd_draw) <= most


def test_one_trial_is_no_trial():
    values = np.random.default_rng(3).normal(size=50)
    one = mean_of(values, groups=np.arange(50), trials=np.zeros(50))
    assert spread(one) == pytest.approx(spread(mean_of(values)), rel=0.15)


def test_an_interval_holds_its_value_and_repeats():
    values = np.zeros(300)
    values[0] = 1  # most resamples miss or double it
    found = estimate(mean_of(values))
    assert found["mean"].low <= found["mean"].value <= found["mean"].high
    assert estimate(mean_of(values)) == found
    assert not np.array_equal(replicate(mean_of(values), seed=1), replicate(mean_of(values)))
    with pytest.raises(ValueError, match="no examples"):
        estimate(mean_of([]))
