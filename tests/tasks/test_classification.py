"""Frozen classification tasks against scikit-learn, and their edge cases."""

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput, NotApplicable
from backbench.tasks import Dataset, Split, estimate, find_task, read_predictions, write_predictions
from backbench.tasks.classification.accuracy import accuracy, ranked
from backbench.tasks.classification.knn import votes
from backbench.tasks.classification.linear_probe import Fit
from backbench.tasks.classification.zero_shot import class_embeddings
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, recall_score, top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

TASKS = ["linear-probe", "knn", "zero-shot"]


def split_of(labels):
    return Split(
        np.zeros((len(labels), 2, 2, 3), np.uint8), np.asarray(labels), "none", [f"i{i}" for i in range(len(labels))]
    )


# -- accuracy ------------------------------------------------------------------------------------------------------


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
    assert {e.value for e in found.values()} == {100.0}


# -- linear probe --------------------------------------------------------------------------------------------------


def blobs(seed, count=200, width=12, classes=4, spread=3.0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, count)
    x = rng.normal(size=(classes, width))[y] + spread * rng.normal(size=(count, width))
    return x * np.exp(rng.normal(size=width)) + rng.normal(size=width), y


@pytest.mark.parametrize("c", [1e-4, 1e-2, 1.0, 100.0])
@pytest.mark.parametrize("width", [12, 300])  # more features than examples, too
def test_the_probe_is_scikit_learns(c, width):
    x, y = blobs(0, width=width)
    reference = LogisticRegression(C=c, tol=1e-10, max_iter=100_000)
    scaler = StandardScaler().fit(x)
    reference.fit(scaler.transform(x), y)
    probe = Fit(torch.tensor(x), torch.tensor(y), 4).probe(c, 1000)
    expected = reference.predict_proba(scaler.transform(x))
    np.testing.assert_allclose(probe.probabilities(torch.tensor(x)).numpy(), expected, atol=2e-3)
    reached = objective(probe.weight.numpy(), probe.bias.numpy(), scaler.transform(x), y, c)
    assert reached - objective(reference.coef_, reference.intercept_, scaler.transform(x), y, c) < 1e-6 * c * len(x)


def objective(weight, bias, x, y, c):
    logits = x @ weight.T + bias
    log_sum = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
    return c * (log_sum - logits[np.arange(len(y)), y]).sum() + (weight**2).sum() / 2


def test_features_that_say_nothing_change_nothing():
    x, y = blobs(1)
    constant = np.concatenate([x, np.full((len(x), 1), 7.0), np.zeros((len(x), 1))], axis=1)
    plain = Fit(torch.tensor(x), torch.tensor(y), 4).probe(0.1, 500)
    padded = Fit(torch.tensor(constant), torch.tensor(y), 4).probe(0.1, 500)
    torch.testing.assert_close(
        plain.probabilities(torch.tensor(x)), padded.probabilities(torch.tensor(constant)), atol=1e-4, rtol=0
    )


def test_a_class_without_examples_is_never_predicted():
    x, y = blobs(2, classes=3)
    probe = Fit(torch.tensor(x), torch.tensor(y), 5).probe(0.1, 500)
    assert set(probe.probabilities(torch.tensor(x)).argmax(1).tolist()) <= {0, 1, 2}


def test_the_probe_does_not_hang_on_threads():
    x, y = blobs(3, count=2000, width=64)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(Fit(torch.tensor(x), torch.tensor(y), 4).probe(0.1, 50).weight)
    torch.set_num_threads(1)
    assert torch.equal(*found)


# -- k-NN ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 5, 30, 1000])
def test_votes_are_scikit_learns(k):
    (x, y), (queries, _) = blobs(4), blobs(5, count=50)
    ((_, shares),) = votes(torch.tensor(x), torch.tensor(y), torch.tensor(queries), range(4), [k], 0.07)
    reference = KNeighborsClassifier(min(k, len(x)), metric="cosine", weights=lambda d: np.exp((1 - d - 1) / 0.07))
    np.testing.assert_allclose(shares.numpy(), reference.fit(x, y).predict_proba(queries), atol=1e-9)


def test_a_zero_embedding_still_gets_a_vote():
    ((_, shares),) = votes(torch.eye(3), torch.tensor([0, 1, 1]), torch.zeros(1, 3), range(2), [3], 0.07)
    torch.testing.assert_close(shares, torch.tensor([[1 / 3, 2 / 3]], dtype=torch.double))


# -- zero-shot -----------------------------------------------------------------------------------------------------


def test_class_embeddings_are_means_of_unit_vectors(make_backbone):
    backbone = make_backbone(text=True)
    found = class_embeddings(backbone, ["red", "blue"], ["a {}", "{} and green"])
    for row, name in zip(found, ["red", "blue"], strict=True):
        each = backbone.embed_text([f"a {name}", f"{name} and green"]).double()
        mean = (each / each.norm(dim=1, keepdim=True)).mean(0)
        torch.testing.assert_close(row, mean / mean.norm())


def test_without_a_text_tower_there_is_no_zero_shot(make_backbone):
    with pytest.raises(NotApplicable, match="no text tower"):
        find_task("zero-shot").check_backbone(make_backbone())


# -- the tasks, whole ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_learns_repeats_and_scores_from_stored_predictions(name, make_backbone, squares_data, context, tmp_path):
    task, data, backbone = find_task(name), squares_data(), make_backbone(text=True)
    task.check_data(data)
    outcome = task.run(backbone, data, task.recipe(), context)
    found = estimate(task.measure(outcome.predictions, data))
    assert list(found) == list(task.scores)
    assert found["top1"].value > 60  # four classes
    write_predictions(outcome.predictions, tmp_path / "p.parquet")
    assert estimate(task.measure(read_predictions(tmp_path / "p.parquet"), data)) == found
    again = task.run(make_backbone(text=True), squares_data(), task.recipe(), context)
    for column, values in outcome.predictions.items():
        np.testing.assert_array_equal(values, again.predictions[column])


@pytest.mark.parametrize("name", ["linear-probe", "knn"])
def test_nothing_is_chosen_on_the_test_split(name, make_backbone, squares_data, context):
    """Other test images, the same choice."""
    task, data = find_task(name), squares_data()
    other = Dataset(
        "other",
        data.kind,
        data.classes,
        {n: data._build[n] for n in ("train", "val")} | {"test": data._build["shift:loud"]},
    )
    chosen = [task.run(make_backbone(), d, task.recipe(), context).chosen for d in (data, other)]
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("name", TASKS)
def test_three_images_a_split_are_enough(name, make_backbone, squares_data, context):
    task, data = find_task(name), squares_data().limited(3)
    outcome = task.run(make_backbone(text=True), data, task.recipe(), context)
    found = estimate(task.measure(outcome.predictions, data))
    assert all(0 <= e.low <= e.value <= e.high <= 100 for e in found.values())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"c": []}, "c"),
        ({"c": [0.0]}, "c"),
        ({"cs": [1]}, "unknown key; did you mean 'c'"),
        ({"iterations": 0}, "iterations"),
    ],
)
def test_a_wrong_setting_is_named(settings, said):
    with pytest.raises(BadInput, match=f"recipe of linear-probe: .*{said}"):
        find_task("linear-probe").recipe(settings)
