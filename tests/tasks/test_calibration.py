"""Calibration against torchmetrics and scikit-learn, and temperature scaling against scikit-learn's."""

from functools import partial

import numpy as np
import pytest
import torch
from backbench.tasks import Dataset, Split, estimate, find_task, read_predictions, write_predictions
from backbench.tasks.classification.accuracy import ranked
from backbench.tasks.classification.calibration import adaptive_ece, best_temperature
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss
from sklearn.preprocessing import StandardScaler
from torchmetrics.classification import MulticlassCalibrationError

TASK = find_task("calibration")
CLASSES = ("a", "b", "c", "d")


def logits_of(count, seed, sharpness=3.0):
    """Logits (n, 4) that are right more often than not, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    return torch.tensor(rng.normal(size=(count, 4)) * sharpness + 2 * np.eye(4)[labels]), labels


def stored(logits, labels, temperature=2.0):
    """Predictions and data of a test split."""
    split = Split(np.zeros((len(labels), 2, 2, 3), np.uint8), labels, "x")
    scaled = ranked((logits / temperature).softmax(dim=1), split)
    columns = ranked(logits.softmax(dim=1), split) | {f"scaled_{n}": c for n, c in scaled.items() if n != "id"}
    return columns, Dataset("few", "classification", CLASSES, {"test": lambda: split})


@pytest.mark.parametrize(("temperature", "which"), [(1.0, ""), (2.0, "scaled_")])
def test_scores_are_those_of_torchmetrics_and_scikit_learn(temperature, which):
    logits, labels = logits_of(400, 0)
    found = TASK.measure(*stored(logits, labels)).scores(np.ones(400))
    chances = (logits / temperature).softmax(dim=1)
    ece = MulticlassCalibrationError(num_classes=4, n_bins=15, norm="l1")(chances.float(), torch.tensor(labels))
    assert found[f"{which}ece"] == pytest.approx(100 * float(ece), abs=1e-3)
    assert found[f"{which}nll"] == pytest.approx(log_loss(labels, chances.numpy()), rel=1e-5)
    brier = brier_score_loss(labels, chances.numpy(), scale_by_half=False)
    assert found[f"{which}brier"] == pytest.approx(brier, rel=1e-5)
    assert list(found) == list(TASK.scores)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_adaptive_bins_hold_equally_many(times, seed):
    rng = np.random.default_rng(seed)
    top, right = rng.permutation(np.linspace(0.1, 1, 15 * times)), rng.integers(0, 2, 15 * times).astype(float)
    order = np.argsort(top)
    gaps = [abs((top[of] - right[of]).sum()) for of in np.array_split(order, 15)]
    assert adaptive_ece(top, right)(np.ones(len(top))) == pytest.approx(100 * sum(gaps) / len(top))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_a_weight_of_two_is_an_image_twice_in_any_order(count, values, seed):
    rng = np.random.default_rng(seed)
    top, right = rng.integers(1, values + 1, count) / values, rng.integers(0, 2, count).astype(float)
    weights = rng.integers(0, 4, count)
    weights[0] += 1
    copies = rng.permutation(np.repeat(np.arange(count), weights))
    found = adaptive_ece(top, right)(weights.astype(float))
    assert found == pytest.approx(adaptive_ece(top[copies], right[copies])(np.ones(len(copies))))


def test_one_confidence_is_one_bin():
    found = adaptive_ece(np.full(40, 0.7), np.repeat([1.0, 0.0], 20))(np.ones(40))
    assert found == pytest.approx(20)


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are its logits."""

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, x):
        return x

    def predict(self, x):
        return self.classes_[x.argmax(axis=1)]


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 6.0])
def test_the_temperature_is_scikit_learns(sharpness):
    logits, labels = logits_of(300, 1, sharpness)
    x = logits.numpy()
    theirs = CalibratedClassifierCV(FrozenEstimator(Given().fit(x, labels)), method="temperature").fit(x, labels)
    temperature = best_temperature(logits, torch.tensor(labels))
    np.testing.assert_allclose((logits / temperature).softmax(dim=1), theirs.predict_proba(x), atol=2e-3)


def test_no_temperature_is_likelier():
    logits, labels = logits_of(300, 2)
    own = torch.tensor(labels)

    def nll(temperature):
        return float(torch.nn.functional.cross_entropy(logits / temperature, own))

    best = best_temperature(logits, own)
    assert all(nll(best) <= nll(best * factor) for factor in (0.5, 0.99, 1.01, 2))


def test_temperatures_of_odd_logits_are_defined():
    labels = torch.tensor([0, 1, 2, 3])
    assert best_temperature(torch.ones(4, 4).double(), labels) == 1  # nothing to divide
    assert best_temperature(torch.ones(4, 1).double(), torch.zeros(4).long()) == 1  # one class
    assert 1e-4 <= best_temperature(torch.eye(4).double(), labels) < 0.03  # always right: as sure as can be told
    assert best_temperature(-torch.eye(4).double(), labels) > 5e3  # always wrong: even chances


@pytest.fixture
def many(make_split):
    """Enough squares for a temperature to be found well."""
    sizes = {"train": (240, 31), "val": (200, 32), "test": (400, 33)}
    return Dataset("many", "classification", ("red", "green", "blue", "grey"), {
        name: partial(make_split, *size, noise=60) for name, size in sizes.items()
    })  # fmt: skip


def test_the_probe_is_scikit_learns_on_training_images(make_backbone, many, context, tmp_path):
    outcome = TASK.run(make_backbone(), many, TASK.recipe({"c": [1e-3, 1e-2]}), context)
    x, x_test = (context.embeddings(make_backbone(), many[name]).double().numpy() for name in ("train", "test"))
    scaler = StandardScaler().fit(x)
    probe = LogisticRegression(C=outcome.chosen["c"], max_iter=1000).fit(scaler.transform(x), many["train"].targets)
    expected = probe.predict_proba(scaler.transform(x_test))
    np.testing.assert_allclose(outcome.predictions["probabilities"][:, 0], expected.max(axis=1), atol=2e-3)
    write_predictions(outcome.predictions, tmp_path / "p.parquet")
    found = estimate(TASK.measure(read_predictions(tmp_path / "p.parquet"), many))
    assert list(found) == list(TASK.scores)
    again = TASK.run(make_backbone(), many, TASK.recipe({"c": [1e-3, 1e-2]}), context)
    assert again.chosen == outcome.chosen


def test_a_probe_that_is_too_unsure_is_mended(make_backbone, many, context):
    """The strongest penalty leaves all chances near even; scaling finds out how sure it may be."""
    outcome = TASK.run(make_backbone(), many, TASK.recipe({"c": [1e-5]}), context)
    found = TASK.measure(outcome.predictions, many).scores(np.ones(400))
    assert 1e-4 < outcome.chosen["temperature"] < 0.02
    assert found["scaled_ece"] < found["ece"] / 5
    assert found["scaled_nll"] < found["nll"]


def test_its_picture_tells_both_errors(make_backbone, squares_data, context):
    data = squares_data()
    predictions = TASK.run(make_backbone(), data, TASK.recipe(), context).predictions
    found = TASK.measure(predictions, data).scores(np.ones(len(data["test"])))
    titles = [axes.get_title() for axes in TASK.picture(predictions, data).axes]
    assert titles == [f"As it is: ECE {found['ece']:.1f} %", f"Temperature scaled: ECE {found['scaled_ece']:.1f} %"]
