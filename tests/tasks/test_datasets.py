"""Cards, readers, carved splits and fingerprints."""

import io
import json
import os
import subprocess
import sys
import zipfile
from functools import partial

import numpy as np
import pytest
from backbench.backbones import BadInput, Unavailable
from backbench.tasks import Dataset, Split, find_dataset, list_datasets, load_dataset
from backbench.tasks.datasets import DatasetCard, digit_scenes
from backbench.tasks.datasets.fingerprint import fingerprints
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image


def write_images(folder, counts, size=(24, 20)):
    """Class folders with that many random images each."""
    rng = np.random.default_rng(len(str(folder)))
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:03d}.{'jpg' if i % 2 else 'png'}")


@pytest.fixture
def folders(tmp_path):
    write_images(tmp_path / "train", {"cat": 20, "dog": 10})
    write_images(tmp_path / "test", {"cat": 4, "dog": 3})
    card = tmp_path / "pets.yaml"
    card.write_text("kind: classification\nsource: imagefolder\nsplits: {train: train, test: test}\n")
    return card


# -- names and cards -----------------------------------------------------------------------------------------------


def test_packaged_cards_are_whole():
    cards = list_datasets()
    assert "digit-scenes" in [c.name for c in cards]
    for card in cards:
        assert card.description
        assert card.license
        assert card.citation
        assert find_dataset(card.name) == card


def test_cards_are_listed_without_torch():
    code = "import sys; from backbench.tasks import list_datasets; list_datasets(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_a_mistyped_data_set_is_guessed():
    with pytest.raises(BadInput, match="there is no dataset 'digits-scene'; did you mean 'digit-scenes'"):
        load_dataset("digits-scene", "classification")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: classification\nsource: imagefolder\nspits: {}", r":3: spits: unknown key; did you mean 'splits'"),
        ("kind: nonsense\nsource: imagefolder", r":1: kind"),
        ("source: imagefolder", r"kind: this key is required"),
        ("kind: classification\nsource: arrays\nsplits: {val: {from: train}}", r"`from` and `fraction` go together"),
        ("kind: classification\nsource: arrays\nprompts: [a photo]", r"has a place \{\}"),
    ],
)
def test_a_wrong_card_names_line_and_key(tmp_path, text, said):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(BadInput, match=said) as error:
        find_dataset(tmp_path / "c.yaml")
    assert "\n" not in str(error.value)


def test_a_kind_that_is_not_served(folders):
    with pytest.raises(BadInput, match="dataset pets: kind: detection is not among classification"):
        load_dataset(folders, "detection")
    opened = load_dataset(folders, "classification")
    assert load_dataset(opened, "classification") is opened
    with pytest.raises(BadInput, match="a classification data set, retrieval is needed"):
        load_dataset(opened, "retrieval")


# -- class folders -------------------------------------------------------------------------------------------------


def test_class_folders(folders):
    data = load_dataset(folders, "classification")
    assert data.classes == ("cat", "dog")
    assert data["train"].targets.tolist() == [0] * 20 + [1] * 10
    assert data["test"].ids[0] == "cat/000.png"
    expected = np.asarray(Image.open(folders.parent / "test" / "cat" / "000.png"))
    assert (np.asarray(data["test"].images[0]) == expected).all()


def test_broken_images_are_counted_and_named(folders):
    bad = folders.parent / "train" / "cat"
    (bad / "001.jpg").write_bytes((bad / "001.jpg").read_bytes()[:300])
    (bad / "002.png").write_bytes(b"not an image")
    with pytest.raises(BadInput, match=r"2 of 30 images are broken: .*001\.jpg, .*002\.png; mend or remove") as error:
        load_dataset(folders, "classification")["train"]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ("{train: trian}", "splits.train: there is no .*trian"),
        ("{}", "splits: say where the images are"),
        ("{train: train/cat}", "no class folders"),
        ("{train: {split: train}}", "splits.train.images: say where the images are"),
        ("{train: train, val: {from: trian, fraction: 0.2}}", "splits.val.from: 'trian'"),
    ],
)
def test_folders_that_are_not_there(folders, splits, said):
    folders.write_text(f"kind: classification\nsource: imagefolder\nsplits: {splits}\n")
    with pytest.raises(BadInput, match=said):
        load_dataset(folders, "classification")


def test_classes_on_the_card_set_order_and_strangers_are_refused(folders):
    folders.write_text("kind: classification\nsource: imagefolder\nclasses: [dog, cat]\nsplits: {test: test}\n")
    assert load_dataset(folders, "classification")["test"].targets.tolist() == [0] * 3 + [1] * 4
    write_images(folders.parent / "test", {"owl": 1})
    with pytest.raises(BadInput, match="owl is none of the card's classes"):
        load_dataset(folders, "classification")["test"]


def test_a_folder_without_images(folders):
    (folders.parent / "empty" / "cat").mkdir(parents=True)
    folders.write_text("kind: classification\nsource: imagefolder\nsplits: {test: empty}\n")
    with pytest.raises(BadInput, match="has no images"):
        load_dataset(folders, "classification")["test"]


# -- carved splits -------------------------------------------------------------------------------------------------


def test_carved_splits_share_nothing_and_cover_all(folders):
    folders.write_text(
        "kind: classification\nsource: imagefolder\nsplits:\n"
        "  train: train\n  val: {from: train, fraction: 0.2}\n  test: {from: train, fraction: 0.3}\n"
    )
    data = load_dataset(folders, "classification")
    assert data.split_names == ["train", "val", "test"]
    parts = [data[name] for name in data.split_names]
    assert [len(p) for p in parts] == [15, 6, 9]
    assert sorted(i for p in parts for i in p.ids) == sorted(load_whole(folders).ids)
    assert len({p.fingerprint for p in parts}) == 3
    for part in parts:  # sorted by class, yet each part has both in proportion
        assert 0.2 < np.mean(part.targets) < 0.5


def load_whole(card):
    text = "kind: classification\nsource: imagefolder\nsplits: {train: train}\n"
    whole = card.with_name("whole.yaml")
    whole.write_text(text)
    return load_dataset(whole, "classification")["train"]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.lists(st.floats(0.01, 0.6), min_size=1, max_size=3))
def test_carving_any_number_by_any_fractions(count, fractions):
    from backbench.tasks.datasets.carving import carve

    splits = {"train": {"images": "t"}} | {f"s{i}": {"from": "train", "fraction": f} for i, f in enumerate(fractions)}
    card = DatasetCard.model_validate({"kind": "classification", "source": "arrays", "splits": splits})
    whole = Split(np.zeros((count, 1, 1, 3), np.uint8), np.arange(count), "whole", ())
    opened = Dataset("d", "classification", (), {"train": lambda: whole})
    rows = [r for name in splits for r in carve(card, opened, name).targets]
    assert sorted(rows) == list(range(count))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 9), st.integers(1, 12), st.randoms())
def test_the_first_of_each_class_by_name(labels, tenths, most, random):
    from backbench.tasks.datasets.carving import carve

    names = [f"{i:02d}" for i in range(len(labels))]
    random.shuffle(names)
    splits = {"gallery": {"images": "g", "per_class": most}}
    splits["query"] = {"from": "gallery", "fraction": tenths / 10, "take": "first"}
    card = DatasetCard.model_validate({"kind": "retrieval", "source": "arrays", "splits": splits})
    whole = Split(np.zeros((len(labels), 1, 1, 3), np.uint8), np.array(labels), "whole", names)
    opened = Dataset("d", "retrieval", (), {"gallery": lambda: whole})
    query, gallery = set(), set()
    for label in set(labels):
        own = sorted(name for name, of in zip(names, labels, strict=True) if of == label)[:most]
        query |= set(own[: len(own) * tenths // 10])
        gallery |= set(own[len(own) * tenths // 10 :])
    assert set(carve(card, opened, "query").ids) == query
    assert set(carve(card, opened, "gallery").ids) == gallery


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_whole_groups_go_together(groups, val, test):
    from backbench.tasks.datasets.carving import carve

    cuts = {"val": val, "test": test}
    splits = {name: {"from": "train", "fraction": part, "take": "groups"} for name, part in cuts.items()}
    card = DatasetCard.model_validate({"kind": "detection", "source": "coco", "splits": {"train": "t"} | splits})
    whole = Split(np.zeros((len(groups), 1, 1, 3), np.uint8), np.arange(len(groups)), "whole", (), np.array(groups))
    opened = Dataset("d", "detection", (), {"train": lambda: whole})
    made = {name: carve(card, opened, name) for name in card.splits}
    assert sorted(row for split in made.values() for row in split.targets) == list(range(len(groups)))
    found = [set(split.groups) for split in made.values()]
    assert sum(map(len, found)) == len(set(groups))  # none is in two of them
    assert len(set(made["val"].groups)) == round(val * len(set(groups)))


def test_a_class_or_group_to_take_from_is_needed(folders):
    card = DatasetCard(kind=("detection",), source="digit-scenes", splits={"val": {"per_class": 2}})
    from backbench.tasks.datasets.carving import carve

    with pytest.raises(BadInput, match="need one label an image"):
        carve(card, load_dataset("digit-scenes", "detection"), "val")
    text = "kind: classification\nsource: imagefolder\nsplits:\n  train: train\n"
    path = folders.with_name("groups.yaml")
    path.write_text(f"{text}  val: {{from: train, fraction: 0.3, take: groups}}\n")
    with pytest.raises(BadInput, match="`take: groups` needs groups of images"):
        load_dataset(path, "classification")["val"]


# -- arrays --------------------------------------------------------------------------------------------------------


def arrays_card(folder, **arrays):
    np.savez(folder / "train.npz", **arrays)
    (folder / "a.yaml").write_text(
        "kind: classification\nsource: arrays\nclasses: [a, b]\nsplits: {train: train.npz}\n"
    )
    return folder / "a.yaml"


def test_arrays(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (5, 8, 9, 3), dtype=np.uint8)
    card = arrays_card(tmp_path, images=images, labels=np.array([0, 1, 1, -1, 0], np.int8))
    split = load_dataset(card, "classification")["train"]
    assert (split.images[3] == images[3]).all()
    assert split.targets.tolist() == [0, 1, 1, -1, 0]
    before = split.fingerprint
    images[4, 7, 8, 2] ^= 1
    arrays_card(tmp_path, images=images, labels=np.array([0, 1, 1, -1, 0]))
    assert load_dataset(card, "classification")["train"].fingerprint != before


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": np.zeros((2, 4, 4, 3)), "labels": np.zeros(2, int)}, "images are .* uint8, got .* float64"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": np.zeros(3, int)}, r"labels are \(2,\)"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": np.full(2, 2)}, "labels are 0…1, got 2…2"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8)}, "no array 'labels', there are: images"),
        (
            {"images": np.array([{}, []], dtype=object), "labels": np.zeros(2, int)},
            "not an .npz archive",
        ),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, arrays, said):
    with pytest.raises(BadInput, match=said):
        load_dataset(arrays_card(tmp_path, **arrays), "classification")["train"]


@settings(max_examples=30, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_in_place_of_arrays_are_refused_in_one_line(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("arrays")
    card = arrays_card(folder)
    (folder / "train.npz").write_bytes(data)
    with pytest.raises(BadInput) as error:
        load_dataset(card, "classification")["train"]
    assert "\n" not in str(error.value)


def test_an_archive_of_something_else(tmp_path):
    card = arrays_card(tmp_path)
    with zipfile.ZipFile(tmp_path / "train.npz", "w") as archive:
        archive.writestr("images.npy", b"junk")
    with pytest.raises(BadInput):
        load_dataset(card, "classification")["train"]


# -- hub and Parquet -----------------------------------------------------------------------------------------------


def parquet_card(folder, columns=None, classes="[a, b]"):
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = []
    for shade in (10, 100, 200):
        buffer = io.BytesIO()
        Image.new("RGB", (6, 5), (shade, 0, 0)).save(buffer, "png")
        images.append({"bytes": buffer.getvalue(), "path": None})
    metadata = {
        "info": {"features": {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["x", "y_z"]}}}
    }
    table = pa.table({"image": images, "label": pa.array([0, 1, 0], pa.int64())})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(metadata)}), folder / "train.parquet")
    card = folder / "p.yaml"
    card.write_text(
        "kind: classification\nsource: parquet\nsplits: {train: train.parquet}\n"
        + (f"classes: {classes}\n" if classes else "")
        + (f"columns: {columns}\n" if columns else "")
    )
    return card


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_parquet(tmp_path, hub_cache):
    data = load_dataset(parquet_card(tmp_path), "classification")
    split = data["train"]
    assert split.targets.tolist() == [0, 1, 0]
    assert [split.images[i].getpixel((0, 0))[0] for i in range(3)] == [10, 100, 200]
    assert load_dataset(parquet_card(tmp_path, classes=None), "classification").classes == ("x", "y z")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"columns": "{image: img}"}, "columns: there is no 'img' in split train, but: image, label"),
        ({"classes": "[only]"}, "classes: 1 are named, labels are 0…1"),
    ],
)
def test_parquet_that_does_not_fit(tmp_path, hub_cache, change, said):
    with pytest.raises(BadInput, match=said):
        load_dataset(parquet_card(tmp_path, **change), "classification")["train"]


def test_broken_and_absent_images_of_a_table_are_named(tmp_path, hub_cache):
    import pyarrow as pa
    import pyarrow.parquet as pq

    card = parquet_card(tmp_path)
    table = pq.read_table(tmp_path / "train.parquet")
    images = table["image"].to_pylist()
    images[1]["bytes"] = images[1]["bytes"][:40]

    def put(images):
        column = pa.array(images, table.schema.field("image").type)
        pq.write_table(table.set_column(0, "image", column), tmp_path / "train.parquet")

    put(images)
    with pytest.raises(BadInput, match=r"dataset p: splits.train: row 1 cannot be decoded as an image"):
        load_dataset(card, "classification")["train"].images[1]
    put([images[0], None, None])
    with pytest.raises(BadInput, match=r"dataset p: splits.train: 2 of 3 rows have no image, such as row 1"):
        load_dataset(card, "classification")["train"]


def test_parquet_that_is_none(tmp_path, hub_cache):
    card = parquet_card(tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"no parquet")
    with pytest.raises(BadInput, match="cannot be read as Parquet"):
        load_dataset(card, "classification")["train"]
    (tmp_path / "train.parquet").unlink()
    with pytest.raises(BadInput, match=r"splits.train: there is no .*train.parquet"):
        load_dataset(card, "classification")


def test_a_hub_out_of_reach_is_said_in_one_line(monkeypatch, hub_cache):
    from backbench.tasks.datasets import hub

    monkeypatch.setattr(hub, "reachable", lambda host: False)
    data = load_dataset("cifar-10", "classification")  # opening needs no network
    assert data.split_names == ["train", "val", "test"]
    with pytest.raises(Unavailable, match=r"dataset cifar-10: .* cannot be downloaded \(no network") as error:
        data["val"]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("hub", ["org/name", "org/name@main", "name@" + "0" * 40, None])
def test_a_hub_set_is_pinned(tmp_path, hub):
    card = DatasetCard.model_validate({"name": "h", "kind": "classification", "source": "hub", "hub": hub})
    with pytest.raises(BadInput, match="hub: give org/name@commit"):
        load_dataset(card, "classification")


# -- fingerprints --------------------------------------------------------------------------------------------------


def test_fingerprints_are_remembered_until_something_changes(folders, tmp_path, monkeypatch):
    home = tmp_path / "home"
    names = ["train", "test"]
    data = load_dataset(folders, "classification")
    first = fingerprints(data, names, home)
    assert first == {name: data[name].fingerprint for name in names}

    def unread(self, name):
        raise AssertionError(f"{name} was read")

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "__getitem__", unread)
        assert fingerprints(load_dataset(folders, "classification"), names, home) == first
    file = folders.parent / "test" / "cat" / "001.jpg"
    Image.new("RGB", (9, 9)).save(file)
    second = fingerprints(load_dataset(folders, "classification"), names, home)
    assert second["train"] == first["train"]
    assert second["test"] != first["test"]


def test_a_touched_file_keeps_its_fingerprint(folders, tmp_path):
    first = fingerprints(load_dataset(folders, "classification"), ["test"], tmp_path)
    os.utime(folders.parent / "test" / "cat" / "001.jpg", (1, 1))
    assert fingerprints(load_dataset(folders, "classification"), ["test"], tmp_path) == first


def test_fingerprints_of_parts_and_limits_differ(folders, tmp_path):
    folders.write_text(
        "kind: classification\nsource: imagefolder\nsplits: {train: train, val: {from: train, fraction: 0.5}}\n"
    )
    data = load_dataset(folders, "classification")
    found = [*fingerprints(data, ["train", "val"], tmp_path).values()]
    found += fingerprints(data.limited(5), ["train", "val"], tmp_path).values()
    assert len(set(found)) == 4


def test_digit_scenes_fingerprints_need_no_composing(tmp_path, monkeypatch):
    data = load_dataset("digit-scenes", "retrieval")
    first = fingerprints(data, data.split_names, tmp_path)
    monkeypatch.setattr(digit_scenes, "_compose", None)
    again = load_dataset("digit-scenes", "retrieval")
    assert fingerprints(again, again.split_names, tmp_path) == first


def test_a_memory_that_is_broken_is_made_anew(folders, tmp_path):
    (tmp_path / "fingerprints.json").write_text("{broken")
    first = fingerprints(load_dataset(folders, "classification"), ["test"], tmp_path)
    assert json.loads((tmp_path / "fingerprints.json").read_text())
    assert fingerprints(load_dataset(folders, "classification"), ["test"], tmp_path) == first


def test_a_data_set_made_in_python_is_asked_each_time(make_split, tmp_path):
    data = Dataset("mine", "classification", ("a",), {"test": partial(make_split, 4, 0)})
    assert fingerprints(data, ["test"], tmp_path) == {"test": data["test"].fingerprint}
    assert not (tmp_path / "fingerprints.json").exists()
