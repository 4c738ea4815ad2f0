"""Detection on real photographs and micrographs, through COCO and VOC cards, with real ImageNet weights and without."""

from dataclasses import replace

import pytest
from backbench.backbones import find_backbone, load_backbone
from backbench.tasks import Dataset, estimate, find_task, load_dataset
from backbench.tasks.threads import one_thread

pytestmark = [pytest.mark.real, pytest.mark.slow]

UNTRAINED = """\
source: timm
model: mobilenetv2_100
model_args: {pad_type: same}
pretrained: false
input: {size: 224, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}
"""
COCO = """\
kind: detection
source: coco
path: {root}/datasets/coco_ccby_subset
splits:
  train: {{images: train2017, annotations: annotations/instances_train2017.json}}
  test: {{images: val2017, annotations: annotations/instances_val2017.json}}
license: CC-BY-4.0
"""
CELLS = """\
kind: detection
source: voc
path: {root}/datasets/bccd_voc
splits:
  train: {{images: JPEGImages, annotations: Annotations, list: ImageSets/Main/train.txt}}
  val: {{images: JPEGImages, annotations: Annotations, list: ImageSets/Main/val.txt}}
  test: {{images: JPEGImages, annotations: Annotations, list: ImageSets/Main/test.txt}}
license: MIT
"""
OFTEN = {"batch": 2, "epochs": 70, "learning_rate": 1.5e-3, "proposals": 100, "samples": 64, "anchor_samples": 128}
OFTEN |= {"box_width": 512, "box_cells": 7}  # 5.5 minutes of one core
TUNED = {"trainable": "full", "horizontal_flip": 0.5, "batch": 4, "epochs": 12, "learning_rate": 2e-3}
TUNED |= {"proposals": 100, "samples": 64}  # 3 minutes of one core a network


@pytest.fixture
def card(real_data, tmp_path):
    def written(text, name):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text.format(root=real_data))
        return path

    return written


def run(task, backbone, data, context, **settings):
    task, context = find_task(task), replace(context, folder=context.folder / backbone.name.replace("/", "-"))
    with one_thread():
        outcome = task.run(backbone, data, task.recipe(settings), context)
    found = estimate(task.measure(outcome.predictions, data))
    print(backbone.name, data.name, task.name, {name: round(score.value, 2) for name, score in found.items()})
    return found


def test_mask_rcnn_learns_its_own_training_photographs(mobilenet, card, context):
    """A check that learning works, no score: 56 photographs of COCO with crowds, found again."""
    data = load_dataset(card(COCO, "coco"), "detection")
    train = data["train"]
    assert (len(train), len(data["test"]), len(data.classes)) == (56, 49, 80)
    assert any(objects.crowd.any() for objects in train.targets)
    splits = {"train": lambda: train, "val": lambda: train.take(2), "test": lambda: train}
    again = Dataset("coco-again", "detection", data.classes, splits, category_ids=data.category_ids)
    found = run("instance-segmentation", load_backbone(find_backbone(mobilenet)), again, context, **OFTEN)
    assert found["ap50"].value > 50
    assert found["box_ap50"].value > 50


def test_faster_rcnn_finds_blood_cells_better_with_real_weights(mobilenet, card, context):
    data = load_dataset(card(CELLS, "cells"), "detection")
    assert data.classes == ("Platelets", "RBC", "WBC")
    real = run("detection", load_backbone(find_backbone(mobilenet)), data, context, **TUNED)
    untrained = load_backbone(find_backbone(card(UNTRAINED.replace("{", "{{").replace("}", "}}"), "untrained")))
    random = run("detection", untrained, data, context, **TUNED)
    assert real["ap50"].low > random["ap50"].high
    assert real["ap50"].value > 60
