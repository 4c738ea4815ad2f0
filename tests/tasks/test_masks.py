"""The reader of images and label images: matched by stem, mapped to classes, and what can be wrong."""

import numpy as np
import pytest
from backbench.backbones import BadInput
from backbench.tasks import load_dataset
from backbench.tasks.datasets import DatasetCard
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image


@pytest.fixture
def folder(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name / "sub").mkdir(parents=True)
    for stem in ("b", "sub/a"):
        Image.new("RGB", (6, 4), "olive").save(tmp_path / "images" / f"{stem}.jpg")
        Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6) % 3 + 1).save(tmp_path / "labels" / f"{stem}.png")
    return tmp_path


def data_of(folder, label_map=None, classes=("ground", "pet"), **spec):
    spec = {"images": "images", "masks": "labels"} | spec
    label_map = {1: 1, 2: 0, 3: 255} if label_map is None else label_map
    card = DatasetCard(
        name="pets",
        kind="segmentation",
        source="masks",
        path=str(folder),
        splits={"train": spec},
        classes=classes,
        label_map=label_map,
    )
    return load_dataset(card, "segmentation")


def test_reads_and_maps(folder):
    split = data_of(folder)["train"]
    assert list(split.ids) == ["b", "sub/a"]
    assert split.images[0].size == (6, 4)
    mask = split.targets[1]
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[1, 0, 255, 1, 0, 255]] * 4
    plain = data_of(folder, {}, ("a", "b", "c", "d"))["train"].targets[0]
    assert plain[0].tolist() == [1, 2, 3, 1, 2, 3]
    assert split.fingerprint != data_of(folder, {1: 0, 2: 1, 3: 255})["train"].fingerprint


def test_palettes_are_read_by_index(folder):
    indexed = Image.fromarray(np.full((4, 6), 2, np.uint8), mode="P")
    indexed.putpalette([9, 9, 9] * 256)
    indexed.save(folder / "labels" / "b.png")
    assert (data_of(folder)["train"].targets[0] == 0).all()


def test_what_is_wrong_is_told_in_one_line(folder):
    def fails(message, **card):
        with pytest.raises(BadInput, match=message) as error:
            data_of(folder, **card)["train"].targets[0]
        assert "\n" not in str(error.value)

    fails(r"b\.png: value 3 stands for no class; add it to `label_map` \(3: 255\)", label_map={1: 0, 2: 1})
    fails(r"b\.png: value 2 stands for no class", label_map={})
    fails(r"label_map\.2: 7 is no class of the 2", label_map={2: 7})
    fails("classes: name 1 to 255 classes", classes=())
    fails("has `images` and `masks`, two folders", masks=None)
    fails("no such folder", masks="lables")
    Image.new("RGB", (6, 4)).save(folder / "labels" / "b.png")
    fails(r"b\.png: a label image has one channel of whole numbers, this is RGB")
    Image.new("L", (5, 4)).save(folder / "labels" / "b.png")
    fails(r"b\.png: a mask of \(4, 5\) for an image of \(4, 6\)")
    (folder / "labels" / "b.png").unlink()
    fails("there is no 'b'; images and masks are matched by stem")
    (folder / "labels" / "b.png").write_bytes(b"none")
    fails(r"1 of 4 images are broken: .*b\.png")


def test_a_broken_image_is_counted_and_named(folder):
    path = folder / "images" / "b.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 300, 3)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:9000])
    Image.new("L", (300, 200), 1).save(folder / "labels" / "b.png")
    with pytest.raises(BadInput, match=r"1 of 4 images are broken: .*b\.jpg"):
        data_of(folder)["train"]


@settings(max_examples=30)
@given(st.dictionaries(st.integers(0, 300), st.sampled_from([0, 1, 2, 255]), min_size=1), st.integers(0, 2**32 - 1))
def test_any_map_equals_the_plain_loop(tmp_path_factory, label_map, seed):
    from backbench.tasks.datasets.masks import LabelImages

    path = tmp_path_factory.mktemp("map") / "m.png"
    values = np.random.default_rng(seed).choice(list(label_map), (5, 7)).astype(np.uint16)
    Image.fromarray(values).save(path)
    found = LabelImages([path], label_map, 3)[0]
    assert found.tolist() == [[label_map[v] for v in row] for row in values.tolist()]
