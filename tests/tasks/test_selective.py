"""Selective classification against brute force over all orders of equally sure answers."""

from itertools import permutations

import numpy as np
import pytest
from backbench.backbones import BadInput
from backbench.tasks import estimate, find_task, read_predictions, write_predictions
from backbench.tasks.classification.selective import Answers
from hypothesis import assume, given, settings
from hypothesis import strategies as st

TASK = find_task("selective")


def orders(top):
    """All orders by falling confidence, those of equals included."""
    return [order for order in permutations(range(len(top))) if (np.diff(top[list(order)]) <= 0).all()]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_areas_and_risks_are_means_over_all_orders(count, values, seed):
    rng = np.random.default_rng(seed)
    top, right = rng.integers(0, values, count).astype(float), rng.integers(0, 2, count).astype(float)
    curve = Answers(top, right).at(np.ones(count))
    wrong = np.array([np.cumsum(1 - right[list(order)]) for order in orders(top)])
    risks = wrong / np.arange(1, count + 1)
    assert curve.area() == pytest.approx(risks.mean())
    for answered in range(1, count + 1):
        assert curve.risk(answered / count) == pytest.approx(risks[:, answered - 1].mean())
    best = min((np.cumsum(1 - right[list(o)]) / np.arange(1, count + 1)).mean() for o in permutations(range(count)))
    assert curve.least_area() == pytest.approx(best)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 10), st.sampled_from([0.0, 0.01, 0.05, 0.3, 0.5]), st.integers(0, 2**32 - 1))
def test_coverage_is_the_largest_of_all_thresholds(count, values, risk, seed):
    rng = np.random.default_rng(seed)
    top, right = rng.integers(0, values, count).astype(float), rng.random(count) < 0.8
    fine = [(top >= t).mean() for t in np.unique(top) if (~right[top >= t]).mean() <= risk]
    assert Answers(top, right.astype(float)).at(np.ones(count)).coverage(risk) == pytest.approx(max(fine, default=0))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_a_weight_of_two_is_an_image_twice(count, values, seed):
    rng = np.random.default_rng(seed)
    top, right = rng.integers(0, values, count).astype(float), rng.integers(0, 2, count).astype(float)
    weights = rng.integers(0, 4, count)
    assume(weights.any())
    copies = np.repeat(np.arange(count), weights)
    ours = Answers(top, right).at(weights.astype(float))
    theirs = Answers(top[copies], right[copies]).at(np.ones(len(copies)))
    for name, arguments in (("area", ()), ("least_area", ()), ("coverage", (0.2,)), ("risk", (0.8,)), ("risk", (0.9,))):
        assert getattr(ours, name)(*arguments) == pytest.approx(getattr(theirs, name)(*arguments), abs=1e-12)


def test_the_best_order_has_no_excess():
    curve = Answers(np.array([4.0, 3, 2, 1]), np.array([1.0, 1, 1, 0])).at(np.ones(4))
    assert curve.area() == pytest.approx(curve.least_area()) == pytest.approx(1 / 16)
    assert curve.coverage(0.01) == 0.75


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_all_right_or_all_wrong(right):
    curve = Answers(np.arange(8.0), np.full(8, right)).at(np.ones(8))
    assert curve.area() == pytest.approx(1 - right)
    assert curve.least_area() == pytest.approx(1 - right)
    assert curve.coverage(0.01) == right
    assert curve.risk(0.8) == pytest.approx(1 - right)


def test_it_scores_from_stored_predictions(make_backbone, squares_data, context, tmp_path):
    data = squares_data()
    outcome = TASK.run(make_backbone(), data, TASK.recipe(), context)
    write_predictions(outcome.predictions, tmp_path / "p.parquet")
    predictions = read_predictions(tmp_path / "p.parquet")
    found = estimate(TASK.measure(predictions, data))
    assert list(found) == list(TASK.scores)
    for name, score in found.items():
        assert TASK.scores[name].low <= score.low <= score.value <= score.high <= TASK.scores[name].high
    right = predictions["classes"][:, 0] == data["test"].targets
    # 50 images, few of them equally sure: the first forty of any order that sorts them.
    top = predictions["probabilities"][:, 0]
    assert len(np.unique(top)) == 50
    surest = np.argsort(-top)[:40]
    assert found["accuracy_at_coverage_80"].value == pytest.approx(100 * right[surest].mean())
    assert found["excess_aurc"].value <= found["aurc"].value


def test_other_images_and_impossible_chances_are_refused(make_backbone, squares_data, context):
    data = squares_data()
    predictions = TASK.run(make_backbone(), data, TASK.recipe(), context).predictions
    with pytest.raises(BadInput, match="predictions are for 49 images"):
        TASK.measure({name: column[:-1] for name, column in predictions.items()}, data)
    with pytest.raises(BadInput, match="row 0: probabilities"):
        TASK.measure(predictions | {"probabilities": predictions["probabilities"] * 2}, data)


def test_its_picture_names_the_areas(make_backbone, squares_data, context):
    data = squares_data()
    predictions = TASK.run(make_backbone(), data, TASK.recipe(), context).predictions
    found = TASK.measure(predictions, data).scores(np.ones(len(data["test"])))
    (axes,) = TASK.picture(predictions, data).axes
    told = [text.get_text() for text in axes.get_legend().get_texts()]
    assert told[0] == f"by confidence, area {found['aurc']:.2f} %"
    assert told[1] == f"best order, area {found['aurc'] - found['excess_aurc']:.2f} %"
