"""Detection and segmentation under shift: scores by split against other implementations, twins drawn as one."""

from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
from backbench.backbones import BadInput
from backbench.tasks import Dataset, estimate, find_task, load_dataset, read_predictions, write_predictions
from backbench.tasks.datasets import Objects, Split
from backbench.tasks.detection.regions import Detections
from backbench.tasks.ood import detection_shift, segmentation_shift
from sklearn.metrics import jaccard_score

SIDE, CLASSES = 40, 3
COUNTS = {"train": 4, "val": 4, "test": 12, "shift:fog": 12, "shift:night": 7}
NOISE = {"test": 1.0, "shift:fog": 2.0, "shift:night": 3.0}  # pixels, or percent of the pixels
TASKS = {"detection": "detection-shift", "segmentation": "segmentation-shift"}
HEADLINE = {"detection": ("detection", "ap"), "segmentation": ("semantic-segmentation", "miou")}
ENGINE = {"detection": (detection_shift, "detector"), "segmentation": (segmentation_shift, "segmenter")}
TINY = {
    "detection": {"size": 32, "epochs": 1, "batch": 2, "width": 8, "box_width": 8, "proposals": 8},
    "segmentation": {"size": 32, "epochs": 1, "batch": 2},
}


def objects_of(rng):
    corner, sides = rng.integers(0, 20, (2, 2)), rng.integers(8, 20, (2, 2))
    return Objects(np.concatenate([corner, corner + sides], axis=1), rng.integers(0, CLASSES, 2), size=(SIDE, SIDE))


def split_of(kind, name, count, grouped):
    """Every split has the same scenes, as far as they go."""
    rng = np.random.default_rng(1)
    images = [np.zeros((SIDE, SIDE, 3), np.uint8)] * count
    targets = [
        objects_of(rng) if kind == "detection" else rng.integers(0, CLASSES, (SIDE, SIDE)).astype(np.uint8)
        for _ in images
    ]
    groups = np.arange(count) if grouped else None
    return Split(images, targets, f"{kind}-{name}", [f"{name}/{i}" for i in range(count)], groups)


def data_of(kind, grouped=True, counts=COUNTS):
    classes = [f"class {i}" for i in range(CLASSES)]
    return Dataset("scenes", kind, classes, {n: partial(split_of, kind, n, c, grouped) for n, c in counts.items()})


def guesses(kind, noise, split):
    """What is there, wrong by noise that has the name of the split in it."""
    amount, found = noise[split.name.removeprefix("scenes/")], []
    for row, target in enumerate(split.targets):
        rng = np.random.default_rng([row, int(100 * amount)])
        if kind == "segmentation":
            found.append(np.where(rng.random((SIDE, SIDE)) < amount / 100, 0, target).astype(np.uint8))
        else:
            boxes = np.sort((target.boxes + rng.normal(0, amount, (2, 4))).reshape(2, 2, 2), axis=1).reshape(2, 4)
            found.append(Detections(boxes, target.labels, rng.random(2), (SIDE, SIDE)))
    return found


@pytest.fixture
def run(monkeypatch, context):
    """`run(kind, data, noise)`: the predictions of an engine that has learned nothing but to guess."""

    def made(kind, data, noise=NOISE):
        module, name = ENGINE[kind]
        monkeypatch.setattr(module, name, lambda *_, **__: (partial(guesses, kind, noise), {"learning_rate": 1.0}))
        task = find_task(TASKS[kind])
        outcome = task.run(None, data, task.recipe(), context)
        assert outcome.chosen == {"learning_rate": 1.0}
        return task, outcome.predictions

    return made


@pytest.mark.parametrize("kind", TASKS)
def test_scores_are_means_of_those_of_each_shift(kind, run, tmp_path):
    data = data_of(kind)
    task, predictions = run(kind, data)
    write_predictions(predictions, tmp_path / "p.parquet")
    predictions = read_predictions(tmp_path / "p.parquet")
    each = {}
    for split in ("test", "shift:fog", "shift:night"):
        if kind == "segmentation":
            found = np.stack(guesses(kind, NOISE, data[split])).ravel()
            each[split] = 100 * jaccard_score(np.stack(list(data[split].targets)).ravel(), found, average="macro")
        else:
            alone = Dataset("alone", kind, data.classes, {"test": partial(data.__getitem__, split)})
            rows = predictions["split"] == split
            measure = find_task("detection").measure({n: v[rows] for n, v in predictions.items()}, alone)
            each[split] = measure.scores(np.ones(len(data[split])))["ap"]
    measure = task.measure(predictions, data)
    assert measure.examples == 12 + 12 + 7
    found = measure.scores(np.ones(31))
    shifted = (each["shift:fog"] + each["shift:night"]) / 2
    metric = task.headline.removeprefix("shift_")
    assert list(found)[:3] == list(task.scores)[:3]
    assert found == pytest.approx(
        {
            task.headline: shifted,
            task.headline.replace("shift", "clean"): each["test"],
            "relative_drop": 100 * (each["test"] - shifted) / each["test"],
            f"{metric}:fog": each["shift:fog"],
            f"{metric}:night": each["shift:night"],
        }
    )
    assert each["test"] > each["shift:fog"] > each["shift:night"] > 0


def test_detections_of_a_split_are_coco_results(run, tmp_path):
    data = data_of("detection")
    write_predictions(run("detection", data)[1], tmp_path / "p.parquet")
    rows = pq.read_table(tmp_path / "p.parquet", filters=[("split", "=", "shift:fog")]).to_pylist()
    assert {row["image_id"] for row in rows} == set(data["shift:fog"].ids)
    assert set(rows[0]) == {"split", "image_id", "category_id", "bbox", "score"}


@pytest.mark.parametrize("kind", TASKS)
def test_a_scene_and_its_twins_are_drawn_as_one(kind, run):
    """Where twins are guessed alike there is no drop, whatever is drawn; without groups there is one by luck."""
    counts, same = COUNTS | {"shift:night": 12}, dict.fromkeys(NOISE, 2.0)
    found = {}
    for grouped in (True, False):
        task, predictions = run(kind, data := data_of(kind, grouped, counts), same)
        found[grouped] = estimate(task.measure(predictions, data))
    drop = found[True]["relative_drop"]
    assert (drop.low, drop.value, drop.high) == pytest.approx((0, 0, 0), abs=1e-9)
    assert found[False]["relative_drop"].low < -1e-3 < 1e-3 < found[False]["relative_drop"].high


@pytest.mark.parametrize("kind", TASKS)
def test_what_finds_nothing_does_not_drop(kind, run):
    data = data_of(kind)
    task, predictions = run(kind, data)
    if kind == "segmentation":
        data = data_of(kind)
        for name in ("test", "shift:fog", "shift:night"):
            data[name].targets[:] = [np.ones((SIDE, SIDE), np.uint8)] * len(data[name])
        task, predictions = run(kind, data, dict.fromkeys(NOISE, 200.0))
    else:
        predictions = {name: values[:0] for name, values in predictions.items()}
    assert set(task.measure(predictions, data).scores(np.ones(31)).values()) == {0.0}


@pytest.mark.parametrize("kind", TASKS)
def test_a_resample_without_a_shift_counts_the_others(kind, run):
    data = data_of(kind)
    task, predictions = run(kind, data)
    measure = task.measure(predictions, data)
    weights = np.ones(31)
    weights[-7:] = 0
    without = {name: count for name, count in COUNTS.items() if name != "shift:night"}
    rest = {name: values[predictions["split"] != "shift:night"] for name, values in predictions.items()}
    alone = task.measure(rest, data_of(kind, counts=without)).scores(np.ones(24))
    metric = task.headline.removeprefix("shift_")
    assert measure.scores(weights) == pytest.approx(alone | {f"{metric}:night": 0})
    weights[12:] = 0
    assert measure.scores(weights)[task.headline] == 0


@pytest.mark.parametrize("kind", TASKS)
def test_wrong_predictions_are_refused(kind, run):
    data = data_of(kind)
    task, predictions = run(kind, data)

    def refused(changed):
        with pytest.raises(BadInput) as error:
            task.measure(changed, data)
        assert "\n" not in str(error.value)
        return str(error.value)

    strange = predictions["split"].copy()
    strange[3] = "shift:rain"
    message = "predictions: row 3: 'split' is one of test, shift:fog, shift:night, got 'shift:rain'"
    assert refused(predictions | {"split": strange}) == message
    assert "'split' is missing" in refused({n: v for n, v in predictions.items() if n != "split"})
    moved = predictions["split"].copy()
    moved[moved == "shift:night"] = "shift:fog"
    assert refused(predictions | {"split": moved}).startswith("split shift:fog: predictions")


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("ids", [None, range(100, 112)])
def test_splits_may_call_their_images_by_numbers_or_by_text(kind, ids, run, tmp_path):
    """As the splits of a combined card do, whose files are of different formats."""
    whole = data_of(kind)
    other = replace(whole["test"], ids=() if ids is None else list(ids))
    builders = {name: partial(whole.__getitem__, name) for name in COUNTS} | {"test": lambda: other}
    data = Dataset("scenes", kind, whole.classes, builders)
    task, predictions = run(kind, data)
    write_predictions(predictions, tmp_path / "p.parquet")
    scores = task.measure(read_predictions(tmp_path / "p.parquet"), data).scores(np.ones(31))
    assert scores == task.measure(run(kind, whole)[1], whole).scores(np.ones(31))


@pytest.mark.parametrize("kind", TASKS)
def test_a_data_set_without_shifts_is_refused(kind):
    whole = {name: count for name, count in COUNTS.items() if not name.startswith("shift")}
    with pytest.raises(BadInput, match=f"{TASKS[kind]} needs a split 'shift:\\*'"):
        find_task(TASKS[kind]).check_data(data_of(kind, counts=whole))


@pytest.mark.parametrize("kind", TASKS)
def test_the_clean_score_is_the_plain_tasks(kind, make_backbone, odd_scenes, context):
    """Trained for real: the same training, and images of odd sizes, one of them empty, in every split."""
    found, (plain, metric) = {}, HEADLINE[kind]
    for name in (TASKS[kind], plain):
        task, data = find_task(name), odd_scenes(kind)
        predictions = task.run(make_backbone(size=32), data, task.recipe(TINY[kind]), context).predictions
        found[name] = estimate(task.measure(predictions, data))
    assert found[TASKS[kind]][f"clean_{metric}"].value == found[plain][metric].value
    task = find_task(TASKS[kind])
    for name, one in found[TASKS[kind]].items():
        assert task.metric(name).low <= one.low <= one.value <= one.high <= task.metric(name).high


def test_digit_scenes_have_shifted_twins():
    detection, segmentation = (load_dataset("digit-scenes", kind) for kind in TASKS)
    shifts = [name for name in detection.split_names if name.startswith("shift:")]
    assert detection.split_names == segmentation.split_names == ["train", "val", "test", *shifts]
    assert len(shifts) == 6
    test = detection["test"]
    for name in shifts:
        split = detection[name]
        assert len(split) == len(test)
        assert (split.groups == test.groups).all()
        assert not (split.images == test.images).all(axis=(1, 2, 3)).any()
        same = [np.array_equal(one.labels, twin.labels) for one, twin in zip(split.targets, test.targets, strict=True)]
        assert np.mean(same) > 0.99  # a stroke that hides a digit altogether may lie elsewhere
        if name not in ("shift:rotation", "shift:texture"):  # these move ink, or what lies over it
            for one, twin in zip(split.targets, test.targets, strict=True):
                np.testing.assert_array_equal(one.masks, twin.masks)
        np.testing.assert_array_equal(segmentation[name].targets[7] > 0, split.targets[7].masks.any(axis=0))
    for name, plain in (("detection", detection), ("semantic-segmentation", segmentation)):
        assert find_task(name).splits(plain) == ["train", "val", "test"]
