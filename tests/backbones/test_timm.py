"""The timm source: the library's own embedding and maps, in one pass, at other sizes too."""

from copy import deepcopy

import pytest
import timm
import torch
from backbench.backbones import BadInput, NotApplicable, load_backbone
from backbench.backbones.card import BackboneCard
from timm.layers import resample_abs_pos_embed


def load(model, **card):
    return load_backbone(BackboneCard(name=model, source="timm", model=model, pretrained=False, **card))


SMALL_VIT = {"depth": 2, "embed_dim": 48, "num_heads": 2}


@pytest.mark.parametrize("model", [name for name in timm.list_models("test_*") if "naflex" not in name])
def test_features_are_timm_s_own(model):
    backbone = load(model)
    x = torch.rand(2, 3, backbone.input.size, backbone.input.size)
    with torch.no_grad():
        both, alone = backbone(x, maps=True), backbone(x)
        want = backbone.body.forward_head(backbone.body.forward_features(x), pre_logits=True)
    assert both.embedding.shape == (2, backbone.embed_dim)
    assert torch.allclose(both.embedding, want, atol=1e-6)
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


def test_a_network_that_scales_its_images_has_maps_of_one_size():
    backbone = load("crossvit_tiny_240")
    x = torch.rand(1, 3, 300, 300)
    assert backbone(x).embedding.shape == (1, backbone.embed_dim)
    with pytest.raises(NotApplicable, match="brings every image to 240 px"):
        backbone(x, maps=True)


def test_a_cnn_of_patches_sees_whole_patches_only():
    backbone = load("convmixer_768_32", input={"size": 56})
    x = torch.rand(1, 3, 60, 60)
    with torch.no_grad():
        assert torch.equal(backbone(x).embedding, backbone(x[..., :56, :56]).embedding)


def fixed(model, size, **args):
    """timm's own network for images of `size` alone."""
    return timm.create_model(model, num_classes=0, img_size=size, **SMALL_VIT, **args).eval()


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "deit3_small_patch16_224", "vit_small_patch16_dinov3"])
def test_positions_at_another_size_are_resized_as_by_timm(model):
    backbone = load(model, model_args=SMALL_VIT, input={"size": 64})
    weights = backbone.body.state_dict()
    whole, torn = torch.rand(1, 3, 64, 96), torch.rand(1, 3, 57, 90)
    library = fixed(model, (64, 96))
    if "pos_embed" in weights:  # the others turn their positions with every patch
        old, new = weights["pos_embed"], library.pos_embed
        prefix = int(new.shape[1] != 24)
        weights["pos_embed"] = resample_abs_pos_embed(old, [4, 6], num_prefix_tokens=prefix)
    library.load_state_dict(weights)
    with torch.no_grad():
        found = backbone(whole, maps=True)
        want = library.forward_head(library.forward_features(whole), pre_logits=True)
        assert torch.allclose(found.embedding, want, atol=1e-6)
        assert found.maps[0].shape == (1, 48, 4, 6)
        padded = backbone(torch.nn.functional.pad(torn, (0, 6, 0, 7)))
        assert torch.equal(backbone(torn).embedding, padded.embedding)


SIZED = {
    "beit_base_patch16_224": SMALL_VIT,
    "beit3_base_patch16_224": SMALL_VIT,
    "test_vit_relpos": {},
    "vit_relpos_medium_patch16_cls_224": SMALL_VIT,
    "vit_srelpos_small_patch16_224": SMALL_VIT,
    "test_maxvit": {},
    "test_coatnet": {},
    "efficientvit_m0": {},
}


@pytest.mark.parametrize(("model", "args"), SIZED.items())
def test_tables_of_positions_at_another_size_are_resized_as_by_timm(model, args):
    backbone = load(model, model_args=args, input={"size": 64})
    digest, x = backbone.weights_digest, torch.rand(1, 3, 64, 128)
    library = deepcopy(backbone.body)
    library.set_input_size(img_size=(64, 128))
    (name,) = {"blocks.0", "stages.0"} & set(backbone.layer_names)
    with torch.no_grad():
        found = backbone(x, maps=True, layers=[name])
        want = library.forward_head(library.forward_features(x), pre_logits=True)
        assert torch.allclose(found.embedding, want, atol=1e-6)
        assert [m.shape[2:] for m in found.maps] == [(64 // s.stride, 128 // s.stride) for s in backbone.levels]
    assert set(found.layers) == {name}
    backbone(x).embedding.sum().backward()
    assert sum(p.grad is not None for p in backbone.parameters()) > 4
    del backbone.weights_digest  # kept once computed
    assert backbone.weights_digest == digest
    assert backbone(torch.rand(1, 3, 64, 64)).embedding.shape == (1, backbone.embed_dim)


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


def pooled(model, pool, x, **card):
    with torch.no_grad():
        return load(model, pool=pool, **card)(x).embedding


def test_pool():
    x = torch.rand(2, 3, 160, 160)
    tokens = load("test_vit").body.forward_features(x)
    cls, mean = tokens[:, 0], tokens[:, 1:].mean(1)
    assert torch.allclose(pooled("test_vit", "cls", x), cls, atol=1e-6)
    assert torch.allclose(pooled("test_vit", "mean", x), mean, atol=1e-6)
    assert torch.allclose(pooled("test_vit", "cls+mean", x), torch.cat([cls, mean], 1), atol=1e-6)
    resnet = load("test_resnet", pool="mean")
    assert torch.allclose(resnet(x).embedding, resnet.body.forward_features(x).mean((2, 3)), atol=1e-6)


@pytest.mark.parametrize(
    ("model", "prefix", "has_cls"),
    [
        ("deit_tiny_distilled_patch16_224", 2, True),
        ("vit_small_patch14_reg4_dinov2", 5, True),
        ("eva02_tiny_patch14_224", 1, True),
        ("beit_base_patch16_224", 1, True),
        ("cait_xxs24_224", 1, True),
        ("vit_medium_patch16_reg4_gap_256", 4, False),
        ("naflexvit_base_patch16_gap", 4, False),
        ("vit_base_patch16_siglip_224", 0, False),
        ("samvit_base_patch16", None, False),
        ("qwen3_vit_88m_enc", None, False),
    ],
)
def test_pools_leave_out_what_is_no_patch(model, prefix, has_cls):
    side = 56 if "patch14" in model else 64
    args = SMALL_VIT | ({"global_attn_indexes": [1]} if model.startswith("sam") else {})
    card = {"model_args": args, "input": {"size": side}}
    x = torch.rand(2, 3, side, side)
    body = load(model, **card).body
    with torch.no_grad():
        last = body.forward_features(x)
    if prefix is None:
        mean = last.mean((1, 2) if getattr(body, "output_fmt", "") == "NHWC" else (2, 3))
    else:
        mean = body.fc_norm(last[:, prefix:].mean(1)) if hasattr(body, "fc_norm") else last[:, prefix:].mean(1)
    assert torch.allclose(pooled(model, "mean", x, **card), mean, atol=1e-6)
    if has_cls:
        cls = body.fc_norm(last[:, 0]) if hasattr(body, "fc_norm") else last[:, 0]
        assert torch.allclose(pooled(model, "cls+mean", x, **card), torch.cat([cls, mean], 1), atol=1e-6)
    else:
        with pytest.raises(BadInput, match="needs a class token and this network has none; use one of auto, mean"):
            load(model, pool="cls", **card)


def test_attention_pooling():
    card = {"model_args": SMALL_VIT, "input": {"size": 64}}
    x = torch.rand(2, 3, 64, 64)
    auto, by_map = (pooled("vit_base_patch16_siglip_224", pool, x, **card) for pool in ("auto", "map"))
    assert torch.equal(auto, by_map)
    with pytest.raises(BadInput, match="use one of auto, mean, map"):
        load("vit_base_patch16_siglip_224", pool="cls", **card)


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"model": "test_resnet", "pool": "cls"}, "needs a class token"),
        ({"model": "test_vit", "pool": "map"}, "attention pooling"),
        ({"model": "pit_ti_224", "pool": "mean"}, "no other way than its own; use 'auto'"),
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


@pytest.mark.parametrize("model", ["test_resnet", "levit_128s", "deit_tiny_distilled_patch16_224"])
def test_a_checkpoint_with_its_classifiers(model, tmp_path):
    args = {"depth": 2, "embed_dim": 48} if model.startswith("deit") else {}
    torch.save(timm.create_model(model, **args).state_dict(), tmp_path / "w.pth")
    says = {"size": 224, "mean": [0.5] * 3, "std": [0.5] * 3}
    card = {"name": model, "source": "timm", "model": model, "model_args": args, "checkpoint": "w.pth", "input": says}
    backbone = load_backbone(BackboneCard.model_validate(card | {"folder": tmp_path}))
    saved = torch.load(tmp_path / "w.pth", weights_only=True)
    assert all(torch.equal(weight, saved[name]) for name, weight in backbone.body.state_dict().items())


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
