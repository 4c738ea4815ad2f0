"""Frozen tasks on real photographs with a real backbone."""

import pytest
from backbench.backbones import find_backbone, load_backbone
from backbench.tasks import estimate, find_task, load_dataset

pytestmark = pytest.mark.real

BACKBONE = """\
source: timm
model: mobilenetv2_100
model_args: {{pad_type: same}}
checkpoint: {root}/weights/mobilenetv2_100_imagenet/mobilenetv2_100_224_fp16.pth
input: {{size: 224, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}}
pretraining: {{method: supervised, data: imagenet-1k}}
license: apache-2.0
"""
CLOTHING = """\
kind: classification
source: imagefolder
path: {root}/datasets/clothing_small_cc0
splits: {{train: train, val: validation, test: test}}
license: CC0-1.0
"""


def test_photographs_of_clothes(real_data, tmp_path, context):
    """Others' 5-NN with these weights on this data set: 60.8 % of ten classes."""
    for name, text in {"mobilenetv2": BACKBONE, "clothing": CLOTHING}.items():
        (tmp_path / f"{name}.yaml").write_text(text.format(root=real_data))
    backbone = load_backbone(find_backbone(tmp_path / "mobilenetv2.yaml"))
    found = {}
    for name in ("linear-probe", "knn"):
        task, data = find_task(name), load_dataset(tmp_path / "clothing.yaml", "classification")
        outcome = task.run(backbone, data, task.recipe(), context)
        found[name] = estimate(task.measure(outcome.predictions, data))["top1"]
        print(f"{name}: {found[name].value:.1f} [{found[name].low:.1f}, {found[name].high:.1f}], {outcome.chosen}")
    assert found["linear-probe"].low > 60
    assert found["knn"].low > 45
    assert context.images == 420  # each once: both tasks share the features
