"""The open_clip source: both towers, and the embedding before the projection."""

import open_clip
import pytest
import torch
from backbench.backbones import BadInput, Unavailable, find_backbone, load_backbone
from backbench.backbones.card import BackboneCard
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

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


@pytest.fixture(scope="module")
def inputs():
    """The input of every architecture and tag that open_clip has weights for."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "backbench.backbones.sources.open_clip.build", lambda card, input: found.update({card.model: input})
        )
        for architecture, tag in open_clip.list_pretrained():
            with pytest.raises(AttributeError):  # nothing was built
                load_backbone(f"open_clip/{architecture}@{tag}")
    return found


def test_every_pair_of_architecture_and_tag_has_its_own_preprocessing(inputs):
    assert len(inputs) == len(open_clip.list_pretrained()) > 190
    for architecture, tag in open_clip.list_pretrained():
        found, want = inputs[f"{architecture}@{tag}"], open_clip.get_pretrained_cfg(architecture, tag)
        size = open_clip.get_model_config(architecture)["vision_cfg"].get("image_size", 224)
        assert (found.size, found.mean, found.std) == (size, want["mean"], want["std"])
        assert (found.interpolation, found.fit == "squash") == (want["interpolation"], want["resize_mode"] == "squash")


def test_clip_is_never_normalised_with_imagenet_statistics(inputs):
    """As in arXiv 2310.19909's code, whose test for CLIP could never be true."""
    imagenet = (0.485, 0.456, 0.406)
    declared = {
        f"{architecture}@{tag}"
        for architecture, tag in open_clip.list_pretrained()
        if open_clip.get_pretrained_cfg(architecture, tag)["mean"] == imagenet
    }
    assert {name for name, input in inputs.items() if input.mean == imagenet} == declared
    assert all("CLIPA" in name for name in declared)  # trained with these
    for name in ("RN50@openai", "RN101@openai", "ViT-B-16@openai", "ViT-B-16@laion2b_s34b_b88k"):
        assert inputs[name].mean == (0.48145466, 0.4578275, 0.40821073)
    assert inputs["ViT-L-14@laion2b_s32b_b82k"].mean == (0.5, 0.5, 0.5)
    assert inputs["ViT-B-16-SigLIP@webli"].fit == "squash"


@pytest.mark.parametrize("name", ["ViT-B-32@openai", "ViT-L-14-CLIPA@datacomp1b", "MobileCLIP-B@datacompdr"])
def test_the_transform_is_open_clip_s(name, inputs):
    from backbench.backbones.transform import Transform

    architecture, _, tag = name.partition("@")
    config = {
        key: open_clip.get_pretrained_cfg(architecture, tag)[key]
        for key in ("mean", "std", "interpolation", "resize_mode")
    }
    theirs = image_transform_v2(PreprocessCfg(size=inputs[name].size, **config), is_train=False)
    image = Image.effect_noise((300, 260), 60).convert("RGB")
    assert torch.allclose(Transform.of(inputs[name])(image), theirs(image), atol=1e-5)


def test_every_architecture_is_found_and_described():
    for architecture in open_clip.list_models():
        card = find_backbone(f"open_clip/{architecture}")
        assert card.family in ("vit", "cnn", "hybrid"), architecture
        assert card.pretraining is None  # no tag, no weights


def test_texts_of_coca_are_not_normalised_either():
    text = TEXT | {"embed_cls": True, "output_tokens": True}
    args = {"embed_dim": 24, "vision_cfg": TOWERS["ViT-B-32"] | {"output_tokens": True}, "text_cfg": text}
    args["multimodal_cfg"] = TEXT | {"attn_pooler_heads": 2}
    card = BackboneCard(name="coca", source="open_clip", model="coca_base", pretrained=False, model_args=args)
    backbone = load_backbone(card)
    with torch.no_grad():
        norms = backbone.embed_text(["a dog", "a cat"]).norm(dim=1)
        projection = backbone(torch.rand(2, 3, 64, 64), projection=True).projection
        assert not torch.allclose(projection.norm(dim=1), torch.ones(2), atol=1e-3)
    assert not torch.allclose(norms, torch.ones(2), atol=1e-3)
    assert "text_decoder" not in {name.partition(".")[0] for name in backbone.layer_names}


def test_a_late_norm_comes_after_pooling():
    clipa = TOWERS["ViT-B-32"] | {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}
    args = {"embed_dim": 24, "vision_cfg": clipa, "text_cfg": TEXT}
    card = {"name": "clipa", "source": "open_clip", "model": "ViT-L-14-CLIPA", "pretrained": False, "model_args": args}
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        auto, mean, cls = (
            load_backbone(BackboneCard(pool=pool, **card))(x).embedding for pool in ("auto", "mean", "cls")
        )
    assert torch.allclose(auto, mean, atol=1e-6)
    assert not torch.allclose(auto, cls, atol=1e-2)


def test_another_size_is_the_same_network():
    """At its own size a tower that was told to take any gives exactly what it gave before."""
    args = {"embed_dim": 96, "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit3", "timm_pool": "map"}}
    args["vision_cfg"]["timm_proj"] = "none"
    card = BackboneCard(
        name="siglip",
        source="open_clip",
        model="ViT-B-16-SigLIP",
        pretrained=False,
        model_args=args | {"text_cfg": TEXT},
    )
    backbone, x = load_backbone(card), torch.rand(1, 3, 160, 160)
    plain = open_clip.create_model("ViT-B-16-SigLIP", pretrained_text=False, **card.model_args).eval()
    plain.load_state_dict(backbone.body.state_dict())
    with torch.no_grad():
        assert torch.allclose(backbone(x, projection=True).projection, plain.encode_image(x), atol=1e-6)
        assert backbone(torch.rand(1, 3, 192, 128), maps=True).maps[0].shape == (1, 96, 12, 8)


def test_towers_described_on_the_hub_are_out_of_reach_offline(monkeypatch):
    from backbench.backbones import hub

    monkeypatch.setattr(hub, "reachable", lambda host: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nonexistent")
    for architecture in ("roberta-ViT-B-32", "ViT-B-16-SigLIP2"):
        card = BackboneCard(
            name=architecture,
            source="open_clip",
            model=architecture,
            pretrained=False,
            model_args={"vision_cfg": TOWERS["ViT-B-32"]},
        )
        with pytest.raises(Unavailable, match=f"^{architecture}: .*no network"):
            load_backbone(card)
