"""Semantic segmentation of real photographs, their trimaps read by a card, with a real backbone and untrained."""

import pytest
from backbench.backbones import find_backbone, load_backbone
from backbench.tasks import estimate, find_task, load_dataset

pytestmark = [pytest.mark.real, pytest.mark.slow]

UNTRAINED = """\
source: timm
model: mobilenetv2_100
model_args: {pad_type: same}
pretrained: false
input: {size: 224, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}
"""
TRIMAPS = """\
kind: segmentation
source: masks
path: {root}/datasets/oxford_pets_subset
splits:
  train: {{images: train/images, masks: train/trimaps}}
  val: {{from: train, fraction: 0.15}}
  test: {{images: test/images, masks: test/trimaps}}
classes: [background, pet]
label_map: {{1: 1, 2: 0, 3: 255}}  # 3 is the border, which nobody labelled either way
license: CC-BY-SA-4.0
"""


@pytest.mark.parametrize(
    ("settings", "least"),
    [
        pytest.param({}, 75, id="linear"),
        pytest.param({"head": "upernet", "width": 64, "size": 224, "learning_rate": 1e-3}, 75, id="upernet"),
    ],
)
def test_trimaps_of_pets(real_data, mobilenet, tmp_path, context, settings, least):
    card, untrained = tmp_path / "pets.yaml", tmp_path / "untrained.yaml"
    card.write_text(TRIMAPS.format(root=real_data))
    untrained.write_text(UNTRAINED)
    data, task = load_dataset(card, "segmentation"), find_task("semantic-segmentation")
    found = {}
    for name, path in (("real", mobilenet), ("untrained", untrained)):
        backbone = load_backbone(find_backbone(path))
        outcome = task.run(backbone, data, task.recipe(settings), context)
        found[name] = estimate(task.measure(outcome.predictions, data))
        print(name, settings, found[name])
    assert found["real"]["miou"].low > found["untrained"]["miou"].high
    assert found["real"]["miou"].value > least
