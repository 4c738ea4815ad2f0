"""Average precision of boxes and masks against pycocotools, all twelve statistics, on a data set of COCO's shape."""

import contextlib
import io

import numpy as np
import pytest
from backbench.tasks.datasets import rle
from backbench.tasks.detection.average_precision import Regions, average_precision, average_recall, match
from backbench.tasks.detection.regions import box_overlap
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

IMAGES, CLASSES, FOUND = 2000, 80, 100  # detections an image
HEIGHT, WIDTH = 480, 640


def outlines(boxes):
    """Octagons in boxes xyxy, as COCO's compressed run lengths."""
    around = np.array([[0.3, 0], [0.7, 0], [1, 0.3], [1, 0.7], [0.7, 1], [0.3, 1], [0, 0.7], [0, 0.3]])
    corners = boxes[:, None, :2] + around * (boxes[:, None, 2:] - boxes[:, None, :2])
    return coco_mask.frPyObjects(corners.reshape(len(boxes), 1, -1)[:, 0].tolist(), HEIGHT, WIDTH)


def scenes(masks):
    """(truth, found) of each image: seven objects or so, and detections of which most are near one of them."""
    rng = np.random.default_rng(0)
    for _ in range(IMAGES):
        count = rng.poisson(7) + 1
        centre, sides = rng.uniform(0, [WIDTH, HEIGHT], (count, 2)), rng.lognormal(4.2, 0.8, (count, 2))
        truth = np.concatenate([centre - sides / 2, centre + sides / 2], axis=1)
        labels = rng.choice(rng.integers(0, CLASSES, 3), count)  # an image shows few classes
        of = rng.integers(0, count, FOUND)
        found = truth[of] + rng.normal(0, 0.12, (FOUND, 4)) * np.tile(sides[of], 2)
        found = np.sort(found.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
        guessed = np.where(rng.random(FOUND) < 0.7, labels[of], rng.integers(0, CLASSES, FOUND))
        crowd = rng.random(count) < 0.01
        yield tuple(
            regions(boxes, classes, extra, masks)
            for boxes, classes, extra in ((truth, labels, crowd), (found, guessed, rng.random(FOUND)))
        )


def regions(boxes, labels, extra, masks):
    boxes = np.clip(boxes, 0, [WIDTH, HEIGHT] * 2)
    if not masks:
        return Regions(boxes, labels, (boxes[:, 2:] - boxes[:, :2]).prod(1), extra)
    shapes = np.empty(len(boxes), object)
    shapes[:] = outlines(boxes)
    return Regions(shapes, labels, coco_mask.area(list(shapes)).astype(float), extra)


def as_coco(images, masks):
    truth, found = COCO(), COCO()
    for coco, side in ((truth, 0), (found, 1)):
        rows = []
        for image, pair in enumerate(images, 1):
            one = pair[side]
            for shape, label, area, extra in zip(one.shapes, one.labels, one.areas, one.extra, strict=True):
                where = {"segmentation": shape} if masks else {"bbox": [*shape[:2], *(shape[2:] - shape[:2])]}
                row = {"id": len(rows) + 1, "image_id": image, "category_id": int(label) + 1, "area": float(area)}
                rows.append(row | where | ({"score": float(extra), "iscrowd": 0} if side else {"iscrowd": int(extra)}))
        coco.dataset = {
            "images": [{"id": i, "height": HEIGHT, "width": WIDTH} for i in range(1, IMAGES + 1)],
            "categories": [{"id": i} for i in range(1, CLASSES + 1)],
            "annotations": rows,
        }
        coco.createIndex()
    return truth, found


@pytest.mark.speed
@pytest.mark.parametrize("kind", ["box", "mask"])
def test_average_precision(kind, interleaved, report):
    masks = kind == "mask"
    images = list(scenes(masks))
    truth, found = map(list, zip(*images, strict=True))
    everywhere, kept = np.ones(IMAGES), {}

    def ours():
        matches = match(truth, found, CLASSES, rle.overlap if masks else box_overlap)
        table = average_precision(matches, everywhere)
        recall = {most: average_recall(matches, everywhere, most).mean(1) for most in (1, 10, 100)}
        means = table.mean(1)
        kept["ours"] = [means[0], table[0, 0], table[0, 5], *means[1:]]
        kept["ours"] += [recall[1][0], recall[10][0], *recall[100]]

    def theirs():
        run.evaluate()
        run.accumulate()
        run.summarize()
        kept["theirs"] = run.stats

    with contextlib.redirect_stdout(io.StringIO()):
        run = COCOeval(*as_coco(images, masks), "segm" if masks else "bbox")
        least = interleaved(ours, theirs, rounds=2)
    off = np.abs(np.array(kept["ours"]) - kept["theirs"]).max()
    report(
        measure=f"{kind} mAP, {IMAGES} images, {IMAGES * FOUND} detections",
        against="pycocotools",
        ours=least[0],
        theirs=least[1],
        bar=">= 5x",
        held=f"12 statistics within {off:.0e}",
    )
    assert off < 1e-6
    assert least[1] >= 5 * least[0]
