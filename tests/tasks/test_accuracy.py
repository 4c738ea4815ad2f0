"""Accuracy and calibration of stored predictions against scikit-learn and torchmetrics."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput
from backbench.tasks import Split, estimate
from backbench.tasks.classification.accuracy import accuracy, ranked
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, recall_score, top_k_accuracy_score
from torchmetrics.functional.classification import multiclass_calibration_error


def split_of(labels):
    return Split(
        np.zeros((len(labels), 2, 2, 3), np.uint8), np.asarray(labels), "none", [f"i{i}" for i in range(len(labels))]
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_accuracies_are_scikit_learns(count, classes, seed):
    rng = np.random.default_rng(seed)
    probabilities, labels = rng.dirichlet(np.ones(classes), count), rng.integers(0, classes, count)
    weights = rng.integers(0, 4, count).astype(float)
    weights[0] += 1
    measure = accuracy(ranked(torch.tensor(probabilities), split_of(labels)), split_of(labels))
    found, best = measure.scores(weights), probabilities.argmax(1)
    assert found["top1"] == pytest.approx(100 * accuracy_score(labels, best, sample_weight=weights))
    if classes > 5:
        top5 = top_k_accuracy_score(labels, probabilities, k=5, labels=np.arange(classes), sample_weight=weights)
        assert found["top5"] == pytest.approx(100 * top5)
    else:
        assert found["top5"] == pytest.approx(100)
    there = np.unique(labels[weights > 0])
    recall = recall_score(labels, best, labels=there, average="macro", sample_weight=weights, zero_division=0)
    assert found["mean_per_class"] == pytest.approx(100 * recall)


def test_equal_probabilities_go_to_the_lower_class():
    predictions = ranked(torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.1, 0.4, 0.4, 0.1]]), split_of([0, 2]))
    assert predictions["classes"].tolist() == [[0, 1, 2, 3], [1, 2, 0, 3]]


def test_an_image_of_no_class_is_never_right():
    measure = accuracy(ranked(torch.eye(3), split_of([-1, 1, 2])), split_of([-1, 1, 2]))
    assert measure.scores(np.ones(3))["top1"] == pytest.approx(200 / 3)


def test_predictions_of_other_images_are_refused():
    predictions = ranked(torch.eye(3), split_of([0, 1, 2]))
    with pytest.raises(BadInput, match="3 images, the split has 2"):
        accuracy(predictions, split_of([0, 1]))
    predictions["id"] = predictions["id"][::-1]
    with pytest.raises(BadInput, match="row 0 is for image 'i2'"):
        accuracy(predictions, split_of([0, 1, 2]))


def test_one_example_and_one_class():
    found = estimate(accuracy(ranked(torch.ones(1, 1), split_of([0])), split_of([0])))
    assert {n: e.value for n, e in found.items()} == {
        "top1": 100,
        "top5": 100,
        "mean_per_class": 100,
        "ece": 0,
        "nll": 0,
        "brier": 0,
    }


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(2, 12), st.floats(0.05, 5), st.integers(0, 2**32 - 1))
def test_likelihood_and_brier_score_are_scikit_learns(count, classes, sharp, seed):
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.full(classes, sharp), count).clip(1e-6)
    chances /= chances.sum(axis=1, keepdims=True)
    labels, weights = rng.integers(0, classes, count), rng.integers(0, 4, count).astype(float)
    weights[0] += 1
    found = accuracy(ranked(torch.tensor(chances), split_of(labels)), split_of(labels)).scores(weights)
    every = np.arange(classes)
    assert found["nll"] == pytest.approx(
        log_loss(labels, chances, sample_weight=weights, labels=every), rel=1e-6, abs=1e-6
    )
    onehot = labels[:, None] == every
    brier = np.average(((chances - onehot) ** 2).sum(axis=1), weights=weights)
    assert found["brier"] == pytest.approx(brier, abs=1e-6)
    if classes > 2:
        own = brier_score_loss(labels, chances, sample_weight=weights, labels=every, scale_by_half=False)
        assert found["brier"] == pytest.approx(own, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.integers(2, 12), st.floats(0.05, 5), st.integers(0, 2**32 - 1))
def test_calibration_error_is_torchmetrics(count, classes, sharp, seed):
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.full(classes, sharp), count).astype(np.float32)
    chances /= chances.sum(axis=1, keepdims=True)
    chances = np.minimum(chances, np.nextafter(np.float32(1), np.float32(0)))  # for 1 torchmetrics has a bin of its own
    labels = rng.integers(0, classes, count)
    found = accuracy(ranked(torch.tensor(chances), split_of(labels)), split_of(labels)).scores(np.ones(count))
    reference = multiclass_calibration_error(torch.tensor(chances), torch.tensor(labels), classes, n_bins=15)
    assert found["ece"] == pytest.approx(100 * float(reference), abs=1e-4)


def test_weights_are_copies_of_images():
    rng = np.random.default_rng(0)
    chances, labels, weights = rng.dirichlet(np.ones(7), 40), rng.integers(0, 7, 40), rng.integers(0, 3, 40)
    rows = np.repeat(np.arange(40), weights)
    weighed = accuracy(ranked(torch.tensor(chances), split_of(labels)), split_of(labels)).scores(weights.astype(float))
    copied = accuracy(ranked(torch.tensor(chances[rows]), split_of(labels[rows])), split_of(labels[rows]))
    assert weighed == pytest.approx(copied.scores(np.ones(len(rows))))


def test_a_class_that_was_ruled_out_costs_a_finite_likelihood():
    found = accuracy(ranked(torch.eye(3), split_of([1, 1, 2])), split_of([1, 1, 2])).scores(np.ones(3))
    assert found["nll"] == pytest.approx(-np.log(np.finfo(np.float32).eps) / 3)
    assert found["brier"] == pytest.approx(2 / 3)


def test_accepted_classes_are_right_and_images_without_any_are_left_out():
    split = replace(split_of([0, 1, 2, 0]), accepted=[[0], [2, 0], [], [1]])
    measure = accuracy(ranked(torch.eye(3)[[0, 2, 2, 0]], split), split)
    assert measure.scores(np.ones(4))["real_top1"] == pytest.approx(200 / 3)
    assert measure.scores(np.array([0, 0, 1.0, 1.0]))["real_top1"] == 0
    assert "real_top1" not in accuracy(ranked(torch.eye(3), split_of([0, 1, 2])), split_of([0, 1, 2])).scores(
        np.ones(3)
    )


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("probabilities", np.nan),
        ("probabilities", 0.9),  # the sum is beyond one
        ("label_probability", 0.99),  # the stored five say otherwise
        ("label_probability", np.nan),
        ("square_sum", 0.0),
        ("square_sum", 5.0),
        ("square_sum", np.nan),
    ],
)
@pytest.mark.parametrize("label", [0, 7])  # the best, and one that is not among the five
def test_forged_columns_are_refused(column, value, label):
    chances = torch.tensor([[0.3, 0.2, 0.15, 0.1, 0.09, 0.07, 0.05, 0.04]], dtype=torch.double)
    predictions = ranked(chances, split_of([label]))
    accuracy(predictions, split_of([label]))
    predictions[column] = np.full_like(predictions[column], value)
    with pytest.raises(BadInput, match=f"row 0: {column}"):
        accuracy(predictions, split_of([label]))
