"""Truncated embeddings: k-NN on the first dimensions, against scikit-learn."""

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput, load_backbone
from backbench.tasks import Dataset, Split, find_task
from sklearn.neighbors import KNeighborsClassifier

TASK = find_task("truncated")
WIDTH = 64


class Given:
    """A context whose embeddings are the splits' own images."""

    def embeddings(self, _backbone, split):
        return torch.as_tensor(split.images)

    def progress(self, *_):
        pass


def split_of(count, informative, seed):
    """Two classes, told apart along the dimension `informative` alone."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    x = rng.normal(0, 0.3, (count, WIDTH)).astype(np.float32)
    x[:, informative] += 6 * (2 * labels - 1)
    return Split(x, labels, f"{seed}", [f"{seed}-{i}" for i in range(count)])


def data_of(informative):
    sizes = {"train": 60, "val": 30, "test": 40}
    splits = {
        name: (lambda count=count, seed=seed: split_of(count, informative, seed))
        for seed, (name, count) in enumerate(sizes.items())
    }
    return Dataset("vectors", "classification", ["a", "b"], splits)


def scores_of(predictions, data):
    return TASK.measure(predictions, data).scores(np.ones(len(data["test"])))


@pytest.mark.parametrize(
    ("informative", "known_from"), [(0, "dims_3"), (3, "dims_6"), (20, "dims_50"), (63, "dims_100")]
)
def test_accuracy_rises_where_what_is_known_begins(informative, known_from):
    data = data_of(informative)
    outcome = TASK.run(None, data, TASK.recipe(), Given())
    scores = scores_of(outcome.predictions, data)
    names = [name for name in TASK.scores if name != "mean_top1"]
    told = names.index(known_from)
    assert all(scores[name] == 100 for name in names[told:])
    assert all(scores[name] < 80 for name in names[:told])
    assert scores["mean_top1"] == pytest.approx(np.mean([scores[name] for name in names]))
    assert [outcome.chosen[name]["dimensions"] for name in names] == [2, 4, 8, 16, 32, 64]
    assert list(scores) == list(TASK.scores)


def test_it_is_scikit_learns_neighbours_on_the_first_dimensions(digits):
    data = digits

    class Pixels(Given):
        def embeddings(self, _backbone, split):
            rows = [np.asarray(image)[::8, ::8].reshape(-1) for image in split.images]
            return torch.as_tensor(np.stack(rows)[:, :WIDTH].astype(np.float32)) / 255 + 0.01

    recipe = TASK.recipe({"k": 1, "temperature": 0.07})
    found = TASK.run(None, data, recipe, Pixels()).predictions
    train, val, test = (Pixels().embeddings(None, data[name]).double() for name in ("train", "val", "test"))
    labels = np.concatenate([data["train"].targets, data["val"].targets])
    for name, dims in (("dims_12", 8), ("dims_100", 64)):
        nearest = KNeighborsClassifier(1, metric="cosine").fit(torch.cat([train, val])[:, :dims].numpy(), labels)
        assert (nearest.predict(test[:, :dims].numpy()) == found[name]).mean() > 0.99


def test_a_narrow_embedding_keeps_one_dimension_at_least(digits, context):
    backbone, data = load_backbone("mini/cnn-random"), digits
    outcome = TASK.run(backbone, data, TASK.recipe(), context)
    assert [one["dimensions"] for one in outcome.chosen.values()] == [4, 8, 16, 32, 64, 128]
    twice = TASK.run(backbone, data, TASK.recipe(), context)
    assert all((outcome.predictions[name] == twice.predictions[name]).all() for name in outcome.predictions)
    wrong = outcome.predictions | {"id": outcome.predictions["id"][::-1]}
    with pytest.raises(BadInput, match="row 0"):
        TASK.measure(wrong, data)
