"""Every reader counts and names what is broken, and sees that a file has changed, reading each once."""

import json
import os
import shutil

import numpy as np
import pytest
from backbench.backbones import BadInput
from backbench.tasks import load_dataset
from backbench.tasks.datasets import integrity
from backbench.tasks.datasets.fingerprint import fingerprints
from PIL import Image

NAMES = ("a", "b", "c", "d", "e", "f")


def noise(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 50, 3), np.uint8)).save(path)


def imagefolder(root):
    for i, name in enumerate(NAMES):
        noise(root / "images" / "cat" / f"{name}.jpg", i)
    return "classification", "{test: {images: images}}"


def lists(root):
    for i, name in enumerate(NAMES):
        noise(root / "images" / f"{name}.jpg", i)
    (root / "list.txt").write_text("".join(f"{name}.jpg cat\n" for name in NAMES))
    return "classification", "{test: {images: images, list: list.txt}}"


def coco(root):
    lists(root)
    content = {
        "images": [{"id": i, "file_name": f"{name}.jpg"} for i, name in enumerate(NAMES)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 9, 9]} for i in range(6)],
    }
    (root / "a.json").write_text(json.dumps(content))
    return "detection", "{test: {images: images, annotations: a.json}}"


def captions(root):
    lists(root)
    images = [{"filename": f"{name}.jpg", "split": "test", "sentences": [{"raw": name}]} for name in NAMES]
    (root / "a.json").write_text(json.dumps({"images": images}))
    return "pairs", "{test: {images: images, annotations: a.json, split: test}}"


def voc(root):
    lists(root)
    (root / "xml").mkdir()
    for name in NAMES:
        (root / "xml" / f"{name}.xml").write_text(
            "<annotation><object><name>cat</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax>"
            "</bndbox></object></annotation>"
        )
    return "detection", "{test: {images: images, annotations: xml}}"


def masks(root):
    lists(root)
    (root / "masks").mkdir()
    for name in NAMES:
        Image.new("L", (50, 40), 1).save(root / "masks" / f"{name}.png")
    return "segmentation", "{test: {images: images, masks: masks}}\nclasses: [ground, cat]"


READERS = {make.__name__: make for make in (imagefolder, lists, coco, captions, voc, masks)}


@pytest.fixture(params=READERS)
def made(request, tmp_path):
    """A data set of six images: its card, kind, and the folder of the images."""
    kind, splits = READERS[request.param](tmp_path)
    card = tmp_path / "mine.yaml"
    card.write_text(f"kind: {kind}\nsource: {request.param}\nsplits: {splits}\n")
    folder = tmp_path / "images"
    return card, kind, folder / "cat" if request.param == "imagefolder" else folder


def test_broken_images_are_counted_and_all_named(made, home):
    card, kind, folder = made
    for name in NAMES[1:]:
        path = folder / f"{name}.jpg"
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(BadInput, match=r"mine: 5 of \d+ images are broken: .*b\.jpg, .*c\.jpg, .*d\.jpg, … ") as error:
        load_dataset(card, kind)["test"]
    assert len(str(error.value).splitlines()) == 1
    record = home / "broken" / "mine-test.txt"
    assert str(record) in str(error.value)
    assert record.read_text().split() == [str(folder / f"{name}.jpg") for name in NAMES[1:]]


def test_broken_images_are_left_out_where_the_card_is_lenient(made, home, capsys):
    card, kind, folder = made
    whole = load_dataset(card, kind)["test"]
    card.write_text(card.read_text() + "strict: false\n")
    assert load_dataset(card, kind)["test"].fingerprint == whole.fingerprint
    for name in NAMES[2:]:
        (folder / f"{name}.jpg").write_bytes(b"none")
    split = load_dataset(card, kind)["test"]
    assert list(split.ids) == list(whole.ids[:2])
    assert len(split) == len(split.targets) == 2
    assert split.fingerprint != whole.fingerprint
    assert "dataset mine: split test: 4 of " in capsys.readouterr().err
    record = (home / "broken" / "mine-test.txt").read_text()
    assert all(str(folder / f"{name}.jpg") in record for name in NAMES[2:])
    for name in NAMES[:2]:
        (folder / f"{name}.jpg").write_bytes(b"none")
    with pytest.raises(BadInput, match=r"6 of 6 .*nothing would be left"):
        load_dataset(card, kind)["test"]


def test_mended_images_are_read_again(made, home):
    card, kind, folder = made
    whole = load_dataset(card, kind)["test"].fingerprint
    content = (folder / "b.jpg").read_bytes()
    (folder / "b.jpg").write_bytes(content[:300])
    for _ in range(2):
        with pytest.raises(BadInput, match="1 of"):
            load_dataset(card, kind)["test"]
    (folder / "b.jpg").write_bytes(content)
    assert load_dataset(card, kind)["test"].fingerprint == whole


def test_one_changed_byte_is_seen_and_an_unchanged_file_is_not_read_again(made, home, monkeypatch):
    card, kind, folder = made
    first = fingerprints(load_dataset(card, kind), ["test"], home)["test"]
    read, original = [], integrity._read
    monkeypatch.setattr(integrity, "_read", lambda path: read.append(path.name) or original(path))
    os.utime(folder / "a.jpg", (1, 1))
    assert fingerprints(load_dataset(card, kind), ["test"], home)["test"] == first
    assert read == ["a.jpg"]
    content = bytearray((folder / "c.jpg").read_bytes())
    content[len(content) // 2] ^= 1  # in the middle, of the same size
    (folder / "c.jpg").write_bytes(content)
    assert fingerprints(load_dataset(card, kind), ["test"], home)["test"] != first
    assert read == ["a.jpg", "c.jpg"]


def test_missing_images_of_lists_are_told_from_broken_ones(tmp_path, home):
    kind, splits = lists(tmp_path)
    (tmp_path / "mine.yaml").write_text(f"kind: {kind}\nsource: lists\nsplits: {splits}\n")
    (tmp_path / "images" / "b.jpg").unlink()
    (tmp_path / "images" / "e.jpg").write_bytes(b"no image")
    with pytest.raises(BadInput, match=r"2 of 6 images are missing \(1\) or broken \(1\): .*b\.jpg, .*e\.jpg; mend"):
        load_dataset(tmp_path / "mine.yaml", kind)["test"]


def test_a_changed_list_is_a_changed_split(tmp_path, home):
    kind, splits = lists(tmp_path)
    (tmp_path / "mine.yaml").write_text(f"kind: {kind}\nsource: lists\nsplits: {splits}\n")

    def now():
        return fingerprints(load_dataset(tmp_path / "mine.yaml", kind), ["test"], home)["test"]

    first = now()
    (tmp_path / "list.txt").write_text((tmp_path / "list.txt").read_text().replace("b.jpg cat", "b.jpg dog"))
    assert now() != first


def test_a_home_that_cannot_be_written_costs_time_alone(tmp_path, home):
    kind, splits = lists(tmp_path)
    (tmp_path / "mine.yaml").write_text(f"kind: {kind}\nsource: lists\nsplits: {splits}\n")
    first = load_dataset(tmp_path / "mine.yaml", kind)["test"].fingerprint
    shutil.rmtree(home)
    home.write_text("not a folder")
    assert load_dataset(tmp_path / "mine.yaml", kind)["test"].fingerprint == first
