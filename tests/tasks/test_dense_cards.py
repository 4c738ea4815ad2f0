"""Packaged cards with boxes, masks and labels of pixels: each reads a miniature in its authors' layout as it is."""

import json

import numpy as np
import pytest
from backbench.backbones import BadInput
from backbench.tasks import list_datasets, load_dataset
from backbench.tasks.datasets import find_dataset
from backbench.tasks.datasets.inventory import inventory
from PIL import Image

DENSE = {"detection", "segmentation"}
CARDS = {card.name: card for card in list_datasets() if DENSE & set(card.kind) and card.source != "digit-scenes"}
SIZE = (12, 16)  # H, W
VOC_OBJECT = (
    "<object><name>{}</name><difficult>0</difficult><bndbox>"
    "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


def picture(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[::-1], (shade % 256, shade // 256, 9)).save(path)


def numbers(path, values, dtype=np.uint8, palette=False):
    """A label image, with a palette as VOC has it where asked for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.resize(np.array(values, dtype), SIZE))
    if palette:
        image = image.convert("L")
        image.putpalette([(7 * i) % 256 for i in range(3 * 256)])
    image.save(path)


# -- miniatures ----------------------------------------------------------------------------------------------------


def coco(root):
    """Two of the 80 categories, as their ids are not consecutive; one training annotation without area."""
    named = [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}]
    for split, count in (("train2017", 60), ("val2017", 2)):
        images, annotations = [], []
        for i in range(count):
            picture(root / split / f"{i:012d}.jpg", i)
            images.append({"id": i, "file_name": f"{i:012d}.jpg"})
            one = {"id": i, "image_id": i, "category_id": 90, "bbox": [1, 2, 5, 6], "iscrowd": 0, "area": 30}
            annotations.append(one | {"segmentation": [[1, 2, 6, 2, 6, 8, 1, 8]]})
        if count > 2:
            annotations[0]["bbox"] = [1, 2, 5, 0]
        content = {"images": images, "annotations": annotations, "categories": named}
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def voc(root, **lists):
    """A dog on each image, and its outline with a border that is ignored."""
    for section in ("Main", "Segmentation"):
        (root / "ImageSets" / section).mkdir(parents=True)
    (root / "Annotations").mkdir()
    for number, (name, count) in enumerate(lists.items()):
        ids = [f"{2000 + number}_{i:06d}" for i in range(count)]
        for section in ("Main", "Segmentation"):
            (root / "ImageSets" / section / f"{name}.txt").write_text("\n".join(ids) + "\n")
        for i, image in enumerate(ids):
            picture(root / "JPEGImages" / f"{image}.jpg", 100 * number + i)
            found = VOC_OBJECT.format("dog", 1, 1, 16, 12)
            (root / "Annotations" / f"{image}.xml").write_text(f"<annotation>{found}</annotation>")
            numbers(root / "SegmentationClass" / f"{image}.png", [0, 12, 255, 12], palette=True)


def ade(root):
    for split, count in (("training", 20), ("validation", 2)):
        for i in range(count):
            name = f"ADE_{split[:5]}_{i:08d}"
            picture(root / "images" / split / f"{name}.jpg", i)
            numbers(root / "annotations" / split / f"{name}.png", [0, 1, 150])


def cityscapes(root):
    streets = {"train": ["aachen", "bochum", "bremen", "cologne", "jena", "ulm"], "val": ["lindau", "munster"]}
    for split, cities in streets.items():
        for city in cities:
            for i in range(2):
                image = f"{city}_{i:06d}_000019"
                picture(root / "leftImg8bit" / split / city / f"{image}_leftImg8bit.png", i)
                told = root / "gtFine" / split / city / f"{image}_gtFine"
                numbers(told.with_name(f"{told.name}_labelIds.png"), [7, 26, 24, 3])
                numbers(told.with_name(f"{told.name}_instanceIds.png"), [7, 26000, 24, 3], np.uint16)


def acdc(root):
    for weather in ("fog", "night", "rain", "snow"):
        for i in range(2):
            image = f"GOPR0{i}/GOPR0{i}_frame_00085{i}"
            picture(root / "rgb_anon" / weather / "val" / f"{image}_rgb_anon.png", i)
            numbers(root / "gt" / weather / "val" / f"{image}_gt_labelIds.png", [7, 26, 24, 3])


def sim10k(root):
    (root / "Annotations").mkdir(parents=True)
    for i in range(20):
        picture(root / "JPEGImages" / f"{3384645 + i}.jpg", i)
        found = VOC_OBJECT.format("car", 2, 3, 6, 8) + VOC_OBJECT.format("motorbike", 2, 3, 6, 8) * (i % 2)
        (root / "Annotations" / f"{3384645 + i}.xml").write_text(f"<annotation>{found}</annotation>")


def both(*names):
    def made(_root):
        for name in names:
            MINIATURES[name](find_dataset(name).root)

    return made


MINIATURES = {
    "coco-2017": coco,
    "voc-2007": lambda root: voc(root, train=3, val=2, test=2),
    "voc-2007-segmentation": lambda root: voc(root, train=3, val=2, test=2),
    "voc-2012": lambda root: voc(root, train=10, val=2),
    "voc-2012-segmentation": lambda root: voc(root, train=10, val=2),
    "ade20k": ade,
    "cityscapes": cityscapes,
    "sim10k": sim10k,
    "sim10k-to-cityscapes": both("sim10k", "cityscapes"),
    "acdc": acdc,
    "cityscapes-to-acdc": both("cityscapes", "acdc"),
}
SIZES = {
    "coco-2017": {"train": 59, "val": 1, "test": 2},
    "voc-2007": {"train": 3, "val": 2, "test": 2},
    "voc-2007-segmentation": {"train": 3, "val": 2, "test": 2},
    "voc-2012": {"train": 9, "val": 1, "test": 2},
    "voc-2012-segmentation": {"train": 9, "val": 1, "test": 2},
    "ade20k": {"train": 19, "val": 1, "test": 2},
    "cityscapes": {"train": 10, "val": 2, "test": 4},
    "sim10k": {"train": 18, "val": 1, "test": 1},
    "sim10k-to-cityscapes": {"train": 19, "val": 1, "test": 4},
    "acdc": {"fog": 2, "night": 2, "rain": 2, "snow": 2},
    "cityscapes-to-acdc": {"train": 10, "val": 2, "test": 4, "shift:fog": 2, "shift:snow": 2},
}
CLASSES = {
    "coco-2017": ["toothbrush"],
    "voc-2007": ["dog"],
    "voc-2007-segmentation": ["background", "dog"],
    "voc-2012": ["dog"],
    "voc-2012-segmentation": ["background", "dog"],
    "ade20k": ["flag", "wall"],
    "cityscapes": ["car", "person"],
    "sim10k": ["car", "motorbike"],
    "sim10k-to-cityscapes": ["car"],
    "acdc": ["car", "person", "road"],
    "cityscapes-to-acdc": ["car", "person", "road"],
}
"""What is to be seen on the images of the first split of each, in the order of names."""


@pytest.fixture
def small(home):
    """`small(name)`: the miniature of a packaged data set where its card expects it, and the card."""

    def make(name):
        card = find_dataset(name)
        MINIATURES[name](card.root)
        return card

    return make


# -- all cards -----------------------------------------------------------------------------------------------------


def test_every_card_has_a_miniature():
    assert set(CARDS) == set(MINIATURES) == set(SIZES) == set(CLASSES)


@pytest.mark.parametrize("name", CARDS)
def test_a_miniature_in_the_authors_layout_is_read_by_its_card_as_it_is(small, name):
    card = small(name)
    assert inventory(card)["missing"] == 0
    for kind in card.kind:
        data = load_dataset(card, kind)
        assert set(SIZES[name]) <= set(data.split_names)
        for split, size in SIZES[name].items():
            made = data[split]
            assert len(made) == len(made.targets) == len(made.ids) == len(set(made.ids)) == size
            for i in range(size):
                assert made.images[i].size == SIZE[::-1]
                assert made.targets[i].shape == SIZE if kind == "segmentation" else made.targets[i].size == SIZE
        learned = data[data.split_names[0]].targets
        if kind == "segmentation":
            found = {int(value) for i in range(len(learned)) for value in np.unique(learned[i])} - {255}
        else:
            found = {int(label) for i in range(len(learned)) for label in learned[i].labels}
        if kind == card.kind[0]:
            assert sorted(data.classes[i] for i in found) == CLASSES[name]
        if "val" in data.split_names:
            assert not set(data["train"].ids) & set(data["val"].ids)


@pytest.mark.parametrize("name", CARDS)
def test_without_its_files_one_line_says_where_they_go_and_where_they_come_from(home, name):
    card = find_dataset(name)
    assert inventory(card)["missing"] == len(inventory(card)["files"]) > 0
    with pytest.raises(BadInput) as error:
        load_dataset(card, card.kind[0])[next(iter(card.splits))]
    said, other = str(error.value), card.splits["train"].card if card.source == "combined" else name
    assert "\n" not in said
    assert str(home / "data") in said
    assert find_dataset(other).homepage in said
    assert f"backbench show {other}" in said


# -- what each layout means ----------------------------------------------------------------------------------------


def test_an_annotation_of_coco_without_area_is_left_out_and_told(small, capsys):
    data = load_dataset(small("coco-2017"), "detection")
    train, val = data["train"], data["val"]
    assert data.category_ids == (1, 90)
    assert sorted(len(split.targets[i].boxes) for split in (train, val) for i in range(len(split))) == [0] + [1] * 59
    assert len(train.left_out) == 1
    assert "annotation 0" in train.left_out[0]
    assert "1 of 60 annotations left out" in capsys.readouterr().err
    assert data["test"].targets[0].masks.shape == (1, *SIZE)


@pytest.mark.parametrize("name", ["voc-2007-segmentation", "voc-2012-segmentation"])
def test_a_palette_is_read_as_numbers_of_classes(small, name):
    data = load_dataset(small(name), "segmentation")
    assert len(data.classes) == 21
    assert data["test"].targets[0].ravel()[:4].tolist() == [0, 12, 255, 12]
    assert data.classes[12] == "dog"


def test_what_is_none_of_150_classes_is_ignored(small):
    data = load_dataset(small("ade20k"), "segmentation")
    assert len(data.classes) == len(set(data.classes)) == 150
    assert data["test"].targets[0].ravel()[:3].tolist() == [255, 0, 149]


def test_no_city_is_in_two_splits(small):
    card = small("cityscapes")
    for kind in card.kind:
        data = load_dataset(card, kind)
        cities = [set(data[name].groups) for name in ("train", "val", "test")]
        assert [len(found) for found in cities] == [5, 1, 2]
        assert not cities[0] & cities[1]


def test_from_simulated_to_real_only_cars_count(small):
    data = load_dataset(small("sim10k-to-cityscapes"), "detection")
    assert data.classes == ("car",)
    learned = [*data["train"].ids, *data["val"].ids]
    assert sorted(learned) == [str(3384645 + i) for i in range(20)]
    assert {tuple(found.labels) for found in (*data["train"].targets, *data["test"].targets)} == {(0,)}
    assert set(data["test"].groups) == {"lindau", "munster"}
