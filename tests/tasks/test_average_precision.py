"""Average precision against pycocotools and faster-coco-eval, at weights against images literally repeated."""

import contextlib
import io
import time

import numpy as np
import pytest
from backbench.tasks import estimate, find_task
from backbench.tasks.datasets import Dataset, Objects, Split, rle
from backbench.tasks.detection.average_precision import average_precision, average_recall, match
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
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as oracle_mask

CLASSES = 3
SIDE = 160


def boxes_of(rng, count):
    corner, sides = rng.integers(0, SIDE - 10, (count, 2)), rng.integers(4, 130, (count, 2))
    return np.concatenate([corner, np.minimum(corner + sides, SIDE)], axis=1).astype(float)


def masks_of(rng, boxes):
    masks = np.zeros((len(boxes), SIDE, SIDE), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
        if rng.random() < 0.5:
            mask[y1 : (y1 + y2) // 2, x1 : (x1 + x2) // 2] = False
    return masks


def scene(rng, ties=False, most=5):
    """An image's objects, some of them crowds, and detections: near them, anywhere, doubled, of a wrong class."""
    boxes = boxes_of(rng, rng.integers(0, most))
    labels = rng.integers(0, CLASSES, len(boxes))
    objects = Objects(boxes, labels, masks_of(rng, boxes), rng.random(len(boxes)) < 0.2)
    found, guessed = boxes_of(rng, rng.integers(0, 5)), rng.integers(0, CLASSES, 5)
    if len(boxes):
        chosen = rng.integers(0, len(boxes), rng.integers(0, 3 * len(boxes)))
        near = np.clip(boxes[chosen] + rng.integers(-7, 8, (len(chosen), 4)), 0, SIDE)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        guessed = np.concatenate([guessed[: len(found)], np.where(rng.random(len(chosen)) < 0.9, labels[chosen], 0)])
        found = np.concatenate([found, near])
    scores = rng.random(len(found)).astype(np.float32)
    scores = np.round(scores * 3) / 3 if ties else scores
    found = np.clip(found, 0, SIDE)
    return objects, Detections(found, guessed[: len(found)], scores, (SIDE, SIDE), rle.encode(masks_of(rng, found)))


def nothing_found():
    return Detections(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0), (SIDE, SIDE), [])


def split_of(scenes):
    return Split([np.zeros((SIDE, SIDE, 3), np.uint8)] * len(scenes), [objects for objects, _ in scenes], "test")


def dataset_of(scenes):
    return Dataset("scenes", "detection", [f"class {i}" for i in range(CLASSES)], {"test": lambda: split_of(scenes)})


def predictions_of(scenes, data):
    return as_predictions([found for _, found in scenes], data["test"], data.category_ids)


def matches_of(scenes, kind):
    split, categories = split_of(scenes), range(1, CLASSES + 1)
    predictions = as_predictions([found for _, found in scenes], split, categories)
    if kind == "bbox":
        return match(true_boxes(split), found_boxes(predictions, split, categories), CLASSES, box_overlap)
    return match(true_masks(split), found_masks(predictions, split, categories), CLASSES, rle.overlap)


def ours(scenes, kind, weights=None):
    """AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl; NaN where there is nothing to find."""
    weights = np.ones(len(scenes)) if weights is None else weights.astype(float)
    matches = matches_of(scenes, kind)
    table = average_precision(matches, weights)
    recall = {most: average_recall(matches, weights, most).mean(1) for most in (1, 10, 100)}
    precision = [table[0].mean(), table[0, 0], table[0, 5], *table[1:].mean(1)]
    return [*precision, recall[1][0], recall[10][0], *recall[100]]


def as_coco(scenes, kind):
    """The same as COCO's ground truth and results."""
    truth, results = [], []
    for image, (objects, found) in enumerate(scenes, 1):
        areas, masks = areas_of(objects), rle.encode(objects.masks)
        for (x1, y1, x2, y2), label, crowd, area, mask in zip(
            objects.boxes.tolist(), objects.labels.tolist(), objects.crowd.tolist(), areas.tolist(), masks, strict=True
        ):
            one = {
                "id": len(truth) + 1,
                "image_id": image,
                "category_id": label + 1,
                "iscrowd": int(crowd),
                "area": area,
            }
            segmentation = {"size": [SIDE, SIDE], "counts": mask}
            truth.append(one | {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": segmentation})
        for (x1, y1, x2, y2), label, score, mask in zip(
            found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), found.masks, strict=True
        ):
            shape = {"bbox": [x1, y1, x2 - x1, y2 - y1]}
            if kind == "segm":
                shape = {"segmentation": {"size": [SIDE, SIDE], "counts": mask}}
            results.append({"image_id": image, "category_id": label + 1, "score": score} | shape)
    images = [{"id": image, "height": SIDE, "width": SIDE} for image in range(1, len(scenes) + 1)]
    categories = [{"id": label + 1, "name": f"class {label}"} for label in range(CLASSES)]
    return {"images": images, "annotations": truth, "categories": categories}, results


def theirs(scenes, kind, library="pycocotools"):
    if library == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    truth, results = as_coco(scenes, kind)
    with contextlib.redirect_stdout(io.StringIO()):
        gold = COCO()
        gold.dataset = truth
        gold.createIndex()
        if results:
            found = gold.loadRes(results)
        else:
            found = COCO()
            found.dataset = truth | {"annotations": []}
            found.createIndex()
        run = COCOeval(gold, found, kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    stats = np.array(run.stats[:12], float)
    return np.where(stats == -1, np.nan, stats)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(6))
def test_equals_pycocotools(kind, seed):
    rng = np.random.default_rng(seed)
    scenes = [scene(rng, ties=seed % 2 == 0) for _ in range(12)]
    np.testing.assert_allclose(ours(scenes, kind), theirs(scenes, kind), atol=1e-9)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_equals_faster_coco_eval(kind):
    rng = np.random.default_rng(10)
    scenes = [scene(rng) for _ in range(30)]
    np.testing.assert_allclose(ours(scenes, kind), theirs(scenes, kind, "faster-coco-eval"), atol=1e-6)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(4))
def test_whole_weights_are_repeated_images(kind, seed):
    rng = np.random.default_rng(100 + seed)
    scenes = [scene(rng) for _ in range(10)]
    weights = rng.integers(0, 4, len(scenes))
    repeated = [scenes[i] for i in np.repeat(np.arange(len(scenes)), weights)]
    np.testing.assert_allclose(ours(scenes, kind, weights), theirs(repeated, kind), atol=1e-9)


def test_many_detections_of_one_class_are_cut_as_the_reference_does():
    rng = np.random.default_rng(3)
    objects, _ = scene(rng, most=6)
    boxes = boxes_of(rng, 150)
    found = Detections(boxes, np.zeros(150, int), rng.random(150), (SIDE, SIDE), rle.encode(masks_of(rng, boxes)))
    scenes = [(objects, found), scene(rng)]
    np.testing.assert_allclose(ours(scenes, "bbox"), theirs(scenes, "bbox"), atol=1e-9)


def test_nothing_found_scores_zero_and_nothing_to_find_is_undefined():
    rng = np.random.default_rng(4)
    scenes = [(scene(rng)[0], nothing_found()) for _ in range(6)]
    np.testing.assert_allclose(ours(scenes, "segm"), theirs(scenes, "segm"), atol=1e-9)
    empty = Objects(np.zeros((0, 4)), np.zeros(0, int), np.zeros((0, SIDE, SIDE), bool), np.zeros(0, bool))
    assert np.isnan(ours([(empty, found) for _, found in scenes], "bbox")).all()
    assert np.isnan(ours([(empty, scene(rng)[1])], "bbox")).all()


def test_perfect_detections_score_a_hundred():
    rng = np.random.default_rng(5)
    scenes = []
    for _ in range(8):
        objects, _ = scene(rng)
        keep = ~objects.crowd
        masks = rle.encode(objects.masks[keep])
        found = Detections(objects.boxes[keep], objects.labels[keep], np.ones(keep.sum()), (SIDE, SIDE), masks)
        scenes.append((objects, found))
    task, data = find_task("instance-segmentation"), dataset_of(scenes)
    scores = task.measure(predictions_of(scenes, data), data).scores(np.ones(len(scenes)))
    assert scores["ap"] == scores["ap50"] == scores["box_ap"] == pytest.approx(100)
    assert set(scores) <= set(task.scores)


@given(st.integers(0, 2**32 - 1))
def test_order_of_images_and_scale_of_weights_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    scenes = [scene(rng) for _ in range(4)]
    weights = rng.integers(1, 64, 4) / 16  # sums of these are exact: recall meets its 101 marks to the last bit
    order = rng.permutation(4)
    before = ours(scenes, "bbox", weights)
    np.testing.assert_allclose(before, ours(scenes, "bbox", 4 * weights), atol=1e-9)
    np.testing.assert_allclose(before, ours([scenes[i] for i in order], "bbox", weights[order]), atol=1e-9)
    defined = np.array(before)[~np.isnan(before)]
    assert ((defined >= 0) & (defined <= 1 + 1e-12)).all()


def test_box_overlap_equals_the_reference():
    rng = np.random.default_rng(6)
    found, truth, crowd = boxes_of(rng, 40), boxes_of(rng, 30), rng.random(30) < 0.3
    xywh = [np.concatenate([b[:, :2], b[:, 2:] - b[:, :2]], axis=1) for b in (found, truth)]
    np.testing.assert_allclose(
        box_overlap(found, truth, crowd), oracle_mask.iou(*xywh, crowd.astype(np.uint8)), atol=1e-12
    )


def test_an_interval_takes_seconds_for_three_hundred_images():
    rng = np.random.default_rng(7)
    scenes = [scene(rng) for _ in range(300)]
    task, data = find_task("detection"), dataset_of(scenes)
    measure = task.measure(predictions_of(scenes, data), data)
    assert measure.replicates == 1000
    start = time.process_time()
    found = estimate(measure)
    assert time.process_time() - start < 6
    assert found["ap"].low < found["ap"].value < found["ap"].high


def test_run_lengths_equal_the_reference():
    rng = np.random.default_rng(9)
    for _ in range(100):
        height, width = rng.integers(1, 50, 2)
        masks = rng.random((2, height, width)) < rng.random()
        for text, mask in zip(rle.encode(masks), masks, strict=True):
            assert text == oracle_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
            assert (rle.decode(text, (height, width)) == mask).all()


@given(st.text(max_size=30), st.tuples(st.integers(1, 20), st.integers(1, 20)))
def test_any_text_is_run_lengths_that_fill_the_mask_or_refused(text, size):
    try:
        mask = rle.decode(text, size)
    except ValueError:
        return
    assert mask.shape == size
