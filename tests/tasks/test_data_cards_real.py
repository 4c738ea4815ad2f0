"""Packaged cards on the real files of their authors."""

import json

import numpy as np
import pytest
from backbench.tasks import load_dataset
from backbench.tasks.datasets import find_dataset


@pytest.mark.real
def test_the_authors_archives_of_omniglot_are_read_as_they_unpack(home, real_data):
    from zipfile import ZipFile

    source = real_data / "datasets" / "omniglot_small"
    runs, small = find_dataset("omniglot-one-shot"), find_dataset("omniglot-small1")
    ZipFile(source / "all_runs.zip").extractall(runs.root / "all_runs")
    ZipFile(source / "images_background_small1.zip").extractall(small.root)
    episodes = load_dataset(runs, "episodes")
    query = episodes["query"]
    assert [len(episodes["support"]), len(query), len(set(query.groups))] == [400, 400, 20]
    for row in (0, 399):
        said = (runs.root / "all_runs" / query.groups[row] / "class_labels.txt").read_text()
        match = episodes["support"].ids[20 * (row // 20) + query.targets[row]]
        assert f"{query.ids[row]} {match}" in said
    data = load_dataset(small, "retrieval")
    assert [len(data.classes), len(data["query"]), len(data["gallery"])] == [136, 544, 2176]
    assert np.unique(data["query"].targets, return_counts=True)[1].tolist() == [4] * 136


@pytest.mark.real
def test_coco_s_own_captions_are_read(tmp_path, real_data):
    root = real_data / "datasets" / "coco_ccby_subset"
    card = tmp_path / "coco.yaml"
    card.write_text(
        f"kind: pairs\nsource: coco\npath: {root}\n"
        "splits: {test: {images: val2017, annotations: annotations/captions_val2017.json}}\n"
    )
    split = load_dataset(card, "pairs")["test"]
    content = json.loads((root / "annotations" / "captions_val2017.json").read_text())
    assert len(split) == len(content["images"])
    assert sum(map(len, split.targets)) == len(content["annotations"])
