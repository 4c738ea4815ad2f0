"""The embedded data set: every kind is repeatable, and its targets are those of the scenes."""

import numpy as np
import pytest
from backbench.backbones import BadInput
from backbench.tasks import find_dataset, load_dataset
from backbench.tasks.datasets import DatasetCard, digit_scenes
from backbench.tasks.datasets.digit_scenes import Plan


@pytest.mark.parametrize(
    "kind", ["classification", "multilabel", "episodes", "detection", "segmentation", "retrieval", "pairs"]
)
def test_digit_scenes_are_repeatable_and_differ(kind):
    data = load_dataset("digit-scenes", kind)
    some = {"val", "test", "query", "support", "shift:noise", "unknown:scribbles", "unknown:textures"}
    names = [name for name in data.split_names if name in some]
    prints = [data[name].fingerprint for name in names]
    digit_scenes._compose.cache_clear()
    again = load_dataset("digit-scenes", kind)
    assert prints == [again[name].fingerprint for name in names]
    assert len(set(prints)) == len(names)
    for name in names:
        split = data[name]
        assert len(split) == len(split.targets) == len(split.ids) == len(set(split.ids))


def test_digit_scenes_for_classification():
    data = load_dataset("digit-scenes", "classification")
    for name, count in {"val": 500, "test": 1000, "shift:noise": 500, "unknown:scribbles": 500}.items():
        split = data[name]
        assert split.images.shape == (count, 64, 64, 3)
        expected = {-1} if name.startswith("unknown") else set(range(10))
        assert set(split.targets.tolist()) == expected
    assert not set(data["val"].groups) & set(data["test"].groups)  # nobody's handwriting on both sides
    assert data.classes == ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    # A shift is of the same scenes.
    assert (data["shift:noise"].targets[:448] == data["test"].targets[:448]).all()


def test_digit_scenes_for_dense_tasks():
    detection, segmentation = (load_dataset("digit-scenes", kind) for kind in ("detection", "segmentation"))
    assert segmentation.classes == ("background", *detection.classes)
    found, semantic = detection["val"], segmentation["val"]
    assert found.fingerprint == semantic.fingerprint  # the same scenes: their maps are banked once
    for objects, mask in zip(found.targets, semantic.targets, strict=True):
        assert mask.shape == (96, 96)
        assert len(objects.boxes) == len(objects.labels) == len(objects.masks) == len(objects.crowd) > 0
        painted = np.zeros((96, 96), int)
        for box, label, shape in zip(objects.boxes, objects.labels, objects.masks, strict=True):
            rows, columns = np.nonzero(shape)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            painted[shape] = label + 1
        assert (painted == mask).all()


def test_digit_scenes_for_retrieval():
    data = load_dataset("digit-scenes", "retrieval")
    query, gallery = data["query"], data["gallery"]
    assert sorted(query.targets) == sorted(set(gallery.targets))
    assert np.unique(gallery.targets, return_counts=True)[1].tolist() == [3] * 300
    small = data.limited(50)
    assert np.isin(small["query"].targets, small["gallery"].targets).mean() > 0.5


def test_digit_scenes_for_multilabel():
    several, detection = (load_dataset("digit-scenes", kind)["val"] for kind in ("multilabel", "detection"))
    assert several.fingerprint == detection.fingerprint  # the same scenes: their embeddings are banked once
    assert several.targets.shape == (100, 10)
    assert several.targets.dtype == np.int8
    for present, objects in zip(several.targets, detection.targets, strict=True):
        assert np.flatnonzero(present).tolist() == sorted(set(objects.labels.tolist()))


def test_digit_scenes_for_pairs():
    data = load_dataset("digit-scenes", "pairs")
    captions = [caption for told in data["val"].targets for caption in told]
    assert len(set(captions)) == len(captions) == len(data["val"]) > 400
    scenes = Plan("val", 500, seed=40).scenes()
    for caption, image, group in zip(captions, data["val"].images, data["val"].groups, strict=True):
        row = scenes.captions.index(caption)
        assert (scenes.images[row] == image).all()
        assert scenes.samples[row, 0] == group
        assert data.classes[scenes.labels[row, 0]] in caption.split()


def test_digit_scenes_for_episodes():
    data = load_dataset("digit-scenes", "episodes")
    support, query = data["support"], data["query"]
    assert len(set(query.groups)) == 20
    hands = {
        "support": digit_scenes.PLANS["episodes"]["support"].scenes().samples[:, 0],
        "query": digit_scenes.PLANS["episodes"]["query"].scenes().samples[:, 0],
    }
    for episode in set(query.groups):
        shown, asked = support.groups == episode, query.groups == episode
        assert support.targets[shown].tolist() == list(range(10))
        assert query.targets[asked].tolist() == [d for d in range(10) for _ in range(2)]
        drawn = [*hands["support"][shown], *hands["query"][asked]]
        assert len(set(drawn)) == 30  # each in another's hand


def test_digit_scenes_are_described():
    data = load_dataset("digit-scenes", "classification")
    assert set(data.descriptions) == set(data.classes)
    assert all(len(said) == 2 for said in data.descriptions.values())
    assert data.limited(9).descriptions == data.descriptions


def test_digit_scenes_has_no_splits_to_set():
    card = find_dataset("digit-scenes").model_copy(update={"splits": {"train": None}})
    with pytest.raises(BadInput, match="splits of digit-scenes are fixed"):
        load_dataset(DatasetCard.model_validate(card.model_dump() | {"splits": {"train": "x"}}), "classification")
