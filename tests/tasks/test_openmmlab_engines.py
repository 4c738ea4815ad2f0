"""mmdet and mmseg as engines of the tasks: any backbone learns and is scored, a killed training goes on."""

import json
import random
import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from backbench import load_backbone
from backbench.backbones import BackboneCard, Letterbox, Unavailable
from backbench.tasks import Bank, Context, estimate, find_task
from backbench.tasks.datasets import Dataset, Objects, Split, rle
from backbench.tasks.detection.average_precision import average_precision, average_recall
from backbench.tasks.detection.frame import boxes_in
from backbench.tasks.detection.regions import Detections, areas_of, as_predictions
from backbench.tasks.detection.scoring import box_matches, mask_matches
from backbench.tasks.openmmlab.gate import openmmlab
from backbench.tasks.training import processes
from backbench.tasks.training.loop import CURVE, Diverged
from backbench.tasks.training.pictures import shuffled

pytest.importorskip("mmengine")

SMALL = {"width": 16, "box_width": 16, "mask_width": 16, "mask_layers": 1, "proposals": 16, "samples": 16}
STEPS = {
    "epochs": 1,
    "batch": 2,
    "learning_rate": 1e-3,
    "trainable": "full",
    "scale": (0.5, 1.5),
    "horizontal_flip": 0.5,
}
TASKS = {
    "cascade-mask-rcnn": ("instance-segmentation", {"engine": "mmdet"} | SMALL),
    "upernet": ("semantic-segmentation", {"engine": "mmseg", "head": "upernet", "width": 16}),
    "fcn": ("semantic-segmentation", {"engine": "mmseg", "head": "fcn", "width": 16}),
}
COARSE = {
    "source": "timm",
    "model": "efficientvit_m0",
    "pretrained": False,
    "input": {"size": 64},
}  # strides 16, 32, 64


def equal(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def outcome(name, backbone, odd_scenes, context, **settings):
    task, recipe = TASKS[name]
    task = find_task(task)
    data = odd_scenes(task.needs.data)
    return task, data, task.run(backbone, data, task.recipe(recipe | STEPS | settings), context)


# -- every kind of backbone ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_every_kind_of_backbone_learns_and_is_scored(name, kind, odd_scenes, context):
    before = kind.weights_digest
    task, data, done = outcome(name, kind, odd_scenes, context)
    scores = estimate(task.measure(done.predictions, data))
    assert set(scores) <= set(task.scores)
    assert 0 <= scores[task.headline].value <= 100
    assert kind.weights_digest == before  # what learned is a copy
    [curve] = context.folder.rglob(CURVE)
    [row] = map(json.loads, curve.read_text().splitlines())
    assert row["step"] == 2
    assert np.isfinite(row["loss"])
    assert {"val_ap", "val_miou"} & set(row)


@pytest.mark.parametrize("detector", ["faster-rcnn", "retinanet"])
@pytest.mark.parametrize("model", ["mini/cnn-supervised", "mini/vit-supervised", COARSE], ids=["cnn", "vit", "coarse"])
def test_other_detectors_learn_on_any_maps(detector, model, odd_scenes, context):
    backbone = load_backbone(BackboneCard.model_validate(model) if isinstance(model, dict) else model)
    task, data = find_task("detection"), odd_scenes("detection")
    recipe = task.recipe({"engine": "mmdet", "detector": detector} | SMALL | STEPS | {"size": 64})
    done = task.run(backbone, data, recipe, context)
    assert 0 <= estimate(task.measure(done.predictions, data))["ap"].value <= 100


def test_what_is_found_lies_where_it_is(odd_scenes, context):
    """A detector whose parts answer with the truth in the network's pixels finds it in the images' own."""
    detection = import_module("backbench.tasks.openmmlab.detection")
    models = import_module("backbench.tasks.openmmlab.models")
    backbone, split = load_backbone("mini/cnn-supervised"), odd_scenes("detection")["train"]
    recipe = find_task("instance-segmentation").recipe({"engine": "mmdet"} | SMALL)
    model = openmmlab("mmengine.registry").MODELS.build(models.detector(backbone, 2, 96, recipe, masks=True)).eval()
    letterbox = Letterbox.of(backbone.input, 96)
    sizes = [image.shape[:2] for image in split.images]
    boxes = [torch.from_numpy(boxes_in(o, s, letterbox)) for o, s in zip(split.targets, sizes, strict=True)]
    Instances = openmmlab("mmengine.structures").InstanceData

    def proposed(_maps, samples, **_):
        return [
            Instances(bboxes=b, scores=torch.ones(len(b)), labels=torch.zeros(len(b))) for b in boxes[: len(samples)]
        ]

    model.rpn_head.predict = proposed
    for head in model.roi_head.bbox_head:
        head.forward = lambda regions: (torch.tensor([[0.0, 9.0, 0.0]] * len(regions)), torch.zeros(len(regions), 4))
    for head in model.roi_head.mask_head:
        head.forward = lambda regions: torch.full((len(regions), 2, 14, 14), 9.0)
    found = detection.detect(letterbox, len(split), context, model, split)
    assert [len(one.labels) for one in found] == [len(objects.labels) for objects in split.targets]
    for one, objects, size in zip(found, split.targets, sizes, strict=True):
        np.testing.assert_allclose(one.boxes, objects.boxes, atol=1e-3)
        assert set(one.labels) <= {1}
        for counts, mask in zip(one.masks, objects.masks, strict=True):
            seen = rle.decode(counts, size)
            assert (seen & mask).sum() > 0.95 * (seen | mask).sum()  # corners are rounded


def test_the_protocol_of_battle_of_the_backbones_is_a_recipe():
    page = (Path(import_module("backbench.tasks.openmmlab").__file__).parent / "README.md").read_text()
    [says] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    recipe = find_task("instance-segmentation").recipe(yaml.safe_load(says))
    assert (recipe.milestones, recipe.epochs, recipe.clip_grad, recipe.detector) == ((27, 33), 36, None, "cascade-rcnn")


# -- going on, and stopping ----------------------------------------------------------------------------------------


class Killed(BaseException):
    """What ends a process, as it were."""


@pytest.fixture
def stopped_at(tmp_path):
    """A context whose training ends at a step as if it were killed."""

    def made(step, folder="cell"):
        def progress(what, done, _total):
            if what.startswith("epoch") and done == step:
                raise Killed

        return Context(Bank(tmp_path / "features"), tmp_path / folder, progress=progress)

    return made


@pytest.mark.parametrize("name", ["cascade-mask-rcnn", "upernet"])
def test_a_killed_training_goes_on_to_the_same_bits(name, odd_scenes, stopped_at, tmp_path):
    backbone, how = load_backbone("mini/vit-supervised"), {"epochs": 3, "size": 64}
    _, _, whole = outcome(name, backbone, odd_scenes, stopped_at(None), **how)
    for step in (1, 5):  # before the first checkpoint, and in the midst of the last epoch
        with pytest.raises(Killed):
            outcome(name, backbone, odd_scenes, stopped_at(step, f"{step}"), **how)
        random.seed(step), np.random.seed(step), torch.manual_seed(step)  # noqa: NPY002 - as in another process
        _, _, again = outcome(name, backbone, odd_scenes, stopped_at(None, f"{step}"), **how)
        assert equal(again.predictions, whole.predictions)
    curves = [path.read_text() for path in tmp_path.rglob(CURVE)]
    assert len(curves) == 3
    assert len(set(curves)) == 1


def test_a_finished_training_is_read_back(odd_scenes, stopped_at):
    backbone = load_backbone("mini/vit-supervised")
    _, _, done = outcome("fcn", backbone, odd_scenes, stopped_at(None), size=64)
    _, _, again = outcome("fcn", backbone, odd_scenes, stopped_at(1), size=64)  # which a training would not survive
    assert equal(again.predictions, done.predictions)


def test_the_rate_is_chosen_on_validation_data(odd_scenes, context):
    backbone = load_backbone("mini/vit-supervised")
    _, _, done = outcome("fcn", backbone, odd_scenes, context, learning_rate=(1e-9, 1e-2), epochs=4, size=64)
    curves = {path.parent.name: json.loads(path.read_text().splitlines()[-1]) for path in context.folder.rglob(CURVE)}
    scores = {rate: curves[f"learning-rate-{rate:g}"]["val_miou"] for rate in (1e-9, 1e-2)}
    assert done.chosen == {"learning_rate": max(scores, key=scores.get), "val_miou": max(scores.values())}


@pytest.mark.parametrize("name", TASKS)
def test_a_loss_that_is_no_number_ends_in_one_line(name, odd_scenes, context):
    with pytest.raises(Diverged) as told:
        outcome(
            name, load_backbone("mini/cnn-random"), odd_scenes, context, epochs=20, learning_rate=1e30, clip_grad=None
        )
    assert "mini/cnn-random at learning rate 1e+30: the loss is " in str(told.value)
    assert "trainable full" in str(told.value)
    assert "\n" not in str(told.value)


def test_memory_that_is_full_halves_what_is_seen_at_once(odd_scenes, context, monkeypatch):
    seen, said = [], []
    context.progress = lambda what, done, total: said.append(what)
    runner = import_module("backbench.tasks.openmmlab.runner")
    sizes = runner.Keeper.before_train_iter

    def full(self, hooked, batch_idx, data_batch=None):
        seen.append(len(data_batch["inputs"]))
        if seen[-1] > 1:
            raise torch.OutOfMemoryError("a stub: memory is full")
        sizes(self, hooked, batch_idx, data_batch)

    monkeypatch.setattr(runner.Keeper, "before_train_iter", full)
    _, _, done = outcome("fcn", load_backbone("mini/vit-supervised"), odd_scenes, context, batch=4, size=64)
    assert seen == [4, 2, 1, 1, 1, 1]
    assert "out of memory: from here on 2 of a batch of 4 at once" in said
    assert done.chosen["micro_batch"] == 1
    [row] = [json.loads(path.read_text()) for path in context.folder.rglob(CURVE)]
    assert (row["step"], row["micro_batch"]) == (1, 1)


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_parts_of_the_batches_hold_every_picture(parts):
    runner = import_module("backbench.tasks.openmmlab.runner")
    scenes, plan = SimpleNamespace(rows=np.arange(11), seed=5), SimpleNamespace(batch=4, steps=3)
    order = runner.Order(scenes, plan, parts)
    for order.epoch in (0, 1):
        found, batches = list(order), list(shuffled(scenes.rows, 4, 5, range(order.epoch, order.epoch + 1), even=False))
        assert len(found) == len(order) == 3 * parts
        for index, batch in enumerate(batches):
            seen = found[index * parts : (index + 1) * parts]
            assert {place for part in seen for place in part} == set(batch)
            assert max(map(len, seen)) <= -(-4 // parts)
            assert min(map(len, seen)) >= 1


def test_nothing_of_the_process_is_changed(odd_scenes, context, capfd):
    kinds = [openmmlab("mmengine.registry").DefaultScope, openmmlab("mmengine.logging").MMLogger]
    before = [list(kind._instance_dict) for kind in kinds]
    state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    outcome("fcn", load_backbone("mini/vit-supervised"), odd_scenes, context, size=64)
    assert [list(kind._instance_dict) for kind in kinds] == before
    assert random.getstate() == state[0]
    assert np.random.get_state()[1].tolist() == state[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), state[2])
    assert capfd.readouterr() == ("", "")
    left = {path.name for path in context.folder.rglob("*") if path.is_file()}
    assert left == {CURVE, "checkpoint.json", "epoch-0001.safetensors"}


def test_one_process_trains(odd_scenes, context, monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(Unavailable, match="one process"):
        outcome("fcn", load_backbone("mini/vit-supervised"), odd_scenes, context)


def test_upernet_learns_from_one_image_at_once(odd_scenes, context):
    outcome("upernet", load_backbone("mini/vit-supervised"), odd_scenes, context, micro_batch=1, size=64)
    [row] = [json.loads(path.read_text()) for path in context.folder.rglob(CURVE)]
    assert row["micro_batch"] == 1
    assert np.isfinite(row["loss"])


def test_mmseg_slides_over_what_is_longer_than_wide(odd_scenes, context):
    task, data, done = outcome(
        "fcn", load_backbone("mini/vit-supervised"), odd_scenes, context, inference="slide", size=64
    )
    assert 0 <= estimate(task.measure(done.predictions, data))["miou"].value <= 100


# -- the same statistics -------------------------------------------------------------------------------------------

SIDE, CLASSES = 160, ("a", "b", "c")


def some_boxes(rng, count):
    corner = rng.integers(0, SIDE - 10, (count, 2))
    return np.concatenate([corner, np.minimum(corner + rng.integers(4, 130, (count, 2)), SIDE)], axis=1).astype(float)


def masks_in(rng, boxes):
    masks = np.zeros((len(boxes), SIDE, SIDE), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1 : x2 if rng.random() < 0.5 else (x1 + x2 + 1) // 2] = True
    return masks


def scene(rng):
    """An image's objects, one in five a crowd, and what was found: near them, elsewhere, or nothing."""
    boxes = some_boxes(rng, rng.integers(0, 5))
    labels = rng.integers(0, len(CLASSES), len(boxes))
    objects = Objects(boxes, labels, masks_in(rng, boxes), rng.random(len(boxes)) < 0.2)
    near = rng.integers(0, len(boxes), 2 * len(boxes)) if len(boxes) else np.zeros(0, int)
    other = some_boxes(rng, rng.integers(0, 4))
    found = np.concatenate([np.clip(boxes[near] + rng.integers(-6, 7, (len(near), 4)), 0, SIDE), other])
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
    guessed = np.concatenate([labels[near], rng.integers(0, len(CLASSES), len(other))])
    scores = np.round(rng.random(len(found)), 1).astype(np.float32)  # some are equal
    return objects, Detections(found, guessed, scores, (SIDE, SIDE), rle.encode(masks_in(rng, found)))


def of_mmdet(scenes, kind, folder, monkeypatch):
    """The 12 numbers behind CocoMetric's, NaN where it says that there is nothing of that size."""
    truth = []
    for image, (objects, _) in enumerate(scenes):
        masks, areas = rle.encode(objects.masks), areas_of(objects)
        for index, (x1, y1, x2, y2) in enumerate(objects.boxes.tolist()):
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": image,
                    "category_id": int(objects.labels[index]),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(areas[index]),
                    "iscrowd": int(objects.crowd[index]),
                    "segmentation": {"size": [SIDE, SIDE], "counts": masks[index]},
                }
            )
    images = [{"id": image, "height": SIDE, "width": SIDE} for image in range(len(scenes))]
    categories = [{"id": index, "name": name} for index, name in enumerate(CLASSES)]
    file = folder / f"{kind}.json"
    file.write_text(json.dumps({"images": images, "annotations": truth, "categories": categories}))
    made = []
    coco_metric = openmmlab("mmdet.evaluation.metrics.coco_metric")

    class Kept(coco_metric.COCOeval):
        def __init__(self, *given):
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(coco_metric, "COCOeval", Kept)
    metric = coco_metric.CocoMetric(str(file), metric=[kind], proposal_nums=(1, 10, 100))
    metric.dataset_meta = {"classes": CLASSES}
    for image, (_, found) in enumerate(scenes):
        instances = {name: torch.from_numpy(getattr(found, name)) for name in ("scores", "labels")}
        instances["bboxes"] = torch.from_numpy(found.boxes)
        instances["masks"] = [{"size": [SIDE, SIDE], "counts": text.encode()} for text in found.masks]
        metric.process({}, [{"pred_instances": instances, "img_id": image, "ori_shape": (SIDE, SIDE)}])
    told = metric.evaluate(len(scenes))
    stats = np.array(made[-1].stats[:12], float)
    assert told[f"coco/{kind}_mAP"] == pytest.approx(stats[0], abs=1e-3)  # which it rounds
    return np.where(stats == -1, np.nan, stats)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(3))
def test_the_same_predictions_have_mmdets_statistics(kind, seed, tmp_path, monkeypatch):
    rng = np.random.default_rng(seed)
    scenes = [scene(rng) for _ in range(14)]
    scenes[0] = (scenes[0][0], Detections(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0), (SIDE, SIDE), []))
    split = Split([np.zeros((SIDE, SIDE, 3), np.uint8)] * len(scenes), [objects for objects, _ in scenes], "test")
    data = Dataset("scenes", "detection", CLASSES, {"test": lambda: split})
    predictions = as_predictions([found for _, found in scenes], split, data.category_ids)
    matches = (box_matches if kind == "bbox" else mask_matches)(predictions, split, data)
    weights = np.ones(len(scenes))
    table = average_precision(matches, weights)
    recall = {most: average_recall(matches, weights, most).mean(1) for most in (1, 10, 100)}
    ours = [table[0].mean(), table[0, 0], table[0, 5], *table[1:].mean(1), recall[1][0], recall[10][0], *recall[100]]
    np.testing.assert_allclose(ours, of_mmdet(scenes, kind, tmp_path, monkeypatch), atol=1e-9)
