"""The transformers source, from local folders in the hub's shape with tiny random networks in them."""

import json
import os
import shutil

import pytest
import torch
import transformers as tf
from backbench.backbones import BadInput, Unavailable, load_backbone
from backbench.backbones.card import BackboneCard
from PIL import Image
from safetensors.torch import load_file, save_file

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


SHORTER = {"size": {"shortest_edge": 40}, "crop_size": SQUASH}
PROCESSORS = {
    "vit": tf.ViTImageProcessor(size=SQUASH),
    "deit": tf.DeiTImageProcessor(size={"height": 40, "width": 40}, crop_size=SQUASH),
    "beit": tf.BeitImageProcessor(size={"height": 40, "width": 40}, crop_size=SQUASH, do_center_crop=True),
    "bit": tf.BitImageProcessor(**SHORTER),
    "clip": tf.CLIPImageProcessor(**SHORTER),
    "chinese-clip": tf.ChineseCLIPImageProcessor(**SHORTER),
    "siglip": tf.SiglipImageProcessor(size=SQUASH),
    "tipsv2": tf.Tipsv2ImageProcessor(size=SQUASH),
    "blip": tf.BlipImageProcessor(size=SQUASH),
    "convnext": tf.ConvNextImageProcessor(size={"shortest_edge": 64}),
    "convnext-384": tf.ConvNextImageProcessor(size={"shortest_edge": 384}),
    "poolformer": tf.PoolFormerImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 36, "width": 36}),
    "levit": tf.LevitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
    "pvt": tf.PvtImageProcessor(size=SQUASH),
    "segformer": tf.SegformerImageProcessor(size=SQUASH),
    "dinov3": tf.DINOv3ViTImageProcessor(size=SQUASH),
    "efficientnet": tf.EfficientNetImageProcessor(size=SQUASH),
    "mobilenet": tf.MobileNetV2ImageProcessor(**SHORTER),
    "radio": tf.CLIPImageProcessor(**SHORTER, do_normalize=False),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_preprocessing_is_the_image_processor_s(hub, tmp_path, name):
    # Margins that are even, as at an odd one transformers crops half a pixel further to the left than everybody else.
    image = Image.effect_noise((100, 50), 60).convert("RGB")
    shutil.copytree(hub / "vit", tmp_path / name)
    PROCESSORS[name].save_pretrained(tmp_path / name)
    want = torch.as_tensor(PROCESSORS[name](image, return_tensors="pt")["pixel_values"][0])
    found = load(tmp_path, name, pretrained=False).transform(image)
    assert found.shape == want.shape
    assert (found - want).abs().mean() / want.std() < 0.03, name  # float against uint8 when resized


def test_efficientnet_divides_by_its_std_twice(hub, tmp_path):
    shutil.copytree(hub / "vit", tmp_path / "x")
    PROCESSORS["efficientnet"].save_pretrained(tmp_path / "x")
    assert load(tmp_path, "x", pretrained=False).input.std == pytest.approx((0.25, 0.25, 0.25), abs=1e-5)


def test_mobilevit_sees_blue_first(tmp_path):
    sizes = {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 64], "num_attention_heads": 2}
    torch.manual_seed(0)
    model = tf.MobileViTModel(tf.MobileViTConfig(**sizes)).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_parameters()
    processor = tf.MobileViTImageProcessor(size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64})
    for part in (model, processor):
        part.save_pretrained(tmp_path / "mobilevit")
    backbone = load(tmp_path, "mobilevit")
    image = Image.new("RGB", (100, 72), (250, 120, 10))
    with torch.no_grad():
        want = model(**processor(image, return_tensors="pt")).pooler_output
        found = backbone(backbone.transform(image)[None]).embedding
        wrong = model(backbone.transform(image)[None]).pooler_output
    assert torch.allclose(found, want, atol=1e-6)
    assert (found - wrong).norm() > 0.01 * found.norm()


def test_clip_is_never_normalised_with_imagenet_statistics(hub, tmp_path):
    """What its image processor says is taken, and without one nothing is guessed (cf. the code of arXiv 2310.19909)."""
    assert load(hub, "clip").input.mean == (0.48145466, 0.4578275, 0.40821073)
    shutil.copytree(hub / "clip", tmp_path / "clip")
    file = tmp_path / "clip" / "preprocessor_config.json"
    says = json.loads(file.read_text())
    file.write_text(json.dumps(says | {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}))
    assert load(tmp_path, "clip").input.mean == (0.5, 0.5, 0.5)
    file.unlink()
    with pytest.raises(
        BadInput, match=r"^clip: nothing says mean, std of its input; give `input: \{size, mean, std\}`"
    ):
        load(tmp_path, "clip")
    given = {"mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0)}
    assert load(tmp_path, "clip", input=given).input.mean == (0.1, 0.2, 0.3)


def test_identity_follows_the_folder(hub):
    card = BackboneCard(source="transformers", model="vit", folder=hub)
    files = {name.rpartition("/")[2] for name in card.identity()["files"]}
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= files


def test_weights_that_are_not_there_are_not_made_up(hub, tmp_path):
    shutil.copytree(hub / "vit", tmp_path / "cut")
    weights = load_file(tmp_path / "cut" / "model.safetensors")
    weights.pop("vit.layernorm.weight")
    save_file(weights, tmp_path / "cut" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"lacks weights of ViTModel: layernorm\.weight"):
        load(tmp_path, "cut")


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.system, (f"touch {self.marker}",))


def test_pickled_weights_are_read_without_running_anything(hub, tmp_path):
    shutil.copytree(hub / "vit", tmp_path / "old")
    weights = load_file(tmp_path / "old" / "model.safetensors")
    old, marker = tmp_path / "old" / "pytorch_model.bin", tmp_path / "ran"
    torch.save(weights | {"classifier.bias": Hostile(marker)}, old)
    assert load(tmp_path, "old").weights_digest == load(hub, "vit").weights_digest  # safetensors come first
    (tmp_path / "old" / "model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"^old: old: its weights are a pickle that wants to run code.*save_pretrained"):
        load(tmp_path, "old")
    assert not marker.exists()
    torch.save(weights, old)
    assert load(tmp_path, "old").weights_digest == load(hub, "vit").weights_digest


def test_code_in_a_repository_is_refused(hub, tmp_path):
    shutil.copytree(hub / "vit", tmp_path / "own")
    marker = tmp_path / "ran"
    (tmp_path / "own" / "mine.py").write_text(f"open({str(marker)!r}, 'w')\n")
    file = tmp_path / "own" / "config.json"
    auto = {"auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | auto | {"model_type": "mine"}))
    with pytest.raises(BadInput, match=r"comes with code of its own, which is never run.*`source: python`"):
        load(tmp_path, "own")
    # A type that transformers knows is its own code, whatever else the repository offers.
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "vit"}))
    assert load(tmp_path, "own").embed_dim == 32
    assert not marker.exists()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (tf.BertConfig(hidden_size=8), "is a 'bert', which is not read as a backbone here; use timm"),
        (tf.VJEPA2Config(), "is a 'vjepa2', which is not read"),
        (tf.DetrConfig(), "is a 'detr', which is not read"),
        (tf.LlavaConfig(), "is a 'llava', .* sees its images is a 'clip_vision_model': name a repository of that"),
    ],
)
def test_what_is_not_read_is_refused_before_it_is_loaded(tmp_path, config, said):
    config.save_pretrained(tmp_path / "other")
    with pytest.raises(BadInput, match=said) as caught:
        load(tmp_path, "other")
    assert "\n" not in str(caught.value)


def in_cache(cache, repo, folder, commit="0123456789abcdef0123456789abcdef01234567"):
    """A folder as the hub's client keeps a repository once downloaded."""
    home = cache / f"models--{repo.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    shutil.copytree(folder, home / "snapshots" / commit)
    return commit


def test_a_repository_in_the_hub_s_cache(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("backbench.backbones.hub.reachable", lambda host: False)
    commit = in_cache(tmp_path, "org/clip", hub / "clip")
    for name in ("transformers/org/clip", f"transformers/org/clip@{commit}"):
        backbone = load_backbone(name)
        assert backbone.weights_digest == load(hub, "clip").weights_digest
        assert backbone.input == load(hub, "clip").input
        assert backbone.name == name
    with pytest.raises(Unavailable, match=r"^transformers/org/vit: .*no network"):
        load_backbone("transformers/org/vit")


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit"])
def test_a_repository_of_timm_s_is_read_as_timm_s(hub, tmp_path, monkeypatch, architecture):
    import timm

    torch.manual_seed(0)
    network = timm.create_model(architecture, num_classes=3).eval()
    folder = tmp_path / "timm-net"
    folder.mkdir()
    says = {"architecture": architecture, "num_classes": 3, "num_features": network.num_features}
    says["pretrained_cfg"] = network.pretrained_cfg | {
        "mean": (0.1, 0.2, 0.3),
        "crop_pct": 0.875,
        "input_size": (3, 96, 96),
    }
    (folder / "config.json").write_text(json.dumps(says, default=str))
    save_file(network.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    backbone = load(tmp_path, "timm-net")
    assert (backbone.input.mean, backbone.input.size, backbone.input.crop) == ((0.1, 0.2, 0.3), 96, 0.875)
    x = torch.rand(2, 3, 160 if architecture == "test_vit" else 96, 160 if architecture == "test_vit" else 96)
    with torch.no_grad():
        found, want = backbone(x, maps=True), network.forward_head(network.forward_features(x), pre_logits=True)
    assert torch.allclose(found.embedding, want, atol=1e-6)
    assert len(found.maps) == len(backbone.levels) == (4 if architecture == "test_resnet" else 1)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("backbench.backbones.hub.reachable", lambda host: False)
    in_cache(tmp_path / "cache", "timm/net", folder)
    assert load_backbone("transformers/timm/net").weights_digest == backbone.weights_digest


def dpt():
    names = ["stage1", "stage2", "stage3", "stage4"]
    stages = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "image_size": 64, "window_size": 2}
    necks = {"neck_hidden_sizes": [8, 16, 32, 64], "fusion_hidden_size": 8, "reassemble_factors": [1, 1, 1, 1]}
    return tf.DPTForDepthEstimation(
        tf.DPTConfig(backbone_config=tf.Swinv2Config(**stages, out_features=names), **necks)
    )


def dino():
    dino = tf.Dinov2Config(**VIT, **PATCHES, out_indices=[1, 2], reshape_hidden_states=False)
    necks = {"neck_hidden_sizes": [8, 8], "fusion_hidden_size": 8, "reassemble_factors": [1, 1]}
    return dino, necks | {"patch_size": 8, "reassemble_hidden_size": 32}


def depth_anything():
    backbone, necks = dino()
    return tf.DepthAnythingForDepthEstimation(tf.DepthAnythingConfig(backbone_config=backbone, **necks))


def prompted():
    backbone, necks = dino()
    return tf.PromptDepthAnythingForDepthEstimation(tf.PromptDepthAnythingConfig(backbone_config=backbone, **necks))


@pytest.mark.parametrize(
    ("make", "levels"),
    [(dpt, [(8, 4), (16, 8), (32, 16), (64, 32)]), (depth_anything, [(32, 8)]), (prompted, [(32, 8)])],
)
def test_the_encoder_of_a_depth_network(tmp_path, make, levels):
    torch.manual_seed(0)
    model = make().eval()
    for part in (model, tf.DPTImageProcessor(size={"height": 64, "width": 64})):
        part.save_pretrained(tmp_path / "depth")
    backbone, x = load(tmp_path, "depth"), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        found, want = backbone(x, maps=True), model.backbone(x).feature_maps[-1]
    if want.ndim == 3:  # a class token first, then the patches in rows
        want = want[:, 1:].transpose(1, 2).unflatten(2, (8, 8))
    assert [(level.channels, level.stride) for level in backbone.levels] == levels
    assert torch.allclose(found.maps[-1], want, atol=1e-6)
    assert torch.allclose(found.embedding, want.mean((2, 3)), atol=1e-6)
    assert backbone.card.pretraining.method == "depth"


def test_beit_without_a_trained_pooling_gives_its_class_token(tmp_path):
    model = tf.BeitForMaskedImageModeling(tf.BeitConfig(**VIT, **PATCHES)).eval()
    for part in (model, tf.BeitImageProcessor(size=SQUASH, do_center_crop=False)):
        part.save_pretrained(tmp_path / "beit")
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(load(tmp_path, "beit")(x).embedding, model.beit(x).last_hidden_state[:, 0], atol=1e-6)


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
