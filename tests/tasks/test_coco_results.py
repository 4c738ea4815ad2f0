"""Predictions are COCO results: pycocotools reads them as they are stored, and what others wrote is read here."""

import contextlib
import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from backbench.backbones import BadInput
from backbench.tasks import Dataset, find_task, read_predictions, write_predictions
from backbench.tasks.datasets import DatasetCard, Objects, Split, rle
from backbench.tasks.datasets.coco import open_coco
from backbench.tasks.detection.average_precision import match, summary
from backbench.tasks.detection.coco_results import read_coco_results
from backbench.tasks.detection.regions import (
    Detections,
    areas_of,
    as_predictions,
    box_overlap,
    found_boxes,
    found_masks,
    true_boxes,
    true_masks,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as oracle_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

CATEGORIES = (7, 2, 90)
IDS = (139, 5, 2**40, 12)
NAMES = {"ap": 0, "ap50": 1, "ap75": 2, "ap_small": 3, "ap_medium": 4, "ap_large": 5}


def ellipses(rng, count, height, width):
    """Masks (k, H, W) of ellipses, none empty, and their boxes (k, 4)."""
    y, x = np.mgrid[:height, :width]
    centre, radii = rng.uniform(0, [height, width], (count, 2)), rng.uniform(5, 50, (count, 2))
    masks = np.zeros((count, height, width), bool)
    for mask, (cy, cx), (ry, rx) in zip(masks, centre, radii, strict=True):
        mask[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1] = True
        mask[int(min(cy, height - 1)), int(min(cx, width - 1))] = True
    spans = [(np.flatnonzero(m.any(0)), np.flatnonzero(m.any(1))) for m in masks]
    return masks, np.array([[a[0], b[0], a[-1] + 1, b[-1] + 1] for a, b in spans], float).reshape(-1, 4)


def scene(rng):
    """An image's objects, and detections near them with boxes between the pixels, some of a wrong category."""
    height, width = (int(side) for side in rng.integers(60, 200, 2))
    masks, boxes = ellipses(rng, rng.integers(0, 5), height, width)
    labels = rng.integers(0, len(CATEGORIES), len(boxes))
    objects = Objects(boxes, labels, masks, rng.random(len(boxes)) < 0.2, size=(height, width))
    chosen = rng.integers(0, len(boxes), 2 * len(boxes)) if len(boxes) else np.zeros(0, int)
    near = np.sort((boxes[chosen] + rng.normal(0, 3, (len(chosen), 4))).reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    found = np.roll(masks[chosen], rng.integers(-4, 5), axis=2)
    guessed = np.where(rng.random(len(chosen)) < 0.8, labels[chosen], 0)
    scores = rng.random(len(chosen)).astype(np.float32)
    near = np.clip(near, 0, [width, height] * 2).astype(np.float32)
    return objects, Detections(near, guessed, scores, (height, width), rle.encode(found))


def data_of(scenes, ids=None):
    split = Split(
        [np.zeros((*found.size, 3), np.uint8) for _, found in scenes],
        [objects for objects, _ in scenes],
        "scenes",
        list(range(1, len(scenes) + 1)) if ids is None else ids,
    )
    classes = [f"class {category}" for category in CATEGORIES]
    return Dataset("scenes", "detection", classes, {"test": lambda: split}, category_ids=CATEGORIES)


def predictions_of(scenes, data):
    return as_predictions([found for _, found in scenes], data["test"], data.category_ids)


def truth_of(data):
    """The data set as a COCO file has it."""
    annotations, split = [], data["test"]
    for image, objects in zip(split.ids, split.targets, strict=True):
        for k, mask in enumerate(rle.encode(objects.masks)):
            x1, y1, x2, y2 = objects.boxes[k].tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": data.category_ids[objects.labels[k]],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(areas_of(objects)[k]),
                    "iscrowd": int(objects.crowd[k]),
                    "segmentation": {"size": list(mask_size(objects)), "counts": mask},
                }
            )
    images = [{"id": i, "height": o.size[0], "width": o.size[1]} for i, o in zip(split.ids, split.targets, strict=True)]
    categories = [{"id": id, "name": name} for id, name in zip(data.category_ids, data.classes, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def mask_size(objects):
    return objects.masks.shape[1:]


def pycocotools(truth, results, kind):
    with contextlib.redirect_stdout(io.StringIO()):
        gold = COCO()
        gold.dataset = truth
        gold.createIndex()
        run = COCOeval(gold, gold.loadRes(results), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats


def ours(predictions, data, kind):
    split, categories = data["test"], data.category_ids
    if kind == "bbox":
        truth, found, overlap = true_boxes(split), found_boxes(predictions, split, categories), box_overlap
    else:
        truth, found, overlap = true_masks(split), found_masks(predictions, split, categories), rle.overlap
    return summary(match(truth, found, len(categories), overlap), np.ones(len(split)))


@pytest.mark.parametrize("seed", range(3))
def test_pycocotools_reads_the_stored_file_and_finds_our_scores(seed, tmp_path):
    rng = np.random.default_rng(seed)
    scenes = [scene(rng) for _ in range(12)]
    data = data_of(scenes)
    write_predictions(predictions_of(scenes, data), tmp_path / "predictions.parquet")
    stored, table = read_predictions(tmp_path / "predictions.parquet"), pq.read_table(tmp_path / "predictions.parquet")
    assert table.column_names == ["image_id", "category_id", "bbox", "score", "segmentation"]
    # Given boxes too, pycocotools takes a mask's area from its box; that moves only the scores by size.
    for kind, rows in (("bbox", table), ("segm", table), ("segm", table.drop_columns(["bbox"]))):
        theirs, found = pycocotools(truth_of(data), rows.to_pylist(), kind), ours(stored, data, kind)
        same = [n for n in found if n in ("ap", "ap50", "ap75") or kind == "bbox" or rows is not table]
        assert {n: found[n] / 100 for n in same} == pytest.approx({n: theirs[NAMES[n]] for n in same}, abs=1e-9)
        assert found["ap"] > 5


def test_the_tasks_score_stored_predictions(tmp_path):
    rng = np.random.default_rng(3)
    scenes = [scene(rng) for _ in range(8)]
    data = data_of(scenes)
    predictions = predictions_of(scenes, data)
    write_predictions(predictions, tmp_path / "p.parquet")
    for name in ("detection", "instance-segmentation"):
        task, ones = find_task(name), np.ones(8)
        scores = task.measure(predictions, data).scores(ones)
        assert task.measure(read_predictions(tmp_path / "p.parquet"), data).scores(ones) == scores
        assert scores["ap"] == ours(predictions, data, "bbox" if name == "detection" else "segm")["ap"]


columns = {
    "numbers": st.lists(st.integers(-(2**63), 2**63 - 1)),
    "floats": st.lists(st.floats(allow_nan=False)),
    "texts": st.lists(st.text(), min_size=1),
    "objects": st.lists(
        st.fixed_dictionaries({"size": st.lists(st.integers(0, 9), min_size=1), "counts": st.text()}), min_size=1
    ),
}


@settings(deadline=None, max_examples=60)
@given(st.one_of([st.tuples(st.just(name), values) for name, values in columns.items()]))
def test_columns_survive_the_file(tmp_path_factory, drawn):
    kind, values = drawn
    column = np.array(values, np.int64 if kind == "numbers" else float) if kind in ("numbers", "floats") else None
    if column is None:
        column = np.empty(len(values), object)
        column[:] = values
    path = tmp_path_factory.mktemp("round") / "p.parquet"
    box = np.arange(4.0 * len(values)).reshape(-1, 4)
    write_predictions({"column": column, "box": box}, path)
    read = read_predictions(path)
    assert read["column"].tolist() == values
    assert read["column"].dtype == column.dtype
    np.testing.assert_array_equal(read["box"], box)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_detections_come_back_bit_for_bit(tmp_path_factory, seed, texts):
    rng = np.random.default_rng(seed)
    scenes = [scene(rng) for _ in range(len(IDS))]
    data = data_of(scenes, [f"image {id}" for id in IDS] if texts else list(IDS))
    path = tmp_path_factory.mktemp("round") / "p.parquet"
    write_predictions(predictions_of(scenes, data), path)
    for found, (_, before) in zip(found_boxes(read_predictions(path), data["test"], CATEGORIES), scenes, strict=True):
        np.testing.assert_array_equal(found.shapes.astype(np.float32), before.boxes)
        np.testing.assert_array_equal(found.labels, before.labels)
        np.testing.assert_array_equal(found.extra, before.scores)
    for found, (_, before) in zip(found_masks(read_predictions(path), data["test"], CATEGORIES), scenes, strict=True):
        assert [shape["counts"].decode() for shape in found.shapes] == before.masks


def test_nothing_found_is_an_empty_file_of_the_same_columns(tmp_path):
    data = data_of([scene(np.random.default_rng(0))] * 2, ["a", "b"])
    nothing = Detections(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0), data["test"].targets[0].size, [])
    write_predictions(as_predictions([nothing] * 2, data["test"], CATEGORIES), tmp_path / "p.parquet")
    read = read_predictions(tmp_path / "p.parquet")
    assert list(read) == ["image_id", "category_id", "bbox", "score", "segmentation"]
    assert ours(read, data, "bbox")["ap"] == ours(read, data, "segm")["ap"] == 0


WRONG = {
    "image_id": (6, "row 1: 'image_id' is not that of an image of scenes/test, got 6"),
    "category_id": (1, "row 1: 'category_id' is not that of a category of the data set, got 1"),
    "score": (np.nan, "row 1: 'score' is not finite, got nan"),
    "bbox": ([9, 9, -3, 20], "row 1: 'bbox' is x, y, width, height with none of these below 0, got [9.0"),
    "segmentation": ({"size": [5, 5], "counts": "0"}, "row 1: 'segmentation' is a mask of ["),
}


@pytest.fixture
def three():
    """Three scenes with objects, as a data set with predictions."""
    rng = np.random.default_rng(8)
    scenes = [s for s in (scene(rng) for _ in range(9)) if len(s[1].labels) > 1][:3]
    data = data_of(scenes, list(IDS[:3]))
    return data, predictions_of(scenes, data)


def refused(predictions, data):
    with pytest.raises(BadInput) as error:
        found_masks(predictions, data["test"], CATEGORIES)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("column", WRONG)
def test_a_wrong_row_is_named(column, three):
    data, predictions = three
    value, message = WRONG[column]
    changed = predictions[column].copy()
    changed[1] = value
    assert message in refused(predictions | {column: changed}, data)
    assert f"column '{column}' is missing" in refused({n: v for n, v in predictions.items() if n != column}, data)
    if column != "image_id":
        assert f"'image_id' and '{column}' differ in length" in refused(predictions | {column: changed[1:]}, data)


def test_what_is_no_number_no_id_or_no_mask_is_refused(three):
    data, predictions = three
    count = len(predictions["score"])
    words, lists = np.array(["high"] * count, object), np.empty(count, object)
    lists[:] = [[1]] * count
    assert "'score' holds a finite number" in refused(predictions | {"score": words}, data)
    assert "'bbox' holds 4 finite numbers a row" in refused(predictions | {"bbox": predictions["bbox"][:, :3]}, data)
    assert "row 0: 'image_id' is not" in refused(predictions | {"image_id": predictions["image_id"].astype(str)}, data)
    assert "row 0: 'image_id' is not" in refused(predictions | {"image_id": lists}, data)
    assert "row 0: 'segmentation' is a mask of" in refused(predictions | {"segmentation": words}, data)
    for counts in ("zz", None):
        masks = predictions["segmentation"].copy()
        masks[0] = masks[0] | {"counts": counts}
        assert "row 0: 'segmentation': counts: " in refused(predictions | {"segmentation": masks}, data)


@pytest.mark.parametrize(
    ("ids", "message"),
    [([5, 7, 5], "two images have the id 5"), ([5, "x", 7], "all text or all integers"), ([1, 2, 2**64], "64 bits")],
)
def test_ids_that_tell_no_images_apart_are_refused(ids, message, three):
    scenes = [(objects, None) for objects in three[0]["test"].targets]
    split = Split([None] * 3, [objects for objects, _ in scenes], "x", ids, name="scenes/test")
    nothing = Detections(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0), (9, 9))
    with pytest.raises(BadInput, match=f"scenes/test: .*{message}"):
        as_predictions([nothing] * 3, split, CATEGORIES)
    with pytest.raises(BadInput, match=f"scenes/test: .*{message}"):
        found_boxes(three[1], split, CATEGORIES)


def test_results_of_others_are_read(three, tmp_path):
    """Boxes and masks; masks alone, in plain run lengths: boxes are theirs, as pycocotools has it."""
    predictions = three[1]
    write_predictions(predictions, tmp_path / "p.parquet")
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    path = tmp_path / "results.json"
    path.write_text(json.dumps(rows))
    for column, values in read_coco_results(path).items():
        assert values.tolist() == predictions[column].tolist(), column
    for row in rows:
        segment = row["segmentation"]
        segment["counts"] = rle.run_lengths(segment["counts"], segment["size"]).tolist()
        del row["bbox"]
    path.write_text(json.dumps(rows))
    read = read_coco_results(path)
    assert read["segmentation"].tolist() == predictions["segmentation"].tolist()
    expected = [oracle_mask.toBbox(segment).tolist() for segment in predictions["segmentation"]]
    assert read["bbox"].tolist() == expected


GOOD = {"image_id": 5, "category_id": 2, "bbox": [1, 2, 3.5, 4], "score": 0.5}
MASKED = GOOD | {"segmentation": {"size": [1, 2], "counts": [1, 1]}}
BAD = {
    "not json": ("[", "cannot be read as json"),
    "no list": ("{}", "a list of objects"),
    "no objects": ("[1]", "a list of objects"),
    "no category": ([{k: v for k, v in GOOD.items() if k != "category_id"}], "result 0: category_id: this key is"),
    "text for a number": ([GOOD, GOOD | {"score": "0.5"}], "result 1: score: "),
    "three numbers": ([GOOD | {"bbox": [1, 2, 3]}], "result 0: bbox: "),
    "no box and no mask": ([GOOD | {"bbox": None}], "result 0: bbox: this key is required"),
    "ids of two kinds": ([GOOD, GOOD | {"image_id": "5"}], "all text or all integers"),
    "an id beyond 64 bits": ([GOOD | {"category_id": 2**70}], "result 0: category_id: "),
    "a mask too few": ([MASKED, GOOD], "result 1: segmentation: either every result has this key or none"),
    "a mask too late": ([GOOD, MASKED], "result 1: segmentation: either every result has this key or none"),
    "runs too short": ([GOOD | {"segmentation": {"size": [1, 2], "counts": [1]}}], "do not fill 1 x 2"),
    "text of no runs": ([GOOD | {"segmentation": {"size": [1, 2], "counts": "zz"}}], "result 0: segmentation: run"),
    "no image's size": ([GOOD | {"segmentation": {"size": [0, 2], "counts": []}}], "size [0, 2] is not that of"),
}


@pytest.mark.parametrize("case", BAD)
def test_results_that_are_wrong_are_refused_in_one_line(case, tmp_path):
    content, message = BAD[case]
    path = tmp_path / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(BadInput) as error:
        read_coco_results(path)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_file_of_no_results_and_one_that_is_not_there(tmp_path):
    (tmp_path / "none.json").write_text("[]")
    assert {name: len(values) for name, values in read_coco_results(tmp_path / "none.json").items()} == {
        "image_id": 0,
        "category_id": 0,
        "bbox": 0,
        "score": 0,
    }
    with pytest.raises(BadInput, match="cannot be read as json"):
        read_coco_results(tmp_path / "gone.json")


@pytest.mark.real
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_real_detector_scores_what_pycocotools_gave(real_data, split):
    """FastestDet's boxes on real photographs, with crowds and eighty classes, against the reference's statistics."""
    spec = {"images": f"{split}2017", "annotations": f"annotations/instances_{split}2017.json"}
    root = real_data / "datasets/coco_ccby_subset"
    card = DatasetCard(name="coco", kind="detection", source="coco", path=str(root), splits={"test": spec})
    data = open_coco(card, "detection")
    results = real_data / "results/det_fastestdet/results"
    expected = json.loads((results / f"{split}2017_pycocotools_bbox.json").read_text())
    predictions = read_coco_results(results / f"{split}2017_detections.json")
    scores = find_task("detection").measure(predictions, data).scores(np.ones(len(data["test"])))
    printed = dict(zip(NAMES, ("AP", "AP50", "AP75", "APs", "APm", "APl"), strict=True))
    assert {name: scores[name] / 100 for name in NAMES} == pytest.approx(
        {name: expected[printed[name]] for name in NAMES}, abs=1e-12
    )
