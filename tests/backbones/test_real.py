"""Real weights, where they are at hand: they load whole, and know ImageNet's classes in features alone."""

import pytest
import torch
from backbench.backbones import find_backbone, load_backbone
from backbench.backbones.check import check

pytestmark = pytest.mark.real

HALF = "{size: %d, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}"
CARDS = {
    "mobilenetv2_100_imagenet/mobilenetv2_100_224_fp16.pth": (
        f"source: timm\nmodel: mobilenetv2_100\nmodel_args: {{pad_type: same}}\ninput: {HALF % 224}\n",
        1280,
    ),
    "squeezenet1_0_imagenet/squeezenet1_0_imagenet_fp16.pth": (
        "source: torchvision\nmodel: squeezenet1_0\n"
        "input: {size: 224, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}\n",
        512,
    ),
    "mobilenetv1_025_imagenet/mobilenetv1_025_128_fp16.pth": (
        f"source: python\nmodel: net.py:make\nmodel_args: {{width: 0.25}}\nhead: classifier\ninput: {HALF % 128}\n",
        256,
    ),
    "mobilenetv1_050_imagenet/mobilenetv1_050_160_fp16.pth": (
        f"source: python\nmodel: net.py:make\nmodel_args: {{width: 0.5}}\nhead: classifier\ninput: {HALF % 160}\n",
        512,
    ),
}
# timm has this network at full width only by name.
NET = """
from timm.models.efficientnet import _gen_mobilenet_v1

def make(width):
    return _gen_mobilenet_v1("mobilenetv1_100", width, pad_type="same")
"""


@pytest.mark.parametrize("weights", CARDS)
def test_real_weights_load_and_keep_every_promise(weights, real_data, tmp_path):
    text, dim = CARDS[weights]
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "card.yaml").write_text(text + f"checkpoint: {real_data / 'weights' / weights}\n")
    points = check(tmp_path / "card.yaml")
    assert [point for point in points if not point.passed] == []
    backbone = load_backbone(tmp_path / "card.yaml")
    assert backbone.embed_dim == dim
    stored = torch.load(real_data / "weights" / weights, weights_only=True)
    key = next(key for key in stored if key.endswith("weight"))
    assert torch.equal(backbone.body.state_dict()[key], stored[key].float())


def test_the_wrong_statistics_are_another_identity(real_data, tmp_path):
    (weights, (text, _)), *_ = CARDS.items()
    path = tmp_path / "card.yaml"
    path.write_text(text + f"checkpoint: {real_data / 'weights' / weights}\n")
    right = find_backbone(path).digest()
    path.write_text(path.read_text().replace("0.5, 0.5, 0.5", "0.4, 0.5, 0.5"))
    assert find_backbone(path).digest() != right
