"""The torchvision source: what the classifier sees, and what the stages give."""

import pytest
import torch
import torchvision
from backbench.backbones import BadInput, NotApplicable, Unavailable, load_backbone
from backbench.backbones.card import BackboneCard

PYRAMID = {
    "resnet18": [(64, 4), (128, 8), (256, 16), (512, 32)],
    "squeezenet1_0": [(256, 4), (512, 8), (512, 16)],
    "mobilenet_v2": [(24, 4), (32, 8), (96, 16), (1280, 32)],
    "shufflenet_v2_x0_5": [(24, 4), (48, 8), (96, 16), (1024, 32)],
    "mnasnet0_5": [(16, 4), (24, 8), (48, 16), (1280, 32)],
}
LARGER = {
    "convnext_tiny": [(96, 4), (192, 8), (384, 16), (768, 32)],
    "swin_t": [(96, 4), (192, 8), (384, 16), (768, 32)],
    "swin_v2_t": [(96, 4), (192, 8), (384, 16), (768, 32)],
    "regnet_x_400mf": [(32, 4), (64, 8), (160, 16), (400, 32)],
    "efficientnet_b0": [(24, 4), (40, 8), (112, 16), (1280, 32)],
    "densenet121": [(256, 4), (512, 8), (1024, 16), (1024, 32)],
    "googlenet": [(192, 4), (480, 8), (832, 16), (1024, 32)],
    "inception_v3": [(192, 4), (288, 8), (768, 16), (2048, 32)],
    "maxvit_t": [(64, 4), (128, 8), (256, 16), (512, 32)],
    "mobilenet_v3_small": [(16, 4), (24, 8), (48, 16), (576, 32)],
    "alexnet": [(64, 4), (192, 8), (256, 16), (256, 32)],
    "vit_b_32": [(768, 32)],
}
ALL = [*PYRAMID.items(), *[pytest.param(*item, marks=pytest.mark.slow) for item in LARGER.items()]]


def load(model, **card):
    return load_backbone(BackboneCard(name=model, source="torchvision", model=model, pretrained=False, **card))


@pytest.mark.parametrize(("model", "levels"), ALL)
def test_levels_and_embedding(model, levels):
    backbone = load(model)
    assert [(level.channels, level.stride) for level in backbone.levels] == levels
    x = torch.rand(2, 3, backbone.input.size, backbone.input.size)
    seen = {}
    last = [m for m in backbone.body.modules() if isinstance(m, torch.nn.Identity)][-1]  # where the classifier was
    with last.register_forward_hook(lambda _m, inputs, _o: seen.update(x=inputs[0])), torch.no_grad():
        features = backbone(x, maps=True)
    want = seen["x"].mean((2, 3)) if seen["x"].ndim == 4 else seen["x"]
    assert torch.allclose(features.embedding, want, atol=1e-5)
    for found, (channels, stride) in zip(features.maps, levels, strict=True):
        assert found.shape[:2] == (2, channels)
        assert found.shape[-1] == pytest.approx(backbone.input.size / stride, rel=0.1, abs=1.5)


@pytest.mark.parametrize("model", PYRAMID)
def test_other_sizes(model):
    backbone = load(model)
    maps = backbone(torch.rand(1, 3, 96, 96), maps=True, embedding=False).maps
    assert [m.shape[1] for m in maps] == [level.channels for level in backbone.levels]


def test_a_vit_takes_one_size_and_says_so():
    backbone = load("vit_b_32", model_args={"image_size": 64}, input={"size": 64})
    assert backbone(torch.rand(1, 3, 64, 64), maps=True).maps[0].shape == (1, 768, 2, 2)
    with pytest.raises(NotApplicable, match="images of 64 px only"):
        backbone(torch.rand(1, 3, 96, 96))


def test_a_checkpoint_with_its_classifier(tmp_path):
    network = torchvision.models.squeezenet1_0(weights=None)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    statistics = {"mean": [0.5] * 3, "std": [0.5] * 3, "size": 96}
    backbone = load("squeezenet1_0", checkpoint="w.pth", input=statistics, folder=tmp_path)
    x = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        assert torch.allclose(backbone(x).embedding, network.features(x).mean((2, 3)), atol=1e-5)


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"model": "resnet18", "pool": "cls"}, "pools by the mean"),
        ({"model": "resnet18", "model_args": {"dept": 3}}, "unexpected keyword argument 'dept'"),
        ({"model": "resnet19"}, "did you mean 'resnet18'"),
    ],
)
def test_what_torchvision_cannot_do(card, said):
    with pytest.raises(BadInput, match=said):
        load(**card)


def test_out_of_reach(monkeypatch, tmp_path):
    from backbench.backbones import hub

    monkeypatch.setattr(hub, "reachable", lambda host: False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(Unavailable, match=r"no network to download\.pytorch\.org"):
        load_backbone("torchvision/resnet18@IMAGENET1K_V1")
