"""The COCO reader: boxes, both forms of masks, crowds, and one line for everything that can be wrong."""

import json

import numpy as np
import pytest
from backbench.backbones import BadInput
from backbench.tasks import load_dataset
from backbench.tasks.datasets import DatasetCard, rle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as oracle_mask

POLYGON = [[10.0, 5.0, 30.0, 5.0, 30.0, 20.0, 10.0, 20.0]]
CROWD = {"size": [40, 60], "counts": [0, 40, 2360]}


def content():
    return {
        "images": [
            {"id": 7, "file_name": "b.png", "height": 40, "width": 60},
            {"id": 3, "file_name": "a.png", "height": 50, "width": 50},
        ],
        "categories": [{"id": 90, "name": "brush"}, {"id": 2, "name": "cup"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 90,
                "bbox": [10, 5, 20, 15],
                "segmentation": POLYGON,
                "area": 299.5,
            },
            {
                "id": 2,
                "image_id": 7,
                "category_id": 2,
                "bbox": [0, 0, 1, 40],
                "segmentation": CROWD,
                "area": 40,
                "iscrowd": 1,
            },
        ],
    }


@pytest.fixture
def write(tmp_path):
    """`write(change)` writes the data set, its json changed in place by `change`, and returns its card."""
    (tmp_path / "images").mkdir()
    for name, size in {"a": (50, 50), "b": (60, 40)}.items():
        Image.new("RGB", size, "teal").save(tmp_path / "images" / f"{name}.png")

    def written(change=None, **card):
        text = content()
        if change:
            change(text)
        (tmp_path / "a.json").write_text(json.dumps(text))
        spec = {"images": "images", "annotations": "a.json"}
        return DatasetCard(
            name="things", kind="detection", source="coco", path=str(tmp_path), splits={"train": spec}, **card
        )

    return written


def opened(card):
    return load_dataset(card, "detection")["train"]


def test_reads_boxes_masks_crowds_and_images_without_objects(write):
    data = load_dataset(write(), "detection")
    assert data.classes == ("cup", "brush")  # in the order of ids
    split = data["train"]
    assert list(split.ids) == [3, 7]
    assert data.category_ids == data.limited(1).category_ids == (2, 90)
    assert split.images[1].size == (60, 40)
    empty, full = split.targets
    assert empty.boxes.shape == (0, 4)
    assert empty.masks.shape == (0, 50, 50)
    assert full.boxes.tolist() == [[10, 5, 30, 20], [0, 0, 1, 40]]
    assert full.labels.tolist() == [1, 0]
    assert full.crowd.tolist() == [False, True]
    assert full.areas.tolist() == [299.5, 40]
    assert full.size == (40, 60)
    expected = oracle_mask.decode(oracle_mask.merge(oracle_mask.frPyObjects(POLYGON, 40, 60)))
    assert (full.masks[0] == expected).all()
    assert (full.masks[1] == (np.arange(60) == 0)).all()


def test_compressed_run_lengths(write):
    mask = np.random.default_rng(0).random((40, 60)) < 0.5
    text = rle.encode(mask[None])[0]
    split = opened(write(lambda c: c["annotations"][0].update(segmentation={"size": [40, 60], "counts": text})))
    assert (split.targets[1].masks[0] == mask).all()


def test_boxes_alone_have_no_masks(write):
    split = opened(write(lambda c: c["annotations"][0].pop("segmentation")))
    assert split.targets[1].masks is None


def test_the_fingerprint_follows_annotations_and_images(write, tmp_path):
    prints = {opened(write()).fingerprint, opened(write()).fingerprint}
    assert len(prints) == 1
    prints.add(opened(write(lambda c: c["annotations"][0].update(bbox=[10, 5, 20, 14]))).fingerprint)
    Image.new("RGB", (60, 40), "red").save(tmp_path / "images" / "b.png")
    prints.add(opened(write()).fingerprint)
    assert len(prints) == 3


WRONG = {
    "no image file": (lambda c: c["images"][0].update(file_name="c.png"), r"1 of 2 images are missing: .*c\.png"),
    "file outside": (lambda c: c["images"][0].update(file_name="../x.png"), "picture 7: file_name leads out of"),
    "unknown image": (lambda c: c["annotations"][0].update(image_id=8), "annotation 1: image_id 8 is not among"),
    "unknown category": (lambda c: c["annotations"][1].update(category_id=5), "annotation 2: category_id 5 is not"),
    "no area": (lambda c: c["annotations"][0].update(bbox=[10, 5, 0, 15]), "annotation 1: bbox .* has no area"),
    "outside": (lambda c: c["annotations"][0].update(bbox=[50, 5, 20, 15]), "annotation 1: bbox .* leaves the image"),
    "not a box": (
        lambda c: c["annotations"][0].update(bbox=[1, 2, 3]),
        "annotation 1: bbox: List should have at least 4",
    ),
    "not numbers": (
        lambda c: c["annotations"][0].update(bbox=[1, 2, "3", 4]),
        "annotation 1: bbox.2: Input should be a valid number",
    ),
    "id twice": (lambda c: c["annotations"][1].update(id=1), "annotations: id 1 is given twice"),
    "no id": (lambda c: c["annotations"][1].pop("id"), r"annotations\[1\]: id: this key is required"),
    "no list": (lambda c: c.update(annotations=3), "'annotations' is a list of objects"),
    "no categories": (lambda c: c.update(categories=[]), "has no categories"),
    "nameless": (lambda c: c["categories"][0].pop("name"), "category 90: name: this key is required"),
    "no images": (lambda c: c.update(images=[], annotations=[]), "has no images"),
    "polygon": (
        lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3]]),
        "annotation 1: segmentation: a polygon",
    ),
    "far polygon": (
        lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4, 1e9, 5]]),
        "segmentation: a polygon",
    ),
    "short runs": (lambda c: c["annotations"][1].update(segmentation={"size": [40, 60], "counts": [3]}), "do not fill"),
    "size of runs": (
        lambda c: c["annotations"][1].update(segmentation={"size": [4, 6], "counts": [24]}),
        "not the image",
    ),
    "bad text": (lambda c: c["annotations"][1].update(segmentation={"size": [40, 60], "counts": "~~"}), "run length"),
    "a word": (lambda c: c["annotations"][1].update(segmentation="round"), "polygons or run lengths, got str"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_in_one_line(write, name):
    change, message = WRONG[name]
    with pytest.raises(BadInput, match=message) as error:
        opened(write(change))
    assert "\n" not in str(error.value)


def test_other_files_and_cards(write, tmp_path):
    card = write()
    with pytest.raises(BadInput, match="categories differ from the 1 classes"):
        opened(write(classes=("cup",)))
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(BadInput, match=r"a\.json: cannot be read as json"):
        opened(card)
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(BadInput, match="a COCO file is an object"):
        opened(card)
    (tmp_path / "a.json").unlink()
    with pytest.raises(BadInput, match=r"a\.json: no such file"):
        opened(card)
    (tmp_path / "images" / "a.png").write_bytes(b"no picture")
    with pytest.raises(BadInput, match=r"1 of 2 images are broken: .*a\.png; mend or remove"):
        opened(write())
    bare = DatasetCard(name="x", kind="detection", source="coco", splits={"train": {"images": "images"}})
    with pytest.raises(BadInput, match=r"splits\.train: a COCO split has `images`, a folder, and `annotations`"):
        load_dataset(bare, "detection")


KEYS = st.sampled_from(["id", "image_id", "category_id", "bbox", "segmentation", "iscrowd", "area"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 100) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(["size", "counts"]), inner),
    max_leaves=8,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(KEYS, VALUES)
def test_any_value_anywhere_is_read_or_refused(write, key, value):
    card = write(lambda c: c["annotations"][0].update({key: value}))
    try:
        targets = opened(card).targets
    except BadInput:
        return
    assert all(len(objects.boxes) == len(objects.labels) for objects in targets)


def test_captions_of_the_authors_json(write, tmp_path):
    def told(change=lambda c: None):
        def captioned(content):
            content["annotations"] = [
                {"id": i, "image_id": content["images"][i % 2]["id"], "caption": f"Said {i}."} for i in range(5)
            ]
            change(content)

        card = write(captioned)
        return load_dataset(card.model_copy(update={"kind": ("pairs",)}), "pairs")["train"]

    split = told()
    assert sorted(len(captions) for captions in split.targets) == [2, 3]
    assert sorted(caption for captions in split.targets for caption in captions) == [f"Said {i}." for i in range(5)]
    with pytest.raises(BadInput, match=r"1 images have no caption, such as"):
        told(lambda c: c["annotations"].__delitem__(slice(1, None, 2)))
    with pytest.raises(BadInput, match="caption 0: image_id 99 is not among the images"):
        told(lambda c: c["annotations"][0].update(image_id=99))
    with pytest.raises(BadInput, match="caption 1: caption: "):
        told(lambda c: c["annotations"][1].pop("caption"))
