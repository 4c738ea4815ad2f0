"""Agreement of observers: kappa against scikit-learn, distances against SciPy, errors against confusion matrices."""

import warnings
from itertools import product

import numpy as np
import pytest
from backbench.tasks.human.agreement import FARTHEST, Panel, between, defined, js_distances, mean
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import cohen_kappa_score, confusion_matrix


@st.composite
def answered(draw, observers=3):
    """Answers of observers to 1 to 25 images of 4 classes, some late, some not asked; labels; whole weights."""
    n = draw(st.integers(1, 25))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels, noise = rng.integers(0, 4, n), draw(st.floats(0, 1))
    answers = np.where(rng.random((observers, n)) < noise, rng.integers(-2, 4, (observers, n)), labels)
    return answers, labels, rng.integers(0, 4, n).astype(float)


def quietly(call, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*args, **options)


@settings(max_examples=150)
@given(answered())
def test_error_consistency_is_scikit_learns_kappa_on_what_both_were_asked(case):
    answers, labels, weights = case
    found = Panel(answers, labels, 4).kappas(weights)
    for a, b in product(range(3), repeat=2):
        both = (answers[a] != -2) & (answers[b] != -2) & (weights > 0)
        if not both.any():
            assert np.isnan(found[a, b])
            continue
        right = [(answers[i] == labels)[both] for i in (a, b)]
        if (right[0] == right[1]).all():
            assert found[a, b] == 1  # also where all is right, or all wrong: scikit-learn leaves that open
        else:
            want = cohen_kappa_score(*right, sample_weight=weights[both])
            assert found[a, b] == pytest.approx(want, abs=1e-12)


def test_kappa_of_all_right_all_wrong_and_one_of_each():
    labels = np.array([0, 1, 2, 3, 0, 1])
    wrong, mixed = (labels + 1) % 4, np.where(np.arange(6) < 2, labels, (labels + 1) % 4)
    kappas = Panel(np.stack([labels, labels, wrong, wrong, mixed]), labels, 4).kappas(np.ones(6))
    assert kappas[0, 1] == kappas[2, 3] == 1
    never = [kappas[0, 2], kappas[0, 4], kappas[2, 4]]
    assert never == pytest.approx([0, 0, 0], abs=1e-12)  # what never varies agrees by chance alone
    assert between(kappas[:2, :2]) == 1


@settings(max_examples=100)
@given(answered())
def test_errors_are_counted_as_by_scikit_learn(case):
    answers, labels, weights = case
    panel = Panel(answers, labels, 4)
    by_class, by_pair, shares = panel.class_errors(weights), panel.confusions(weights), panel.accuracies(weights)
    for observer, given_answers in enumerate(answers):
        asked = given_answers != -2
        if not weights[asked].any():
            assert not by_class[observer].any()
            assert not by_pair[observer].any()
            assert np.isnan(shares[observer])
            continue
        table = confusion_matrix(labels[asked], given_answers[asked], labels=range(-1, 4), sample_weight=weights[asked])
        wrong = table * (1 - np.eye(5))
        assert by_class[observer] == pytest.approx(wrong[1:].sum(axis=1))
        cells = wrong[1:, 1:].ravel()
        assert sorted(by_pair[observer][by_pair[observer] > 0]) == pytest.approx(sorted(cells[cells > 0]))
        assert shares[observer] == pytest.approx(np.trace(table) / table.sum())


@settings(max_examples=100)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_distances_are_scipys(cells, seed):
    rng = np.random.default_rng(seed)
    p, q = (rng.integers(0, 4, (3, cells)).astype(float) for _ in range(2))
    found = js_distances(p[:, None], q[None])
    for i, j in product(range(3), repeat=2):
        want = quietly(jensenshannon, p[i], q[j])
        assert found[i, j] == pytest.approx(want, abs=1e-7, nan_ok=True)
        assert np.isnan(found[i, j]) == (not p[i].any() or not q[j].any())
        assert not found[i, j] > FARTHEST + 1e-12


def test_distance_of_the_same_and_of_nothing_in_common():
    assert js_distances(np.array([1.0, 2, 0]), np.array([2.0, 4, 0])) == 0
    assert js_distances(np.array([1.0, 2, 0]), np.array([0.0, 0, 3])) == pytest.approx(FARTHEST)
    assert np.isnan(mean(js_distances(np.zeros((1, 3)), np.ones((2, 3)))))


def test_errors_spread_evenly_make_the_inter_class_distance_the_class_wise_one():
    rng = np.random.default_rng(0)
    errors = rng.integers(1, 9, (2, 4)).astype(float)
    spread = (errors[:, :, None] * (1 - np.eye(4)) / 3).reshape(2, -1)
    assert js_distances(spread[0], spread[1]) == pytest.approx(js_distances(errors[0], errors[1]))


def test_what_cannot_be_told_is_left_out():
    def tell(weights):
        return {"always": float(weights.sum()), "never": float("nan"), "some": 5.0 if weights[0] else float("nan")}

    scores = defined(tell, 3)
    assert scores(np.ones(3)) == {"always": 3, "some": 5}
    assert scores(np.array([0.0, 1, 1])) == {"always": 2, "some": 5}
