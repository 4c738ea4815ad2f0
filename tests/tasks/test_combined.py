"""Splits of several cards as one data set: chosen classes, fingerprints, limits, and what can be wrong."""

import json

import numpy as np
import pytest
from backbench.backbones import BadInput
from backbench.tasks import load_dataset
from backbench.tasks.datasets import find_dataset
from backbench.tasks.datasets.fingerprint import fingerprints
from PIL import Image

OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
COMBINED = """\
kind: detection
source: combined
splits:
  train: {card: simulated.yaml, split: whole}
  val: {from: train, fraction: 0.25}
  test: {card: real.yaml}
classes: [car]
"""


@pytest.fixture
def streets(tmp_path):
    """`simulated.yaml` (VOC: car, person), `real.yaml` (COCO: bicycle, person, car) and `both.yaml`."""
    for name in ("game", "labels", "photos"):
        (tmp_path / name).mkdir()
    for i in range(8):
        Image.new("RGB", (30, 20), (i, 0, 0)).save(tmp_path / "game" / f"{i}.jpg")
        found = [OBJECT.format("car", 1, 1, 5 + i, 8), OBJECT.format("person", 3, 3, 9, 9)][: 1 + i % 2]
        (tmp_path / "labels" / f"{i}.xml").write_text(f"<annotation>{''.join(found)}</annotation>")
    annotations = []
    for i in range(3):
        Image.new("RGB", (30, 20), (0, i, 0)).save(tmp_path / "photos" / f"{i}.png")
        # Two objects on the first image, one bicycle on the second, a crowd of cars on the third.
        for category, box, crowd in {
            0: [(7, [2, 3, 10, 6], 0), (3, [0, 0, 5, 5], 0)],
            1: [(1, [1, 1, 4, 4], 0)],
            2: [(7, [5, 5, 9, 9], 1)],
        }[i]:
            x, y, w, h = box
            mask = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            one = {"id": len(annotations) + 1, "image_id": i, "category_id": category, "bbox": box, "iscrowd": crowd}
            annotations.append(one | {"area": w * h, "segmentation": mask})
    content = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(3)],
        "categories": [{"id": 1, "name": "bicycle"}, {"id": 3, "name": "person"}, {"id": 7, "name": "car"}],
        "annotations": annotations,
    }
    (tmp_path / "real.json").write_text(json.dumps(content))
    (tmp_path / "simulated.yaml").write_text(
        "kind: detection\nsource: voc\nsplits: {whole: {images: game, annotations: labels}}\n"
    )
    (tmp_path / "real.yaml").write_text(
        "kind: detection\nsource: coco\nsplits: {test: {images: photos, annotations: real.json}}\n"
    )
    (tmp_path / "both.yaml").write_text(COMBINED)
    return tmp_path


def changed(folder, old, new):
    text = (folder / "both.yaml").read_text()
    assert old in text
    (folder / "both.yaml").write_text(text.replace(old, new))
    return folder / "both.yaml"


def test_one_class_of_two_cards(streets):
    data = load_dataset(streets / "both.yaml", "detection")
    assert data.classes == ("car",)
    assert data.split_names == ["train", "val", "test"]
    assert [len(data[name]) for name in data.split_names] == [6, 2, 3]
    assert sorted([*data["train"].ids, *data["val"].ids]) == [str(i) for i in range(8)]
    for name in ("train", "val"):
        for image, found in zip(data[name].ids, data[name].targets, strict=True):
            assert found.boxes.tolist() == [[0, 0, 5 + int(image), 8]]
            assert found.labels.tolist() == [0]
    car, none, crowd = data["test"].targets
    assert car.boxes.tolist() == [[2, 3, 12, 9]]
    assert (car.labels.tolist(), car.crowd.tolist(), car.areas.tolist()) == ([0], [False], [60])
    assert car.masks.shape == (1, 20, 30)
    assert car.masks[0, 3:9, 2:12].all()
    assert car.masks.sum() == 60
    assert (none.boxes.shape, none.masks.shape) == ((0, 4), (0, 20, 30))
    assert crowd.crowd.tolist() == [True]
    assert [data["test"].images[i].getpixel((0, 0)) for i in range(3)] == [(0, i, 0) for i in range(3)]


def test_the_order_of_classes_is_this_card_s(streets):
    data = load_dataset(changed(streets, "[car]", "[person, car]"), "detection")
    assert data["test"].targets[0].labels.tolist() == [1, 0]
    assert data["train"].targets[0].labels.tolist() in ([1], [1, 0])
    assert data["test"].targets[1].labels.tolist() == []


def test_a_fingerprint_is_of_content_and_classes(streets, home):
    def prints():
        return fingerprints(load_dataset(streets / "both.yaml", "detection"), ("train", "val", "test"), home)

    first = prints()
    assert prints() == first  # remembered
    data = load_dataset(streets / "both.yaml", "detection")
    assert {name: data[name].fingerprint for name in first} == first
    changed(streets, "[car]", "[person, car]")
    other = prints()
    assert not set(first.values()) & set(other.values())
    changed(streets, "[person, car]", "[car]")
    assert prints() == first
    # Content of the other cards' files counts, though this card names none of them.
    Image.new("RGB", (30, 20), (0, 99, 0)).save(streets / "photos" / "1.png")
    again = prints()
    assert [name for name in first if first[name] != again[name]] == ["test"]
    (streets / "labels" / "3.xml").write_text(f"<annotation>{OBJECT.format('car', 1, 1, 9, 9)}</annotation>")
    assert [name for name in first if again[name] != prints()[name]] == ["train", "val"]


def test_what_is_left_as_it_was_keeps_its_fingerprint(streets):
    (streets / "same.yaml").write_text("kind: detection\nsource: combined\nsplits: {test: {card: real.yaml}}\n")
    same, real = (load_dataset(streets / name, "detection") for name in ("same.yaml", "real.yaml"))
    assert same.classes == real.classes
    assert same["test"].fingerprint == real["test"].fingerprint


def test_a_limit_is_of_each_split(streets):
    data = load_dataset(streets / "both.yaml", "detection", limit=2)
    assert [len(data[name]) for name in data.split_names] == [2, 2, 2]
    assert [found.labels.tolist() for found in data["test"].targets] == [[0], [0]]


def test_pixels_of_other_classes_are_ignored(tmp_path):
    for name, pixels in (("a", [[0, 1, 2, 255]]), ("b", [[1, 0, 0, 1]])):
        for part in ("images", "masks"):
            (tmp_path / name / part).mkdir(parents=True)
        Image.new("RGB", (4, 1)).save(tmp_path / name / "images" / "1.png")
        Image.fromarray(np.array(pixels, np.uint8)).save(tmp_path / name / "masks" / "1.png")
    for name, classes in (("a", "road, sky, car"), ("b", "car, road")):
        (tmp_path / f"{name}.yaml").write_text(
            f"kind: segmentation\nsource: masks\npath: {name}\nclasses: [{classes}]\n"
            "splits: {all: {images: images, masks: masks}}\n"
        )
    (tmp_path / "both.yaml").write_text(
        "kind: segmentation\nsource: combined\nclasses: [car, road]\n"
        "splits: {train: {card: a.yaml, split: all}, test: {card: b.yaml, split: all}}\n"
    )
    data = load_dataset(tmp_path / "both.yaml", "segmentation")
    assert data["train"].targets[0].tolist() == [[1, 255, 0, 255]]
    assert data["test"].targets[0].tolist() == [[1, 0, 0, 1]]
    assert data["train"].targets[0].dtype == np.uint8


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[car]", "[car, persn]", r"both: classes: simulated: there is no class 'persn'; did you mean 'person'"),
        ("[car]", "[bicycle]", r"both: classes: simulated: there is no class 'bicycle'"),
        ("classes: [car]\n", "", r"simulated and real have different classes; .* that all have: car, person"),
        ("split: whole", "split: hole", r"splits.train: simulated: there is no split 'hole'; did you mean 'whole'"),
        ("real.yaml", "rael.yaml", r"rael.yaml: no such file"),
        ("real.yaml", "sim10", r"there is no dataset 'sim10'; did you mean 'sim10k'"),
        ("real.yaml", "cifar-10", r"dataset cifar-10: kind: detection is not among classification"),
        ("real.yaml", "both.yaml", r"splits.test.card: both.yaml is combined itself; name what it combines"),
        ("{card: real.yaml}", "photos", r"splits.test: give the `card` whose `split` it is"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(streets, old, new, said):
    card = changed(streets, old, new)
    with pytest.raises(BadInput, match=said) as error:
        load_dataset(card, "detection")
    assert "\n" not in str(error.value)


def test_no_splits_and_classes_of_a_kind_that_has_one_label_an_image(tmp_path):
    (tmp_path / "none.yaml").write_text("kind: detection\nsource: combined\n")
    with pytest.raises(BadInput, match="splits: say which there are"):
        load_dataset(tmp_path / "none.yaml", "detection")
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.new("RGB", (3, 3)).save(tmp_path / "pets" / name / "1.png")
    (tmp_path / "pets.yaml").write_text("kind: classification\nsource: imagefolder\nsplits: {test: pets}\n")
    text = "kind: classification\nsource: combined\nsplits: {test: {card: pets.yaml}}\n"
    (tmp_path / "all.yaml").write_text(text)
    assert load_dataset(tmp_path / "all.yaml", "classification")["test"].targets.tolist() == [0, 1]
    (tmp_path / "all.yaml").write_text(f"{text}classes: [dog]\n")
    with pytest.raises(BadInput, match="classes: they are chosen only for detection and segmentation"):
        load_dataset(tmp_path / "all.yaml", "classification")


def test_packaged_cards_combine_by_name(home):
    from backbench.tasks.datasets.inventory import inventory

    card = find_dataset("sim10k-to-cityscapes", home)
    found = inventory(card)
    assert found["where"] == str(home / "data")
    assert {file["file"]: file["splits"] for file in found["files"]} == {
        "sim10k/VOC2012/JPEGImages": ["train"],
        "sim10k/VOC2012/Annotations": ["train"],
        "cityscapes/leftImg8bit/val": ["test"],
        "cityscapes/gtFine/val": ["test"],
    }
    assert found["missing"] == 4
    assert next(split["made_of"] for split in found["splits"]) == "split whole of sim10k"
