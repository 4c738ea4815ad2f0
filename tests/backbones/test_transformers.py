"""The transformers source, from local folders in the hub's shape with tiny random networks in them."""

import pytest
import torch
import transformers as tf
from backbench.backbones import BadInput, load_backbone
from backbench.backbones.card import BackboneCard

VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
PATCHES = {"image_size": 32, "patch_size": 8}
TEXT = VIT | {"vocab_size": 100, "max_position_embeddings": 20, "bos_token_id": 0, "eos_token_id": 1}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
SQUASH, CROP = {"height": 32, "width": 32}, {"shortest_edge": 40}
DECODER = {f"decoder_{key}": value for key, value in VIT.items()}


def swin():
    return tf.SwinConfig(embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], image_size=64, window_size=2)


def clip():
    return tf.CLIPConfig(projection_dim=16, text_config=TEXT, vision_config=VIT | PATCHES)


MAKE = {
    "vit": lambda: (tf.ViTForImageClassification(tf.ViTConfig(**VIT, **PATCHES)), tf.ViTImageProcessor(size=SQUASH)),
    "mae": lambda: (
        tf.ViTMAEForPreTraining(tf.ViTMAEConfig(**VIT, **PATCHES, **DECODER)),
        tf.ViTImageProcessor(size=SQUASH),
    ),
    "dinov2": lambda: (
        tf.Dinov2WithRegistersModel(tf.Dinov2WithRegistersConfig(**VIT, **PATCHES)),
        tf.BitImageProcessor(size=CROP, crop_size=SQUASH),
    ),
    "swin": lambda: (tf.SwinForImageClassification(swin()), tf.ViTImageProcessor(size={"height": 64, "width": 64})),
    "convnext": lambda: (
        tf.ConvNextForImageClassification(tf.ConvNextConfig(**STAGES)),
        tf.ConvNextImageProcessor(size={"shortest_edge": 64}),
    ),
    "resnet": lambda: (
        tf.ResNetForImageClassification(tf.ResNetConfig(**STAGES, embedding_size=8, layer_type="basic")),
        tf.ConvNextImageProcessor(size={"shortest_edge": 64}),
    ),
    "clip": lambda: (tf.CLIPModel(clip()), tf.CLIPImageProcessor(size=CROP, crop_size=SQUASH)),
    "siglip": lambda: (
        tf.SiglipModel(tf.SiglipConfig(text_config=TEXT, vision_config=VIT | PATCHES)),
        tf.SiglipImageProcessor(size=SQUASH),
    ),
}
PYRAMID = [(8, 4), (16, 8), (24, 16), (32, 32)]
LEVELS = {"swin": [(16, 4), (32, 8), (64, 16), (128, 32)], "convnext": PYRAMID, "resnet": PYRAMID}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A folder with one small model of every kind."""
    folder = tmp_path_factory.mktemp("hub")
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    for letter in "abcdefghijklmnopqrstuvwxyz":
        vocabulary |= {letter: len(vocabulary), f"{letter}</w>": len(vocabulary) + 1}
    torch.manual_seed(0)
    for name, make in MAKE.items():
        model, processor = make()
        for part in (model.eval(), processor):
            part.save_pretrained(folder / name)
        if name in ("clip", "siglip"):
            tf.CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder / name)
    return folder


def load(hub, name, **card):
    return load_backbone(BackboneCard(name=name, source="transformers", model=name, folder=hub, **card))


@pytest.mark.parametrize("name", MAKE)
def test_every_kind(hub, name):
    backbone = load(hub, name)
    side = backbone.input.size
    with torch.no_grad():
        features = backbone(torch.rand(2, 3, side, side), maps=True)
        larger = backbone(torch.rand(1, 3, 96, 96), maps=True).maps
    levels = LEVELS.get(name, [(32, 8)])
    assert [(level.channels, level.stride) for level in backbone.levels] == levels
    assert [(m.shape[1], side // m.shape[2]) for m in features.maps] == levels
    assert [(m.shape[1], 96 // m.shape[2]) for m in larger] == levels
    assert features.embedding.shape == (2, backbone.embed_dim)
    assert backbone.weights_digest == load(hub, name).weights_digest
    assert backbone.weights_digest != load(hub, name, pretrained=False).weights_digest


def test_a_vit_gives_its_class_token_not_a_random_pooling_layer(hub):
    backbone, x = load(hub, "vit"), torch.rand(2, 3, 32, 32)
    model = tf.ViTForImageClassification.from_pretrained(hub / "vit").eval()
    with torch.no_grad():
        want = model.vit(x).last_hidden_state
        features = backbone(x, maps=True)
    assert torch.allclose(features.embedding, want[:, 0], atol=1e-5)
    assert torch.allclose(features.maps[0].flatten(2).transpose(1, 2), want[:, 1:], atol=1e-5)
    assert torch.allclose(model.classifier(features.embedding), model(x).logits, atol=1e-5)


def test_a_masked_autoencoder_sees_the_whole_image(hub):
    backbone = load(hub, "mae")
    model = tf.ViTMAEModel.from_pretrained(hub / "mae", mask_ratio=0.0).eval()
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        order = torch.arange(16.0)[None]
        want = model(x, noise=order).last_hidden_state
        features = backbone(x, maps=True)
    assert torch.allclose(features.embedding, want[:, 0], atol=1e-5)
    assert torch.allclose(features.maps[0].flatten(2).transpose(1, 2), want[:, 1:], atol=1e-5)


def test_swin_s_maps_are_the_stages_before_they_are_halved(hub):
    names = ["stage1", "stage2", "stage3", "stage4"]
    stages = tf.SwinBackbone.from_pretrained(hub / "swin", out_features=names).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        found, want = load(hub, "swin")(x, maps=True).maps, stages(x).feature_maps
    for ours, theirs in zip(found, want, strict=True):  # theirs went through a norm of its own, as it starts
        normed = torch.nn.functional.layer_norm(ours.permute(0, 2, 3, 1), ours.shape[1:2]).permute(0, 3, 1, 2)
        assert torch.allclose(normed, theirs, atol=1e-4)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_dual_towers(hub, name):
    backbone, x = load(hub, name), torch.rand(2, 3, 32, 32)
    texts = ["a dog", "a very small cat"]
    with torch.no_grad():
        features = backbone(x, projection=True)
        found = backbone.embed_text(texts)
        want = backbone.body.get_image_features(x).pooler_output
    assert torch.allclose(features.projection, want, atol=1e-5)
    assert found.shape == features.projection.shape
    assert not torch.allclose(found[0], found[1])


def test_preprocessing_is_the_image_processor_s(hub):
    from PIL import Image

    # Margins that are even, as at an odd one transformers crops half a pixel further to the left than everybody else.
    image = Image.effect_noise((100, 50), 60).convert("RGB")
    for name in ("vit", "dinov2", "convnext", "clip", "siglip"):
        processor = tf.AutoImageProcessor.from_pretrained(hub / name, backend="pil")
        want = torch.as_tensor(processor(image, return_tensors="pt")["pixel_values"][0])
        found = load(hub, name).transform(image)
        assert found.shape == want.shape
        assert (found - want).abs().mean() < 0.02, name  # float against uint8 when resized


def test_identity_follows_the_folder(hub):
    card = BackboneCard(source="transformers", model="vit", folder=hub)
    wanted = {"vit/config.json", "vit/model.safetensors", "vit/preprocessor_config.json"}
    assert wanted <= card.identity()["files"].keys()


def test_weights_that_are_not_there_are_not_made_up(hub, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(hub / "vit", tmp_path / "cut")
    weights = load_file(tmp_path / "cut" / "model.safetensors")
    weights.pop("vit.layernorm.weight")
    save_file(weights, tmp_path / "cut" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"lacks weights of ViTModel: layernorm\.weight"):
        load(tmp_path, "cut")


def test_pickles_are_not_read(hub, tmp_path):
    import shutil

    shutil.copytree(hub / "vit", tmp_path / "old")
    (tmp_path / "old" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "old" / "pytorch_model.bin")
    with pytest.raises(BadInput, match="safetensors"):
        load(tmp_path, "old")


def test_pool(hub):
    x = torch.rand(2, 3, 32, 32)
    mean, both = load(hub, "dinov2", pool="mean"), load(hub, "dinov2", pool="cls+mean")
    with torch.no_grad():
        tokens = mean.body(x).last_hidden_state
        patches = tokens[:, 5:].mean(1)  # registers are neither class token nor patches
        assert torch.allclose(mean(x).embedding, patches, atol=1e-5)
        assert torch.allclose(both(x).embedding, torch.cat([tokens[:, 0], patches], 1), atol=1e-5)
    with pytest.raises(BadInput, match="mean"):
        load(hub, "resnet", pool="cls")(torch.rand(1, 3, 64, 64))
