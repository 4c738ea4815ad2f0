"""Bad input of every kind: refused with its file and id, or left out, counted and named; never silent, never all."""

import json
import re

import numpy as np
import pytest
from backbench.backbones import BadInput
from backbench.benchmarks.cli import code
from backbench.tasks import Dataset, load_dataset
from backbench.tasks.datasets import DatasetCard
from backbench.tasks.datasets.faults import tell
from backbench.tasks.datasets.fingerprint import fingerprints
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

BOX = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


def content():
    """Three images of 60 x 40 pixels with three, two and no objects; an object's area says which it is."""
    objects = [(1, 10), (2, 10), (3, 10), (4, 20), (5, 20)]
    return {
        "images": [{"id": id, "file_name": f"{id}.png"} for id in (10, 20, 30)],
        "categories": [{"id": 2, "name": "cup"}, {"id": 90, "name": "brush"}],
        "annotations": [
            {
                "id": id,
                "image_id": image,
                "category_id": 90,
                "bbox": [id, 2, 20, 30],
                "area": id,
                "segmentation": [[id, 2, id + 20, 2, id, 32]],
            }
            for id, image in objects
        ],
    }


@pytest.fixture
def coco(tmp_path, home):
    """`coco(change)` is the card of the data set, its json changed in place."""
    (tmp_path / "images").mkdir()

    def write(change=lambda content: None, strict=False):
        for id in (10, 20, 30):
            Image.new("RGB", (60, 40), (id, 0, 0)).save(tmp_path / "images" / f"{id}.png")
        told = content()
        change(told)
        (tmp_path / "a.json").write_text(json.dumps(told))
        splits = {"test": {"images": "images", "annotations": "a.json"}}
        return DatasetCard(
            name="things", kind="detection", source="coco", path=str(tmp_path), splits=splits, strict=strict
        )

    return write


def opened(card):
    return load_dataset(card, card.kind[0])["test"]


def kept(split):
    """Which annotations a split has, by their areas."""
    return {int(area) for objects in split.targets for area in objects.areas}


def both(card, message):
    """The lenient split of a card that a strict reading refuses with this message."""
    with pytest.raises(BadInput, match=message) as error:
        opened(card.model_copy(update={"strict": True}))
    assert "--lenient" in str(error.value)
    assert "\n" not in str(error.value)
    return opened(card)


ONE = {
    "box outside": ({"bbox": [50, 2, 20, 30]}, "leaves the image of 60 x 40"),
    "no width": ({"bbox": [5, 2, 0, 30]}, "has no area"),
    "negative": ({"bbox": [5, 2, 20, -30]}, "has no area"),
    "unknown image": ({"image_id": 11}, "image_id 11 is not among the images"),
    "unknown category": ({"category_id": 1}, "category_id 1 is not among the categories"),
    "mask of another size": ({"segmentation": {"size": [4, 6], "counts": [24]}}, "segmentation: size"),
    "mask too short": ({"segmentation": {"size": [40, 60], "counts": [3]}}, "do not fill"),
    "no polygon": ({"segmentation": [[1, 2, 3]]}, "a polygon is"),
    "endless polygon": ({"segmentation": [[0, 0, 9, 0, 9, 10**400]]}, "a polygon is"),
    "endless area": ({"area": 10**400}, "area: "),
    "endless box": ({"bbox": [0, 0, 1, 10**400]}, "bbox.3: "),
    "no box": ({"bbox": None}, "bbox: Input should be a valid list"),
}


@pytest.mark.parametrize("name", ONE)
def test_an_annotation_is_refused_or_left_out_alone(coco, home, capsys, name):
    change, message = ONE[name]
    split = both(coco(lambda c: c["annotations"][1].update(change)), rf"a\.json: annotation 2: .*{message}")
    assert kept(split) == {1, 3, 4, 5}
    assert split.ids == [10, 20, 30]
    assert split.targets[0].masks.shape == (2, 40, 60)  # of those that are left
    told = capsys.readouterr().err
    record = home / "broken" / "things-test.txt"
    assert re.fullmatch(
        rf"backbench: dataset things: split test: 1 of 5 annotations left out: .*a\.json: annotation 2: .*{message}.* "
        rf"\(all are named in {record}\)\n",
        told,
    )
    assert record.read_text().splitlines() == list(split.left_out)
    opened(coco(lambda c: c["annotations"][1].update(change)))
    assert capsys.readouterr().err == ""  # once a process


def test_an_id_given_twice_is_the_first(coco):
    split = both(coco(lambda c: c["annotations"][1].update(id=1)), "annotations: id 1 is given twice")
    assert kept(split) == {1, 3, 4, 5}


@pytest.mark.parametrize("how", ["broken", "missing"])
def test_an_image_goes_with_its_annotations(coco, tmp_path, how):
    card = coco()
    path = tmp_path / "images" / "20.png"
    path.unlink() if how == "missing" else path.write_bytes(path.read_bytes()[:60])
    split = both(card, rf"1 of 3 images are {how}: .*20\.png")
    assert split.ids == [10, 30]
    assert np.asarray(split.images[1])[0, 0].tolist() == [30, 0, 0]
    assert split.targets[1].boxes.shape == (0, 4)
    assert kept(split) == {1, 2, 3}
    assert len(split.left_out) == 3
    assert sum("image_id 20 was left out" in line for line in split.left_out) == 2


def test_an_image_that_is_no_record_goes_too(coco):
    split = both(coco(lambda c: c["images"][1].pop("file_name")), "picture 20: file_name: this key is required")
    assert (split.ids, kept(split), len(split.left_out)) == ([10, 30], {1, 2, 3}, 3)


def test_only_what_is_left_out_changes_the_fingerprint(coco, home):
    whole = opened(coco())
    assert whole.fingerprint == opened(coco(strict=True)).fingerprint
    assert whole.left_out == ()
    assert not (home / "broken").exists()

    def without(number):
        return opened(coco(lambda c: c["annotations"][number].update(bbox=[0, 0, 0, 0])))

    prints = [whole.fingerprint, without(0).fingerprint, without(1).fingerprint]
    assert len(set(prints)) == 3
    assert without(0).fingerprint == prints[1]
    mended = opened(coco(lambda c: c["annotations"].pop(0)))
    assert mended.fingerprint != prints[1]


def test_what_is_left_out_is_told_by_every_plan(coco, home, capsys, monkeypatch):
    """The fingerprint is remembered, so that the split is not opened again, and with it what is to be told."""
    card = coco(lambda c: c["annotations"][0].update(category_id=0))
    first = fingerprints(load_dataset(card, "detection"), ["test"], home)
    said = capsys.readouterr().err
    assert "1 of 5 annotations left out" in said
    tell.cache_clear()  # as in another process
    monkeypatch.setattr(Dataset, "__getitem__", None)
    assert fingerprints(load_dataset(card, "detection"), ["test"], home) == first
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: [a.update(bbox=[0, 0, 0, 0]) for a in c["annotations"]], "5 of 5 annotations left out: .*would be"),
        (lambda c: [i.update(file_name="x.png") for i in c["images"]], "3 of 3 images left out: .*nothing would be"),
        (lambda c: c.update(images=[]), "has no images"),
        (lambda c: c.update(categories=[]), "has no categories"),
        (lambda c: c["categories"][0].pop("name"), "category 2: name"),
        (lambda c: c["images"][0].update(file_name="../../x.png"), "file_name leads out of"),
        (lambda c: c.update(annotations=None), "'annotations' is a list"),
    ],
)
def test_what_is_wrong_with_all_of_it_is_never_left_out(coco, change, message):
    with pytest.raises(BadInput, match=message):
        opened(coco(change))


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 100) | st.floats() | st.text(max_size=3) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(["size", "counts", "a"]), inner),
    max_leaves=6,
)
ANNOTATION = st.sampled_from(["id", "image_id", "category_id", "bbox", "segmentation", "iscrowd"])
CHANGES = st.lists(
    st.tuples(st.just("annotations"), st.integers(0, 4), ANNOTATION, ODD)
    | st.tuples(st.just("annotations"), st.integers(0, 4), st.just("bbox"), st.lists(st.integers(-9, 70), min_size=4))
    | st.tuples(st.just("images"), st.integers(0, 2), st.sampled_from(["id", "file_name"]), ODD),
    min_size=1,
    max_size=4,
)


def tried(card):
    """A split, or None where it was refused."""
    try:
        return opened(card)
    except BadInput:
        return None


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CHANGES, st.sets(st.sampled_from([10, 20, 30]), max_size=2))
def test_whatever_is_changed_is_read_refused_or_named(coco, tmp_path, home, changes, broken):
    def change(told):
        for key, number, name, value in changes:
            told[key][number][name] = value

    card = coco(change)
    for id in broken:
        (tmp_path / "images" / f"{id}.png").write_bytes(b"none")
    exact, split = tried(card.model_copy(update={"strict": True})), tried(card)
    if split is None:
        assert exact is None
        return
    assert (exact is not None) == (split.left_out == ())
    objects = sum(len(found.boxes) for found in split.targets)
    assert len(split.left_out) == (3 - len(split)) + (5 - objects)
    assert all((o.boxes[:, 2:] > o.boxes[:, :2]).all() for o in split.targets)
    if split.left_out:
        record = (home / "broken" / "things-test.txt").read_text()
        changed = {number + 1 for key, number, name, _ in changes if key == "annotations" and name == "id"}
        for id in {1, 2, 3, 4, 5} - kept(split) - changed:
            assert f"annotation {id}: " in record


@pytest.fixture
def voc(tmp_path, home):
    """Two images of 60 x 40 pixels with a dog and another object each, which `voc(text)` writes for the first."""
    (tmp_path / "images").mkdir()
    (tmp_path / "xml").mkdir()

    def write(text="", classes=("cat", "dog"), **spec):
        for name in ("one", "two"):
            Image.new("RGB", (60, 40)).save(tmp_path / "images" / f"{name}.png")
            (tmp_path / "xml" / f"{name}.xml").write_text(
                f"<a>{BOX.format('dog', 1, 1, 9, 9)}{text if name == 'one' else BOX.format('cat', 1, 1, 9, 9)}</a>"
            )
        splits = {"test": {"images": "images", "annotations": "xml"} | spec}
        return DatasetCard(
            name="pets",
            kind="detection",
            source="voc",
            path=str(tmp_path),
            splits=splits,
            classes=classes,
            strict=False,
        )

    return write


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (("dog", 1, 1, 70, 9), "leaves the image of 60 x 40"),
        (("dog", 61, 1, 61, 9), "lies on the edge"),
        (("dog", 0, 1, 0, 9), "lies on the edge"),
        (("dog", 9, 1, 5, 9), "is empty or outside"),
        (("cow", 1, 1, 9, 9), "there is no class 'cow'"),
        (("dog", "left", 1, 9, 9), "bndbox/xmin is a number"),
        (("", 1, 1, 9, 9), "has no <name>"),
    ],
)
def test_an_object_of_voc(voc, capsys, box, message):
    split = both(voc(BOX.format(*box)), rf"one\.xml: object 2: .*{message}")
    assert split.ids == ["one", "two"]
    assert [len(found.boxes) for found in split.targets] == [1, 2]
    assert "split test: 1 of 4 objects left out: " in capsys.readouterr().err


def test_an_image_of_voc(voc, tmp_path):
    for break_it, message in [
        (lambda: (tmp_path / "xml" / "one.xml").write_text("<a>"), r"one\.xml: cannot be read as XML"),
        (lambda: (tmp_path / "xml" / "one.xml").unlink(), r"one\.xml: no such file, but it is listed"),
        (lambda: (tmp_path / "images" / "one.png").unlink(), r"there is no image 'one'"),
        (lambda: (tmp_path / "images" / "one.png").write_bytes(b"none"), r"1 of 2 images are broken: .*one\.png"),
    ]:
        for classes in (("cat", "dog"), ()):
            (tmp_path / "list.txt").write_text("one\ntwo\n")
            card = voc(classes=classes, list="list.txt")
            break_it()
            split = both(card, message)
            assert split.ids == ["two"]
            assert split.targets[0].labels.tolist() == [1, 0]
            assert len(split.left_out) == 1


def test_voc_is_never_lenient_with_what_may_harm(voc, tmp_path):
    card = voc(list="list.txt")
    (tmp_path / "list.txt").write_text("../images/one\ntwo\n")
    with pytest.raises(BadInput, match=r"'\.\./images/one' leads out of"):
        opened(card)
    (tmp_path / "list.txt").write_text("one\ntwo\n")
    (tmp_path / "xml" / "one.xml").write_text('<!DOCTYPE x [<!ENTITY a "b">]><annotation/>')
    with pytest.raises(BadInput, match="a document type or entity has no place"):
        opened(card)


def test_label_images(tmp_path, home):
    card = DatasetCard(
        name="pets",
        kind="segmentation",
        source="masks",
        path=str(tmp_path),
        splits={"test": {"images": "images", "masks": "labels"}},
        classes=("ground", "pet"),
        strict=False,
    )
    labels = tmp_path / "labels"
    for folder in (tmp_path / "images", labels):
        folder.mkdir()

    def put(stem, value=1, mode="L", size=(6, 4)):
        Image.new("RGB", (6, 4)).save(tmp_path / "images" / f"{stem}.png")
        Image.new(mode, size, value).save(labels / f"{stem}.png")

    for stem in "ab":
        put(stem)
    whole = opened(card)
    for spoil, message in [
        (lambda: put("b", size=(5, 4)), r"b\.png: a mask of \(4, 5\) for an image of \(4, 6\)"),
        (lambda: put("b", value=7), r"b\.png: value 7 stands for no class"),
        (lambda: put("b", mode="RGB", value=0), r"b\.png: a label image has one channel"),
        (lambda: (labels / "b.png").write_bytes(b"none"), r"1 of 4 images are broken: .*b\.png"),
        (lambda: (labels / "b.png").unlink(), "there is no 'b'; images and masks are matched"),
        (lambda: (tmp_path / "images" / "b.png").unlink(), "there is no 'b'; images and masks are matched"),
    ]:
        put("b")
        spoil()
        split = both(card, message)
        assert split.ids == ["a"]
        assert (split.targets[0] == 1).all()
        assert len(split.left_out) == 1
        assert split.fingerprint != whole.fingerprint
    put("b")
    assert opened(card).fingerprint == whole.fingerprint


def test_images_that_need_one_another_are_never_left_out(tmp_path, home):
    run = tmp_path / "run01"
    for kind in ("training", "test"):
        (run / kind).mkdir(parents=True)
        for number in (1, 2):
            Image.new("L", (9, 9)).save(run / kind / f"{number}.png")
    (run / "class_labels.txt").write_text("".join(f"run01/test/{n}.png run01/training/{n}.png\n" for n in (1, 2)))
    card = DatasetCard(
        name="runs",
        kind="episodes",
        source="omniglot",
        path=str(tmp_path),
        splits={"support": {"images": "."}, "query": {"images": "."}},
        strict=False,
    )
    assert len(load_dataset(card, "episodes")["query"]) == 2
    (run / "test" / "1.png").write_bytes(b"none")
    with pytest.raises(BadInput, match=r"1 of 2 images are broken: .*1\.png; mend or remove$"):
        load_dataset(card, "episodes")["query"]


def test_a_split_of_nothing_is_refused(coco):
    card = coco().model_copy(update={"strict": True})
    cut = card.splits | {"val": card.splits["test"].model_validate({"from": "test", "fraction": 0.1})}
    with pytest.raises(BadInput, match="dataset things: split val is empty"):
        load_dataset(card.model_copy(update={"splits": cut}), "detection")["val"]


CARD = "kind: detection\nsource: coco\nsplits:\n" + "".join(
    f"  {name}: {{images: images, annotations: a.json}}\n" for name in ("train", "val", "test")
)


def test_a_run_is_strict_or_lenient_by_choice(coco, tiny, tmp_path, capfd):
    def call(command, *words):
        returned = code([command, "detection", "-b", str(tiny), "-d", str(card), "--set", "epochs=1", *words])
        said = capfd.readouterr()
        return returned, said.out, said.err

    coco(lambda c: c["annotations"][1].update(bbox=[5, 5, 0, 0]))
    card = tmp_path / "things.yaml"
    card.write_text(CARD)
    returned, _, err = call("run")
    assert returned == 2
    assert re.search(r"a\.json: annotation 2: bbox .* has no area.*--lenient", err)
    returned, out, err = call("run", "--lenient")
    assert returned == 0, err
    assert "1 run in" in out
    for split in ("train", "test"):
        assert err.count(f"split {split}: 1 of 5 annotations left out") == 1
    card.write_text(CARD + "strict: false\n")
    assert "1 done before" in call("run")[1]
    assert call("run", "--strict")[0] == 2
    assert json.loads(call("estimate", "--lenient", "--format", "json")[1])[0]["dataset"] == "things"
    assert call("estimate", "--strict")[0] == 2
