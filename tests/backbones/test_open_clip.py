"""The open_clip source: both towers, and the embedding before the projection."""

import pytest
import torch
from backbench.backbones import BadInput, load_backbone
from backbench.backbones.card import BackboneCard

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
TOWERS = {
    "ViT-B-32": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
    "RN50": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
    "convnext_base": {"image_size": 64, "timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear"},
}
LEVELS = {
    "ViT-B-32": [(64, 16)],
    "RN50": [(64, 4), (128, 8), (256, 16), (512, 32)],
    "convnext_base": [(24, 4), (32, 8), (48, 16), (64, 32)],
}


def load(model, **card):
    args = {"embed_dim": 24, "vision_cfg": TOWERS[model], "text_cfg": TEXT}
    return load_backbone(
        BackboneCard(name=model, source="open_clip", model=model, pretrained=False, model_args=args, **card)
    )


@pytest.mark.parametrize("model", TOWERS)
def test_features_are_open_clip_s_own(model):
    backbone = load(model)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        features = backbone(x, maps=True, projection=True)
        texts = backbone.embed_text(["a dog", "a photograph of a cat"])
        want = backbone.body.encode_image(x)
    assert torch.allclose(features.projection, want, atol=1e-5)
    assert texts.shape == (2, 24)
    assert not torch.equal(texts[0], texts[1])
    assert [(level.channels, level.stride) for level in backbone.levels] == LEVELS[model]
    assert [(m.shape[1], 64 // m.shape[2]) for m in features.maps] == LEVELS[model]
    larger = backbone(torch.rand(1, 3, 96, 96), maps=True, embedding=False).maps
    assert [96 // m.shape[2] for m in larger] == [stride for _, stride in LEVELS[model]]


def test_the_embedding_comes_before_the_projection():
    backbone = load("ViT-B-32")
    x = torch.rand(2, 3, 64, 64)
    features = backbone(x, projection=True)
    assert features.embedding.shape == (2, 64)
    assert torch.allclose(features.embedding @ backbone.body.visual.proj, features.projection, atol=1e-6)


def test_pool():
    x = torch.rand(2, 3, 64, 64)
    auto, cls = load("ViT-B-32")(x).embedding, load("ViT-B-32", pool="cls")(x).embedding
    mean, both = load("ViT-B-32", pool="mean"), load("ViT-B-32", pool="cls+mean")(x).embedding
    assert torch.allclose(auto, cls, atol=1e-6)
    found = mean(x, maps=True)
    assert torch.allclose(found.embedding, found.maps[0].mean((2, 3)), atol=1e-6)
    assert torch.allclose(both, torch.cat([cls, found.embedding], 1), atol=1e-6)
    with pytest.raises(BadInput, match="attention"):
        load("RN50", pool="cls")


def test_only_the_image_tower_is_fine_tuned():
    backbone = load("ViT-B-32")
    tuned = {id(p) for group in backbone.parameter_groups() for p in group["params"]}
    assert tuned == {id(p) for p in backbone.body.visual.parameters()}


@pytest.mark.parametrize(
    ("model", "pretrained", "args", "said"),
    [
        ("ViT-B-32", True, {}, r"open_clip/ViT-B-32@TAG; tags: openai, "),
        ("ViT-B-33", False, {}, r"did you mean 'ViT-B-32'"),
        ("ViT-B-32", False, {"embed_dims": 3}, "unexpected keyword argument 'embed_dims'"),
    ],
)
def test_what_open_clip_cannot_do(model, pretrained, args, said):
    card = BackboneCard(name="x", source="open_clip", model=model, pretrained=pretrained, model_args=args)
    with pytest.raises(BadInput, match=said) as caught:
        load_backbone(card)
    assert "\n" not in str(caught.value)


def test_weights_trained_with_quick_gelu_get_it(monkeypatch):
    import open_clip

    asked = {}

    def create(*words, **options):
        asked.update(options)
        raise TypeError("far enough")

    monkeypatch.setattr(open_clip, "create_model", create)
    for tag, wanted in (("openai", True), ("laion2b_s34b_b79k", False)):
        with pytest.raises(BadInput, match="far enough"):
            load_backbone(f"open_clip/ViT-B-32@{tag}")
        assert asked["force_quick_gelu"] is wanted
        assert asked["pretrained"] == tag
