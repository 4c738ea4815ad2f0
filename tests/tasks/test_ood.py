"""Accuracy under shift, and what holds for both tasks on unusual data."""

import numpy as np
import pytest
from backbench.backbones import BadInput
from backbench.tasks import estimate, find_task, read_predictions, write_predictions


@pytest.mark.parametrize("name", ["ood-shift", "ood-detection"])
def test_learns_repeats_and_scores_from_stored_predictions(name, make_backbone, squares_data, context, tmp_path):
    task, data = find_task(name), squares_data()
    task.check_data(data)
    outcome = task.run(make_backbone(), data, task.recipe(), context)
    found = estimate(task.measure(outcome.predictions, data))
    assert [score for score in found if ":" not in score] == [score for score in task.scores if score in found]
    assert task.headline in found
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


@pytest.mark.parametrize("name", ["ood-shift", "ood-detection"])
def test_three_images_a_split_are_enough(name, make_backbone, squares_data, context):
    task, data = find_task(name), squares_data().limited(3)
    found = estimate(task.measure(task.run(make_backbone(), data, task.recipe(), context).predictions, data))
    assert all(task.metric(s).low <= e.low <= e.value <= e.high <= task.metric(s).high for s, e in found.items())


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
