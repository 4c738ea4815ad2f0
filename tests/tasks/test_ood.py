"""Detection of the unknown and accuracy under shift, against scikit-learn and SciPy."""

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput
from backbench.tasks import estimate, find_task, read_predictions, write_predictions
from backbench.tasks.ood.ood_detection import Mahalanobis, kth_cosine
from backbench.tasks.ood.separation import Separation
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from sklearn.neighbors import NearestNeighbors


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 60), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_separation_is_scikit_learns_at_any_weights(count, values, seed):
    rng = np.random.default_rng(seed)
    scores, known = rng.integers(0, values, count).astype(float), rng.random(count) < 0.6
    known[:2] = True, False
    weights = rng.integers(0, 4, count).astype(float)
    weights[:2] += 1
    auroc, aupr, fpr95 = Separation(scores, known, np.arange(count))(weights)
    assert auroc == pytest.approx(roc_auc_score(known, scores, sample_weight=weights))
    assert auroc == pytest.approx(Separation(scores, known, np.arange(count)).auroc(weights))
    assert aupr == pytest.approx(average_precision_score(~known, -scores, sample_weight=weights))
    fpr, tpr, _ = roc_curve(known, scores, sample_weight=weights, drop_intermediate=False)
    assert fpr95 == pytest.approx(fpr[tpr >= 0.95 - 1e-12].min())


def test_weights_are_found_by_position():
    scores, known = np.array([3.0, 1.0, 2.0]), np.array([True, False, True])
    weights = np.array([9, 1, 0, 0, 1, 0, 1.0])
    assert Separation(scores, known, np.array([1, 4, 6]))(weights) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize("known", [[True, True], [False, False]])
def test_one_side_alone_tells_nothing(known):
    assert Separation(np.array([1.0, 2.0]), np.array(known), np.arange(2))(np.ones(2)) == (0.5, 0.0, 1.0)


def test_mahalanobis_is_scikit_learns():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 2, 3], 40)
    x = rng.normal(size=(4, 5))[y] + rng.normal(size=(120, 5)) @ rng.normal(size=(5, 5))
    queries = rng.normal(size=(20, 5)) * 3
    means = np.stack([x[y == c].mean(0) for c in (0, 2, 3)])
    centred = x - means[np.searchsorted([0, 2, 3], y)]
    precision = EmpiricalCovariance(assume_centered=True).fit(centred).precision_
    expected = -(cdist(queries, means, "mahalanobis", VI=precision).min(1) ** 2)
    found = Mahalanobis(torch.tensor(x), torch.tensor(y))(torch.tensor(queries))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_mahalanobis_with_fewer_examples_than_features_is_finite():
    x = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    found = Mahalanobis(x, torch.tensor([0, 0, 0, 1, 1, 1]))(x + 1)
    assert found.isfinite().all()


@pytest.mark.parametrize("k", [1, 7, 500])
def test_kth_cosine_is_scikit_learns(k):
    rng = np.random.default_rng(1)
    memory, queries = rng.normal(size=(60, 8)), rng.normal(size=(20, 8))
    near = NearestNeighbors(n_neighbors=min(k, 60), metric="cosine").fit(memory).kneighbors(queries)[0]
    found = kth_cosine(torch.tensor(memory), torch.tensor(queries), k).numpy()
    np.testing.assert_allclose(found, 1 - near[:, -1], atol=1e-6)


@pytest.mark.parametrize("name", ["ood-shift", "ood-detection"])
def test_learns_repeats_and_scores_from_stored_predictions(name, make_backbone, squares_data, context, tmp_path):
    task, data = find_task(name), squares_data()
    task.check_data(data)
    outcome = task.run(make_backbone(), data, task.recipe(), context)
    found = estimate(task.measure(outcome.predictions, data))
    assert list(found) == list(task.scores)
    write_predictions(outcome.predictions, tmp_path / "p.parquet")
    assert estimate(task.measure(read_predictions(tmp_path / "p.parquet"), data)) == found
    again = task.run(make_backbone(), squares_data(), task.recipe(), context)
    for column, values in outcome.predictions.items():
        np.testing.assert_array_equal(values, again.predictions[column])


def test_the_clean_score_is_the_probes(make_backbone, squares_data, context):
    data = squares_data()
    values = {}
    for name in ("ood-shift", "linear-probe"):
        task = find_task(name)
        values[name] = task.measure(task.run(make_backbone(), data, task.recipe(), context).predictions, data)
    probe = values["linear-probe"].scores(np.ones(50))
    shift = values["ood-shift"].scores(np.ones(50 + 40 + 24))
    assert shift["clean_top1"] == probe["top1"]
    assert shift["shift_top1"] < shift["clean_top1"]
    drop = 100 * (shift["clean_top1"] - shift["shift_top1"]) / shift["clean_top1"]
    assert shift["relative_drop"] == pytest.approx(drop)


def test_every_shift_counts_alike(make_backbone, squares_data, context):
    """A mean of accuracies, not of images: the two shifted splits differ in size."""
    task, data = find_task("ood-shift"), squares_data()
    predictions = task.run(make_backbone(), data, task.recipe(), context).predictions
    right = predictions["classes"][:, 0] == np.concatenate(
        [data[s].targets for s in ("test", "shift:noise", "shift:loud")]
    )
    each = [right[predictions["split"] == s].mean() for s in ("shift:noise", "shift:loud")]
    assert task.measure(predictions, data).scores(np.ones(len(right)))["shift_top1"] == pytest.approx(
        100 * np.mean(each)
    )


def test_a_probe_that_is_always_wrong_does_not_drop(make_backbone, squares_data, context):
    task, data = find_task("ood-shift"), squares_data()
    predictions = task.run(make_backbone(), data, task.recipe(), context).predictions
    predictions["classes"][predictions["split"] == "test"] = 99
    assert task.measure(predictions, data).scores(np.ones(114))["relative_drop"] == 0


def test_sets_are_averaged_and_told_apart(make_backbone, squares_data, context):
    task, data = find_task("ood-detection"), squares_data()
    predictions = task.run(make_backbone(), data, task.recipe(), context).predictions
    split, each = predictions["split"], []
    for name in ("unknown:yellow", "unknown:noise"):
        of = (split == "test") | (split == name)
        each.append(roc_auc_score(split[of] == "test", predictions["msp"][of]))
    found = task.measure(predictions, data).scores(np.ones(len(split)))
    assert found["auroc_msp"] == pytest.approx(100 * np.mean(each))
    assert found["auroc"] > 75  # nothing known is yellow


@pytest.mark.parametrize("name", ["ood-shift", "ood-detection"])
def test_three_images_a_split_are_enough(name, make_backbone, squares_data, context):
    task, data = find_task(name), squares_data().limited(3)
    found = estimate(task.measure(task.run(make_backbone(), data, task.recipe(), context).predictions, data))
    assert all(task.scores[s].low <= e.low <= e.value <= e.high <= task.scores[s].high for s, e in found.items())


def test_mixed_up_predictions_are_refused(make_backbone, squares_data, context):
    task, data = find_task("ood-shift"), squares_data()
    predictions = task.run(make_backbone(), data, task.recipe(), context).predictions
    with pytest.raises(BadInput, match="predictions are for"):
        task.measure({n: v[:-1] for n, v in predictions.items()}, data)
    order = np.roll(np.arange(114), 1)
    with pytest.raises(BadInput):
        task.measure({n: v[order] for n, v in predictions.items()}, data)


def test_a_data_set_without_shifts_is_refused(squares_data):
    task, data = find_task("ood-shift"), squares_data("retrieval")
    with pytest.raises(BadInput, match="dataset squares: ood-shift needs a split"):
        task.check_data(data)
