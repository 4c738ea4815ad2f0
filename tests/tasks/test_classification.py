"""Frozen classification tasks against scikit-learn, and their edge cases."""

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput, NotApplicable
from backbench.tasks import Dataset, estimate, find_task, read_predictions, write_predictions
from backbench.tasks.classification.zero_shot import class_embeddings

TASKS = ["linear-probe", "sgd-probe", "knn", "zero-shot"]


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
    assert list(found) == [name for name in task.scores if name != "real_top1"]  # squares have one right class
    assert found["top1"].value > 60  # four classes
    write_predictions(outcome.predictions, tmp_path / "p.parquet")
    assert estimate(task.measure(read_predictions(tmp_path / "p.parquet"), data)) == found
    again = task.run(make_backbone(text=True), squares_data(), task.recipe(), context)
    for column, values in outcome.predictions.items():
        np.testing.assert_array_equal(values, again.predictions[column])


@pytest.mark.parametrize("name", ["linear-probe", "sgd-probe", "knn"])
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
