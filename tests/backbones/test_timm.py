"""The timm source: the library's own embedding and maps, in one pass, at other sizes too."""

import pytest
import timm
import torch
from backbench.backbones import BadInput, NotApplicable, load_backbone
from backbench.backbones.card import BackboneCard

# One small network of every kind that timm builds differently.
TINY = [name for name in timm.list_models("test_*") if "naflex" not in name]
SMALL = ["resnet18", "regnetx_002", "mobilenetv3_small_050", "efficientnet_b0", "ghostnet_050", "mobilevit_xxs"]
SMALL += ["deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "pvt_v2_b0", "mixer_s32_224", "levit_128s"]
SMALL += ["squeezenet1_0"] if timm.is_model("squeezenet1_0") else []
SMALL += ["vit_tiny_patch16_224", "xcit_nano_12_p16_224", "poolformerv2_s12", "repvit_m0_9", "tiny_vit_5m_224"]
SMALL += ["edgenext_xx_small", "convnext_atto", "coat_tiny", "cait_xxs24_224", "densenet121", "inception_v3"]


def load(model, **card):
    return load_backbone(BackboneCard(name=model, source="timm", model=model, pretrained=False, **card))


@pytest.mark.parametrize("model", [*TINY, *[pytest.param(name, marks=pytest.mark.slow) for name in SMALL]])
def test_features_are_timm_s_own(model):
    backbone = load(model)
    x = torch.rand(2, 3, backbone.input.size, backbone.input.size)
    with torch.no_grad():
        both, alone = backbone(x, maps=bool(backbone.levels)), backbone(x)
        want = backbone.body.forward_head(backbone.body.forward_features(x), pre_logits=True)
    assert both.embedding.shape == (2, backbone.embed_dim)
    assert torch.allclose(both.embedding, want, atol=1e-5)
    assert torch.equal(alone.embedding, want)
    assert alone.maps == []
    for found, level in zip(both.maps, backbone.levels, strict=True):
        assert found.shape[:2] == (2, level.channels)
        assert found.shape[-1] == pytest.approx(backbone.input.size / level.stride, rel=0.1, abs=1.5)


def test_a_pyramid_has_strides_4_to_32_and_a_plain_vit_one_map():
    assert [level.stride for level in load("test_resnet").levels] == [4, 8, 16, 32]
    assert [level.stride for level in load("test_convnext").levels] == [4, 8, 16, 32]
    assert [level.stride for level in load("test_vit").levels] == [16]


@pytest.mark.parametrize("model", ["test_vit", "test_vit2", "test_convnext", "test_efficientnet", "test_byobnet"])
@pytest.mark.parametrize("side", [96, 128])
def test_other_sizes(model, side):
    backbone = load(model, input={"size": 64})
    maps = backbone(torch.rand(1, 3, side, side), maps=True).maps
    assert [m.shape[-1] for m in maps] == [side // level.stride for level in backbone.levels]


def test_a_patch_that_does_not_divide_the_image_is_padded():
    backbone = load(
        "vit_small_patch14_dinov2", model_args={"depth": 1, "embed_dim": 24, "num_heads": 2}, input={"size": 56}
    )
    assert [(level.channels, level.stride) for level in backbone.levels] == [(24, 14)]
    assert backbone(torch.rand(1, 3, 96, 96), maps=True).maps[0].shape == (1, 24, 7, 7)


def test_a_network_for_one_size_says_so():
    backbone = load("gmlp_ti16_224", input={"size": 64})
    assert backbone.levels[0].stride == 16
    with pytest.raises(NotApplicable, match=r"takes images of 64 px, not 96 x 96"):
        backbone(torch.rand(1, 3, 96, 96))


def test_channels_last_networks_come_out_channels_first():
    backbone = load("swin_tiny_patch4_window7_224", model_args={"embed_dim": 24, "depths": [1, 1, 1, 1]})
    assert [(level.channels, level.stride) for level in backbone.levels] == [(24, 4), (48, 8), (96, 16), (192, 32)]
    mean = backbone.body.forward_features(x := torch.rand(1, 3, 224, 224)).mean((1, 2))
    pooled = backbone(x).embedding
    assert torch.allclose(pooled, mean, atol=1e-5)


def test_the_map_of_a_plain_vit_is_its_normalised_patch_tokens():
    backbone = load("test_vit")
    x = torch.rand(2, 3, 160, 160)
    tokens = backbone.body.forward_features(x)
    (found,) = backbone(x, maps=True).maps
    assert torch.allclose(found.flatten(2).transpose(1, 2), tokens[:, 1:], atol=1e-5)


def test_pool():
    x = torch.rand(2, 3, 160, 160)
    tokens = load("test_vit").body.forward_features(x)
    cls, mean = tokens[:, 0], tokens[:, 1:].mean(1)
    assert torch.allclose(load("test_vit", pool="cls")(x).embedding, cls, atol=1e-5)
    assert torch.allclose(load("test_vit", pool="mean")(x).embedding, mean, atol=1e-5)
    assert torch.allclose(load("test_vit", pool="cls+mean")(x).embedding, torch.cat([cls, mean], 1), atol=1e-5)
    resnet = load("test_resnet", pool="mean")
    assert torch.allclose(resnet(x).embedding, resnet.body.forward_features(x).mean((2, 3)), atol=1e-5)


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"model": "test_resnet", "pool": "cls"}, "needs a class token"),
        ({"model": "test_vit", "pool": "map"}, "attention pooling"),
        ({"model": "test_vit", "model_args": {"num_classes": 3}}, "'num_classes' is set by backbench"),
        ({"model": "test_vit", "model_args": {"dept": 3}}, r"unexpected keyword argument 'dept' \(model_args: dept\)"),
        ({"model": "test_vitt"}, "did you mean 'test_vit'"),
        ({"model": "vit_tiny_patch16_224.dino"}, "there is no timm model"),
    ],
)
def test_what_timm_cannot_do(card, said):
    with pytest.raises(BadInput, match=said) as caught:
        load(**card)
    assert "\n" not in str(caught.value)


def test_a_network_without_weights_says_so():
    bare = next(name for name in timm.list_models("vit_*") if not timm.models.is_model_pretrained(name))
    with pytest.raises(BadInput, match=f"no weights for {bare}.*say `pretrained: false`"):
        load_backbone(BackboneCard(name="x", source="timm", model=bare))


def test_preprocessing_is_timm_s():
    backbone = load("test_vit.r160_in1k")
    assert backbone.input.model_dump() == {
        "size": 160,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bicubic",
        "crop": 0.95,
        "fit": "crop",
    }
