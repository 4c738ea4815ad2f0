"""The Cityscapes reader: visible instances, groups as crowds, classes of pixels, cities, and what can be wrong."""

import json

import numpy as np
import pytest
from backbench.backbones import BadInput
from backbench.tasks import load_dataset
from backbench.tasks.datasets import DatasetCard
from PIL import Image, ImageDraw

SIZE = (24, 40)  # H, W
NUMBERS = {"road": 7, "sky": 23, "person": 24, "car": 26, "caravan": 29, "bicycle": 33, "out of roi": 3}
SPLITS = {"train": {"images": "leftImg8bit/train", "annotations": "gtFine/train"}}


def square(x1, y1, x2, y2):
    """A polygon whose last row and column belong to it."""
    return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]


def scene(root, image, *objects, split="train"):
    """An image in the authors' layout: polygons, drawn in their order, and the label images made of them.

    Objects are (label, polygon); a label that ends in `group` is many objects drawn as one.
    """
    city = image.split("_")[0]
    folder = root / "gtFine" / split / city
    folder.mkdir(parents=True, exist_ok=True)
    (root / "leftImg8bit" / split / city).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[::-1], (len(objects), 5, 7)).save(
        root / "leftImg8bit" / split / city / f"{image}_leftImg8bit.png"
    )
    told = [{"label": label, "polygon": polygon} for label, polygon in objects]
    polygons = {"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": told}
    (folder / f"{image}_gtFine_polygons.json").write_text(json.dumps(polygons))
    labels, instances, counts = Image.new("L", SIZE[::-1], 0), Image.new("I", SIZE[::-1], 0), {}
    for label, polygon in objects:
        number = NUMBERS[label.removesuffix("group")]
        value = number
        if number >= 24 and not label.endswith("group"):
            value = 1000 * number + counts.setdefault(number, 0)
            counts[number] += 1
        corners = [tuple(corner) for corner in polygon]
        ImageDraw.Draw(labels).polygon(corners, fill=number)
        ImageDraw.Draw(instances).polygon(corners, fill=value)
    labels.save(folder / f"{image}_gtFine_labelIds.png")
    Image.fromarray(np.asarray(instances).astype(np.uint16)).save(folder / f"{image}_gtFine_instanceIds.png")


@pytest.fixture
def street(tmp_path):
    scene(
        tmp_path,
        "aachen_000000_000019",
        ("road", square(0, 12, 39, 23)),
        ("car", square(2, 10, 11, 19)),
        ("car", square(6, 4, 15, 13)),  # before the first
        ("persongroup", square(30, 2, 37, 8)),
        ("caravan", square(20, 2, 26, 8)),
        ("out of roi", square(0, 22, 39, 23)),
    )
    scene(tmp_path, "zurich_000000_000019", ("sky", square(0, 0, 39, 10)))
    scene(tmp_path, "zurich_000001_000019", ("bicycle", square(5, 5, 5, 5)))
    return tmp_path


def card_of(root, kind="detection", **keys):
    keys = {"name": "city", "kind": ("detection", "segmentation"), "splits": SPLITS} | keys
    return DatasetCard(source="cityscapes", path=str(root), **keys)


def train(root, kind="detection", **keys):
    return load_dataset(card_of(root, **keys), kind)["train"]


def test_an_instance_is_what_is_seen_of_it_and_a_group_is_a_crowd(street):
    data = load_dataset(card_of(street), "detection")
    assert data.classes == ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
    split = data["train"]
    assert split.ids == ["aachen/aachen_000000_000019", "zurich/zurich_000000_000019", "zurich/zurich_000001_000019"]
    assert [*split.groups] == ["aachen", "zurich", "zurich"]
    busy, empty, dot = split.targets
    assert [data.classes[i] for i in busy.labels] == ["person", "car", "car"]
    assert busy.crowd.tolist() == [True, False, False]
    assert busy.boxes.tolist() == [[30, 2, 38, 9], [2, 10, 12, 20], [6, 4, 16, 14]]
    assert busy.masks.sum(axis=(1, 2)).tolist() == [
        8 * 7,
        100 - 6 * 4,
        100,
    ]  # the second car hides a corner of the first
    values = np.asarray(Image.open(street / "gtFine/train/aachen/aachen_000000_000019_gtFine_instanceIds.png"))
    for mask, number in zip(busy.masks, (24, 26000, 26001), strict=True):
        assert np.array_equal(mask, values == number)
    assert (empty.boxes.shape, empty.masks.shape, empty.size) == ((0, 4), (0, *SIZE), SIZE)
    assert dot.boxes.tolist() == [[5, 5, 6, 6]]
    assert split.images[0].size == SIZE[::-1]


def test_nineteen_classes_of_pixels_and_nothing_else(street):
    data = load_dataset(card_of(street), "segmentation")
    assert len(data.classes) == 19
    labels = data["train"].targets[0]
    assert (labels.shape, labels.dtype) == (SIZE, np.uint8)
    seen = {data.classes[i] if i != 255 else None for i in np.unique(labels)}
    assert seen == {"road", "person", "car", None}
    assert labels[14, 20] == data.classes.index("road")
    assert labels[4, 22] == labels[23, 20] == labels[0, 0] == 255  # caravan, out of roi, nothing
    kinds = {data["train"].fingerprint, train(street).fingerprint}
    assert len(kinds) == 2


def test_content_decides_the_fingerprint(street):
    before = {kind: train(street, kind).fingerprint for kind in ("detection", "segmentation")}
    assert before == {kind: train(street, kind).fingerprint for kind in before}
    scene(street, "zurich_000001_000019", ("bicycle", square(5, 5, 6, 6)))
    assert not set(before.values()) & {train(street, kind).fingerprint for kind in before}


def test_whole_cities_are_for_validation(street):
    for number in range(3):
        scene(street, f"bonn_00000{number}_000019")
    splits = SPLITS | {"val": {"from": "train", "fraction": 0.34, "take": "groups"}}
    data = load_dataset(card_of(street, splits=splits), "detection")
    assert [[*data[name].groups] for name in ("train", "val")] == [["aachen", "zurich", "zurich"], ["bonn"] * 3]
    limited = load_dataset(card_of(street, splits=splits), "detection", limit=2)
    assert [len(limited[name]) for name in ("train", "val")] == [2, 2]


@pytest.mark.parametrize("kind", ["detection", "segmentation"])
def test_what_is_wrong_is_told_with_its_file(street, kind):
    file = {"detection": "instanceIds", "segmentation": "labelIds"}[kind]
    label = street / "gtFine" / "train" / "aachen" / f"aachen_000000_000019_gtFine_{file}.png"
    whole = label.read_bytes()
    Image.new("L", (3, 3)).save(label)
    with pytest.raises(BadInput, match=rf"_{file}.png: labels of \(3, 3\) for an image of \(24, 40\) pixels"):
        train(street, kind)
    Image.new("I;16", SIZE[::-1], 40000).save(label)
    with pytest.raises(BadInput, match=rf"_{file}.png: "):
        train(street, kind).targets[0]
    label.unlink()
    with pytest.raises(BadInput, match=rf"_{file}.png"):
        train(street, kind)
    label.write_bytes(whole)
    assert len(train(street, kind)) == 3
    Image.new("RGB", SIZE[::-1]).save(street / "leftImg8bit" / "train" / "mine.png")
    with pytest.raises(BadInput, match=r"mine.png: images of Cityscapes are CITY/CITY_…_leftImg8bit.png"):
        train(street, kind)


def test_keys_that_do_not_fit(street):
    with pytest.raises(BadInput, match="classes: Cityscapes has its own; a `combined` card may choose"):
        train(street, classes=("car",))
    with pytest.raises(BadInput, match=r"splits.train.annotations: say where the annotations are"):
        train(street, splits={"train": "leftImg8bit/train"})
    with pytest.raises(BadInput, match=r"there is no .*gtFine/test"):
        train(street, splits={"train": {"images": "leftImg8bit/train", "annotations": "gtFine/test"}})
