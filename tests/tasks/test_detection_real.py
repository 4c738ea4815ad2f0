"""Dense tasks on real photographs and micrographs, through COCO, VOC and mask cards, with a real backbone."""

import pytest
from backbench.backbones import find_backbone, load_backbone
from backbench.tasks import estimate, find_task, load_dataset

pytestmark = [pytest.mark.real, pytest.mark.slow]

UNTRAINED = """\
source: timm
model: mobilenetv2_100
pretrained: false
input: {{size: 224, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}}
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
TRIMAPS = """\
kind: segmentation
source: masks
path: {root}/datasets/oxford_pets_subset
splits:
  train: {{images: train/images, masks: train/trimaps}}
  test: {{images: test/images, masks: test/trimaps}}
classes: [background, pet]
label_map: {{1: 1, 2: 0, 3: 255}}  # 3 is the border, which nobody labelled either way
license: CC-BY-SA-4.0
"""


@pytest.fixture
def card(real_data, tmp_path):
    def written(text, name):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text.format(root=real_data))
        return path

    return written


def run(task, backbone, data, context, **settings):
    task = find_task(task)
    outcome = task.run(backbone, data, task.recipe(settings), context)
    found = estimate(task.measure(outcome.predictions, data))
    print(backbone.name, data.name, task.name, {name: round(score.value, 2) for name, score in found.items()})
    return found


@pytest.mark.parametrize("task", ["detection", "instance-segmentation"])
def test_coco_for_one_epoch(mobilenet, card, context, task):
    backbone = load_backbone(find_backbone(mobilenet))
    data = load_dataset(card(COCO, "coco"), "detection")
    assert (len(data["train"]), len(data["test"]), len(data.classes)) == (56, 49, 80)
    found = run(task, backbone, data, context, epochs=1)
    assert 0 <= found["ap"].low <= found["ap"].value <= found["ap50"].value


def test_blood_cells_for_one_epoch_and_for_some(mobilenet, card, context):
    backbone = load_backbone(find_backbone(mobilenet))
    data = load_dataset(card(CELLS, "cells"), "detection")
    assert data.classes == ("Platelets", "RBC", "WBC")
    once = run("detection", backbone, data, context, epochs=1)
    longer = run("detection", backbone, data, context, epochs=8)
    assert longer["ap50"].low > once["ap50"].high
    assert longer["ap50"].value > 40


def test_trimaps_of_pets(mobilenet, card, context):
    data = load_dataset(card(TRIMAPS, "pets"), "segmentation")
    real = run("semantic-segmentation", load_backbone(find_backbone(mobilenet)), data, context)
    untrained = run("semantic-segmentation", load_backbone(find_backbone(card(UNTRAINED, "untrained"))), data, context)
    assert real["miou"].low > untrained["miou"].high
    assert real["miou"].value > 75
