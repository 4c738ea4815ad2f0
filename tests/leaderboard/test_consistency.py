"""Error consistency between backbones: scikit-learn's kappa of stored answers, with intervals, pair by pair."""

import numpy as np
import pytest
from backbench.backbones import BadInput
from backbench.leaderboard import error_consistency
from backbench.tasks.measure import Measure
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import cohen_kappa_score, confusion_matrix

LABELS = np.random.default_rng(2).integers(0, 5, 400)


def answers(seed, wrong):
    """Answers to LABELS, of which a share is wrong."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(400) < wrong, rng.integers(0, 5, 400), LABELS)


ANSWERS = {"mini/a": answers(1, 0.5), "mini/b": answers(2, 0.4), "mini/right": LABELS}
ANSWERS["mini/alike"] = np.where(np.arange(400) < 360, ANSWERS["mini/a"], ANSWERS["mini/b"])


def measure_of(result, **facts):
    given = ANSWERS[result.backbone.name] if result.seed == 0 else answers(10 + result.seed, 0.5)
    return Measure(400, lambda w: {"top1": float(w @ (given == LABELS))}, answers=given, labels=LABELS, **facts)


def distance(one, other):
    return jensenshannon(np.ravel(one), np.ravel(other))


def test_it_is_scikit_learns_kappa(result):
    (found,) = error_consistency([[result("mini/a")], [result("mini/b")]], measure_of)
    a, b = ANSWERS["mini/a"], ANSWERS["mini/b"]
    assert found.kappa == pytest.approx(cohen_kappa_score(a == LABELS, b == LABELS))
    assert found.low < found.kappa < found.high
    assert (found.a, found.b) == pytest.approx((100 * np.mean(a == LABELS), 100 * np.mean(b == LABELS)))
    assert found.agreement == pytest.approx(100 * np.mean((a == LABELS) == (b == LABELS)))
    wrong = [confusion_matrix(LABELS, x) * (1 - np.eye(5)) for x in (a, b)]
    assert found.interclass_js == pytest.approx(distance(*wrong))
    assert found.classwise_js == pytest.approx(distance(*(w.sum(axis=1) for w in wrong)))
    assert (found.task, found.examples, found.seeds_a, found.seeds_b) == ("linear-probe", 400, 1, 1)


def test_the_interval_is_as_wide_as_the_statistic_varies(result):
    """The replicates' spread is that of kappa over fresh examples of the same two classifiers."""
    rng, fresh = np.random.default_rng(0), []
    for _ in range(400):
        right = rng.random((3, 400)) < 0.6
        fresh.append(cohen_kappa_score(right[0], np.where(right[2], right[0], right[1])))
    right = rng.random((3, 400)) < 0.6
    two = {"mini/a": right[0], "mini/b": np.where(right[2], right[0], right[1])}

    def measured(of):
        given = np.where(two[of.backbone.name], LABELS, (LABELS + 1) % 5)
        return Measure(400, lambda w: {}, answers=given, labels=LABELS)

    (found,) = error_consistency([[result("mini/a")], [result("mini/b")]], measured)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(np.std(fresh), rel=0.2)


def test_examples_of_one_thing_count_as_one(result):
    sides = [[result("mini/a")], [result("mini/b")]]
    (alone,) = error_consistency(sides, measure_of)
    (grouped,) = error_consistency(sides, lambda r: measure_of(r, groups=np.arange(400) // 40))
    assert grouped.kappa == alone.kappa
    assert (grouped.low, grouped.high) != (alone.low, alone.high)


def test_the_same_answers_and_no_errors(result):
    (same,) = error_consistency([[result("mini/a")], [result("mini/a")]], measure_of)
    assert (same.kappa, same.low, same.high, same.agreement) == (1, 1, 1, 100)
    assert same.classwise_js == same.interclass_js == 0
    (right,) = error_consistency([[result("mini/a")], [result("mini/right")]], measure_of)
    assert right.kappa == pytest.approx(0, abs=1e-12)
    assert right.classwise_js is right.interclass_js is None


def test_images_of_none_of_the_classes_are_left_out(result):
    def unknown_first(of):
        given = ANSWERS[of.backbone.name]
        return Measure(400, lambda w: {}, answers=given, labels=np.where(np.arange(400) < 100, -1, LABELS))

    (found,) = error_consistency([[result("mini/a")], [result("mini/b")]], unknown_first)
    right = [(ANSWERS[name] == LABELS)[100:] for name in ("mini/a", "mini/b")]
    assert (found.examples, found.kappa) == (300, pytest.approx(cohen_kappa_score(*right)))


def test_seeds_are_averaged_over_pairs(result):
    ours, theirs = [result("mini/a", seed=s) for s in range(2)], [result("mini/b")]
    (found,) = error_consistency([ours, theirs], measure_of)
    b = ANSWERS["mini/b"] == LABELS
    each = [cohen_kappa_score(measure_of(r).answers == LABELS, b) for r in ours]
    assert found.kappa == pytest.approx(np.mean(each))
    assert (found.seeds_a, found.seeds_b) == (2, 1)


def test_every_two_of_several(result):
    sides = [[result(name)] for name in ("mini/a", "mini/b", "mini/alike")]
    found = error_consistency(sides, measure_of)
    names = [(c.backbone_a, c.backbone_b) for c in found]
    assert names == [("mini/a", "mini/b"), ("mini/a", "mini/alike"), ("mini/b", "mini/alike")]
    assert found[1].kappa > found[0].high
    assert found[1].interclass_js < found[0].interclass_js


def test_what_keeps_no_answers_cannot_be_asked(result):
    def silent(_):
        return Measure(400, lambda w: {})

    with pytest.raises(BadInput, match="mini/a and mini/b have no task in common that keeps one answer an example"):
        error_consistency([[result("mini/a")], [result("mini/b")]], silent)
    with pytest.raises(BadInput, match="a side has no results"):
        error_consistency([[result("mini/a")], []], measure_of)
