"""Correlations against scipy, their intervals against simulated truth, and the sizes of pretraining sets."""

import math

import numpy as np
import pytest
from backbench.backbones import roster
from backbench.leaderboard import Board, headline_columns, size_correlations, task_correlations
from backbench.leaderboard.correlation import spearman
from backbench.leaderboard.pretraining import IMAGES, pretraining_images
from backbench.leaderboard.result import Identity
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

values = st.one_of(st.integers(0, 4).map(float), st.just(math.nan))


@given(st.lists(st.tuples(values, values), max_size=14))
def test_over_the_pairs_that_are_complete_it_is_scipys(pairs):
    a, b = np.array(pairs, dtype=float).reshape(-1, 2).T
    complete = [(x, y) for x, y in pairs if not (math.isnan(x) or math.isnan(y))]
    n, rho, low, high = spearman(a, b)
    assert n == len(complete)
    if n < 3 or any(len(set(side)) == 1 for side in zip(*complete, strict=True)):
        assert (rho, low, high) == (None, None, None)
        return
    assert rho == pytest.approx(spearmanr(*zip(*complete, strict=True)).statistic, abs=1e-12)
    if n < 4:
        assert (low, high) == (None, None)
    else:
        assert -1 <= low <= rho <= high <= 1
        assert high - low > 0
    assert spearman(b, a) == (n, rho, low, high)
    assert spearman(-a, b)[1] == pytest.approx(-rho)


@pytest.mark.parametrize(("r", "n"), [(0.0, 12), (0.6, 12), (0.9, 25), (-0.4, 60)])
def test_intervals_cover_the_truth(r, n):
    """Of two normal variables with correlation r, Spearman's is 6/π·asin(r/2)."""
    rng, truth, held = np.random.default_rng(n), 6 / math.pi * math.asin(r / 2), []
    for _ in range(800):
        x = rng.normal(size=n)
        y = r * x + math.sqrt(1 - r**2) * rng.normal(size=n)
        _, _, low, high = spearman(x, y)
        held.append(low <= truth <= high)
    assert 0.93 <= np.mean(held) <= 0.98


def test_every_two_columns_of_a_board(board):
    found = {(c.a, c.b): c for c in task_correlations(board)}
    keys = [c.key for c in board.columns]
    assert len(found) == len(keys) * (len(keys) - 1) / 2
    one = found["linear-probe", "knn"]
    scores = [[row.cells[key].value for row in board.rows] for key in ("linear-probe", "knn")]
    assert (one.n, one.among) == (6, "all")
    assert one.rho == pytest.approx(spearmanr(*scores).statistic)
    with_gaps = next(c for (a, b), c in found.items() if "zero-shot" in (a, b))
    assert (with_gaps.n, with_gaps.rho, with_gaps.low) == (1, None, None)


def test_lower_is_better_is_turned(gauntlet, content):
    turned = []
    for r in gauntlet:
        scores = r.model_dump(mode="json")["scores"]
        if r.task.name == "knn":
            scores = {key: score | {"higher_is_better": False} for key, score in scores.items()}
        turned.append(type(r).of(**r.model_dump(mode="json", include={*type(r).__mro__[1].model_fields} - {"scores"}),
                                 scores=scores, created=r.created))  # fmt: skip
    plain, other = ({(c.a, c.b): c.rho for c in task_correlations(Board.of(some, headline_columns(some)))}
                    for some in (gauntlet, turned))  # fmt: skip
    for pair, rho in plain.items():
        if rho is not None:
            assert other[pair] == pytest.approx(-rho if "knn" in pair else rho)


def test_scores_with_sizes_by_family_of_networks(board):
    found = {(c.a, c.b, c.among): c for c in size_correlations(board)}
    rows = [row for row in board.rows if row.facts.fact("family") == "cnn"]
    one = found["overall", "parameters", "cnn"]
    assert one.n == len(rows) == 3
    overall = [row.standing.overall for row in rows]
    assert one.rho == pytest.approx(spearmanr(overall, [row.facts.parameters for row in rows]).statistic)
    everyone = found["knn", "parameters", "all"]
    sizes = [row.facts.parameters for row in board.rows]
    assert everyone.rho == pytest.approx(spearmanr([r.cells["knn"].value for r in board.rows], sizes).statistic)
    assert found["overall", "images", "all"].n == 0  # nobody says how many digit scenes there are
    assert {among for _, _, among in found} == {"all", "cnn", "vit"}


def test_pretraining_images():
    def images(data):
        return pretraining_images(Identity(name="a", card={"pretraining": {"data": data}}))

    assert images("imagenet-1k") == 1_281_167
    assert images("ImageNet-21k+imagenet-1k") == images("imagenet-21k + imagenet-1k + imagenet-21k") == 15_478_289
    for unknown in ("none", "", "a secret", "imagenet-1k + a secret"):
        assert images(unknown) is None
    assert pretraining_images(Identity(name="a", card={})) is None


def test_most_sets_that_cards_name_are_counted():
    named = {part.strip() for row in roster.rows() if row["data"] for part in row["data"].split("+")}
    assert len(named & set(IMAGES)) >= 0.6 * len(named)
    assert set(IMAGES) - named <= {"laion-400m", "metaclip-400m"}  # no name is written otherwise than cards write it
    assert all(part == part.strip().lower() for part in IMAGES)
