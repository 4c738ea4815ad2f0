"""The torchvision source: what the classifier sees, and what the stages give."""

from collections import OrderedDict

import pytest
import torch
import torchvision
from backbench.backbones import BadInput, Unavailable, load_backbone
from backbench.backbones.card import BackboneCard
from torchvision.models.vision_transformer import interpolate_embeddings

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


@pytest.fixture(scope="module")
def vit():
    return load("vit_b_32", model_args={"image_size": 64}, input={"size": 64})


def test_a_vit_s_embedding_is_its_class_token_and_its_map_the_patches(vit):
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        found, want = vit(x, maps=True, layers=["encoder.ln"]), vit.body(x)
    assert torch.allclose(found.embedding, want, atol=1e-6)
    tokens = found.layers["encoder.ln"]
    assert torch.equal(found.maps[0].flatten(2), tokens[:, 1:].mT)
    assert [(level.channels, level.stride) for level in vit.levels] == [(768, 32)]


def test_a_vit_s_positions_are_resized_as_by_torchvision(vit):
    x = torch.rand(1, 3, 96, 96)
    library = torchvision.models.vit_b_32(weights=None, image_size=96)
    library.heads = torch.nn.Identity()
    weights = {k: v for k, v in vit.body.state_dict().items() if not k.startswith("heads")}
    library.load_state_dict(interpolate_embeddings(96, 32, OrderedDict(weights)))
    with torch.no_grad():
        assert torch.allclose(vit(x).embedding, library.eval()(x), atol=1e-5)
        assert vit(torch.rand(1, 3, 64, 96), maps=True).maps[0].shape == (1, 768, 2, 3)
        torn = torch.rand(1, 3, 90, 70)
        padded = torch.nn.functional.pad(torn, (0, 26, 0, 6))
        assert torch.equal(vit(torn).embedding, vit(padded).embedding)


def test_pool(vit):
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        features = vit(x, maps=True)
        cls, mean = features.embedding, features.maps[0].mean((2, 3))
        for pool, want in {"cls": cls, "mean": mean, "cls+mean": torch.cat([cls, mean], 1)}.items():
            vit.card = vit.card.model_copy(update={"pool": pool})
            assert torch.allclose(vit(x).embedding, want, atol=1e-6)
        vit.card = vit.card.model_copy(update={"pool": "auto"})
        stages = load("mobilenet_v3_small", pool="mean", input={"size": 64})
        assert torch.allclose(stages(x).embedding, stages(x, maps=True).maps[-1].mean((2, 3)), atol=1e-6)
        assert stages.embed_dim == 576
        assert load("mobilenet_v3_small", input={"size": 64}).embed_dim == 1024


def test_a_layer_s_output_is_not_written_over_by_the_next():
    backbone = load("resnet18", input={"size": 64})
    with torch.no_grad():
        layers = backbone(torch.randn(1, 3, 64, 64), layers=["bn1", "relu"]).layers
    assert layers["bn1"].min() < 0
    assert torch.equal(layers["relu"], layers["bn1"].relu())


def test_maxvit_counts_its_windows_for_the_card_s_size():
    backbone = load("maxvit_t", input={"size": 448})
    with torch.no_grad():
        maps = backbone(torch.rand(1, 3, 448, 448), maps=True).maps
    assert [m.shape[-1] for m in maps] == [112, 56, 28, 14]


@pytest.mark.parametrize("model", ["googlenet", pytest.param("inception_v3", marks=pytest.mark.slow)])
def test_statistics_are_undone_inside_for_torchvision_s_own_weights_alone(model, tmp_path):
    # Its preset says ImageNet's statistics, and `transform_input` turns them into the 0.5 that the weights know.
    network = torchvision.models.get_model(model, weights=None, aux_logits=True, init_weights=True)
    torch.save(network.state_dict(), tmp_path / "w.pth")  # with the classifiers half-way in it
    card = {"checkpoint": "w.pth", "folder": tmp_path}
    half = {"mean": [0.5] * 3, "std": [0.5] * 3, "size": 128}
    imagenet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "size": 128}
    bare = load(model, input=half, **card)
    assert not bare.body.transform_input
    undone = load(model, input=imagenet, model_args={"transform_input": True}, **card)
    picture = torch.randint(0, 256, (128, 128, 3), dtype=torch.uint8).numpy()
    with torch.no_grad():
        one, other = (b(b.transform(picture)[None]).embedding for b in (bare, undone))
        assert float((one - other).norm()) < 1e-4 * float(one.norm())


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
        ({"model": "resnet18", "pool": "cls"}, "this network pools places; use one of auto, mean"),
        ({"model": "vit_b_32", "pool": "map"}, "an attention pooling layer.*use one of auto, cls, mean, cls.mean"),
        ({"model": "resnet18", "model_args": {"num_classes": 3}}, "'num_classes' is set by backbench itself"),
        ({"model": "maxvit_t", "input": {"size": 64}}, "torchvision cannot build maxvit_t: Input size"),
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
