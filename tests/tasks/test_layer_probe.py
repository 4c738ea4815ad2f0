"""Layer-wise probes against scikit-learn's ridge, and what their scores and curve mean."""

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput, load_backbone
from backbench.tasks import (
    Bank,
    Context,
    Dataset,
    Split,
    estimate,
    find_task,
    read_predictions,
    write_predictions,
)
from backbench.tasks.classification.layer_probe import curve

TASK = find_task("layer-probe")


@pytest.fixture(scope="module")
def vit():
    return load_backbone("mini/vit-supervised")


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    return Context(Bank(folder), folder)


def predictions_of(layers, ids, depths, chosen, predicted):
    """Rows a layer and image, as the task stores them."""
    return {
        "layer": np.repeat(np.array(layers, object), len(ids)),
        "depth": np.repeat(np.array(depths, np.int16), len(ids)),
        "val_top1": np.repeat(np.array(chosen, float), len(ids)),
        "id": np.tile(np.array(ids, object), len(layers)),
        "predicted": np.array(predicted, np.int32).reshape(-1),
    }


def data_of(labels):
    images = np.zeros((len(labels), 2, 2, 3), np.uint8)
    split = Split(images, np.array(labels), "x", [f"i{i}" for i in range(len(labels))])
    return Dataset("few", "classification", ["a", "b"], {"test": lambda: split})


def test_scores_are_of_the_layers_that_validation_chose():
    layers = ["b0.mean", "b0.cls", "b1.mean", "b1.cls", "b2.mean", "b2.cls", "b3.mean", "b3.cls"]
    predicted = [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0]]
    predicted += [[0, 1, 0, 1]]
    chosen = [50, 40, 60, 70, 90, 80, 30, 90]
    data = data_of([0, 1, 0, 1])
    found = predictions_of(layers, ["i0", "i1", "i2", "i3"], [1, 1, 2, 2, 3, 3, 4, 4], chosen, predicted)
    measure = TASK.measure(found, data)
    assert measure.scores(np.ones(4)) == {
        "best_top1": 50.0,  # b2.mean: of equally good ones on validation, the first
        "depth_of_best": 75.0,
        "depth_25": 50.0,  # b0.mean, though b0.cls is as good
        "depth_50": 50.0,  # b1.cls, though b1.mean is better on these images
        "depth_75": 50.0,
        "depth_100": 100.0,  # b3.cls
    }
    assert set(measure.scores(np.ones(4))) == set(TASK.scores)
    assert measure.scores(np.array([1.0, 0, 0, 0]))["depth_50"] == 0
    points = curve(found, data)
    assert [(p.block, p.pool, p.depth) for p in points[:3]] == [
        ("b0", "mean", 0.25),
        ("b0", "cls", 0.25),
        ("b1", "mean", 0.5),
    ]
    assert points[7].top1.value == points[7].top1.low == points[7].top1.high == 100
    assert points[1].top1.low < points[1].top1.value == 75 < points[1].top1.high == 100
    with pytest.raises(BadInput, match="split has 3"):
        TASK.measure(found, data_of([0, 1, 0]))


def test_it_runs_and_its_predictions_are_all_that_scores_need(vit, digits, context, tmp_path):
    data = digits
    outcome = TASK.run(vit, data, TASK.recipe(), context)
    again = TASK.run(vit, data, TASK.recipe(), context)
    for name, column in outcome.predictions.items():
        assert (column == again.predictions[name]).all()
    write_predictions(outcome.predictions, tmp_path / "p.parquet")
    stored = read_predictions(tmp_path / "p.parquet")
    scores = {name: one.value for name, one in estimate(TASK.measure(stored, data)).items()}
    assert scores.keys() == TASK.scores.keys()
    assert scores["depth_of_best"] in (20, 40, 60, 80, 100)
    # A trained network tells digits better at its end than at its beginning.
    assert scores["depth_100"] > scores["depth_25"] + 10
    assert [(p.block, p.depth) for p in curve(stored, data)] == [(f"blocks.{i}", (i + 1) / 5) for i in range(5)]
    assert outcome.chosen["layer"] in outcome.chosen["c"]


def test_shots_take_so_many_images_a_class(vit, digits, context):
    data = digits
    scores = []
    for settings in ({"shots": 1}, {}):
        outcome = TASK.run(vit, data, TASK.recipe(settings), context)
        scores.append(TASK.measure(outcome.predictions, data).scores(np.ones(len(data["test"])))["best_top1"])
    assert scores[0] < scores[1]


def test_a_layer_is_probed_by_ridge_regression(vit, digits, context):
    """One strength, one layer: scikit-learn's ridge to targets of 1 and -1 on standardised features."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    data, c = digits, 1e-2
    found = TASK.run(vit, data, TASK.recipe({"c": [c]}), context).predictions
    x, x_test = (context.layers(vit, data[name])["blocks.3.mean"].double().numpy() for name in ("train", "test"))
    y = np.asarray(data["train"].targets)
    scaler = StandardScaler().fit(x)
    targets = np.where(y[:, None] == np.arange(len(data.classes)), 1.0, -1.0)
    said = Ridge(alpha=1 / c).fit(scaler.transform(x), targets).predict(scaler.transform(x_test)).argmax(1)
    agree = (said == found["predicted"][found["layer"] == "blocks.3.mean"]).mean()
    assert agree > 0.95
    assert torch.tensor(said).unique().numel() > 1
