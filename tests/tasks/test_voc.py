"""The VOC reader: lists, classes, boxes counted from 1, objects marked difficult, and what can be wrong."""

import pytest
from backbench.backbones import BadInput
from backbench.tasks import load_dataset
from backbench.tasks.datasets import DatasetCard
from PIL import Image

OBJECT = (
    "<object><name>{}</name><difficult>{}</difficult>"
    "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


@pytest.fixture
def folder(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    put(tmp_path, "one", OBJECT.format("dog", 0, 1, 1, 60, 40), OBJECT.format("cat", 1, 5, 6, 5, 6))
    put(tmp_path, "two")
    (tmp_path / "train.txt").write_text("two\none  1\n\n")
    return tmp_path


def put(folder, name, *objects):
    Image.new("RGB", (60, 40)).save(folder / "images" / f"{name}.jpg")
    (folder / "labels" / f"{name}.xml").write_text(f"<annotation>{''.join(objects)}</annotation>")


def data_of(folder, classes=(), **spec):
    spec = {"images": "images", "annotations": "labels", "list": "train.txt"} | spec
    card = DatasetCard(
        name="pets", kind="detection", source="voc", path=str(folder), splits={"train": spec}, classes=classes
    )
    return load_dataset(card, "detection")


def test_reads_lists_boxes_and_difficult_objects(folder):
    data = data_of(folder)
    assert data.classes == ("cat", "dog")
    split = data["train"]
    assert list(split.ids) == ["two", "one"]
    none, both = split.targets
    assert none.boxes.shape == (0, 4)
    assert both.boxes.tolist() == [[0, 0, 60, 40], [4, 5, 5, 6]]  # the last pixel belongs to the box
    assert both.labels.tolist() == [1, 0]
    assert both.crowd.tolist() == [False, True]
    assert both.size == (40, 60)
    assert data_of(folder, list=None)["train"].ids == ["one", "two"]
    assert data_of(folder, classes=("dog", "cat"))["train"].targets[1].labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<annotation>", r"one\.xml: cannot be read as XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotation/>', r"one\.xml: a document type or entity has no place"),
        ("<a><object/></a>", r"one\.xml: object 1: has no <name>"),
        (f"<a>{OBJECT.format('dog', 0, 'left', 1, 5, 5)}</a>", r"object 1: bndbox/xmin is a number, got 'left'"),
        (f"<a>{OBJECT.format('dog', 0, 'nan', 1, 5, 5)}</a>", r"object 1: bndbox/xmin is a number"),
        (f"<a>{OBJECT.format('dog', 0, 9, 1, 5, 5)}</a>", r"object 1: box .* is empty or outside"),
        (f"<a>{OBJECT.format('dog', 0, 9, 1, 70, 5)}</a>", r"object 1: box .* leaves the image of 60 x 40"),
        (f"<a>{OBJECT.format('dgo', 0, 9, 1, 20, 5)}</a>", r"object 1: there is no class 'dgo'; did you mean 'dog'"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(folder, xml, message):
    (folder / "labels" / "one.xml").write_text(xml)
    with pytest.raises(BadInput, match=message) as error:
        data_of(folder, classes=("dog", "cat"))["train"]
    assert "\n" not in str(error.value)


def test_missing_files(folder):
    with pytest.raises(BadInput, match="no such folder"):
        data_of(folder, annotations="labes")
    with pytest.raises(BadInput, match="cannot be read as a list"):
        data_of(folder, list="test.txt")
    (folder / "train.txt").write_text("one\none")
    with pytest.raises(BadInput, match="'one' is listed twice"):
        data_of(folder)
    (folder / "train.txt").write_text("three")
    with pytest.raises(BadInput, match=r"three\.xml: no such file, but it is listed"):
        data_of(folder)
    (folder / "train.txt").write_text("one")
    (folder / "images" / "one.jpg").unlink()
    with pytest.raises(BadInput, match="there is no image 'one'"):
        data_of(folder)["train"]
    with pytest.raises(BadInput, match="a VOC split has `images` and `annotations`"):
        data_of(folder, annotations=None)
