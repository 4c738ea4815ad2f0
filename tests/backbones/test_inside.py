"""What the interface shows of the inside of a network: attention maps, residual connections, outputs as they come."""

import pytest
import torch
import transformers as tf
from backbench.backbones import BackboneCard, BadInput, NotApplicable, load_backbone
from torch import nn

INPUT = {"mean": [0.5] * 3, "std": [0.5] * 3}
NARROW = {"depth": 2, "embed_dim": 48, "num_heads": 2}


def load(name, size, args=None, folder=None):
    source, _, model = name.partition("/")
    card = {"name": name, "source": source, "model": model, "pretrained": folder is not None, "model_args": args or {}}
    card |= {"folder": folder} if folder else {}
    return load_backbone(BackboneCard.model_validate(card | {"input": INPUT | {"size": size}}))


def images_of(backbone, batch=2, seed=0):
    side = backbone.input.size
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "size", "args"),
    [
        ("timm/vit_small_patch16_224", 64, NARROW),
        ("timm/vit_small_patch14_reg4_dinov2", 56, NARROW),
        ("timm/beit_base_patch16_224", 64, NARROW),
        ("timm/swin_tiny_patch4_window7_224", 56, {"embed_dim": 24, "depths": [2, 1, 1, 1]}),
        ("timm/swinv2_tiny_window8_256", 64, {"embed_dim": 24, "depths": [2, 1, 1, 1], "window_size": 4}),
        ("mini/vit-supervised", 64, {}),
    ],
)
def test_attention_is_what_the_network_computes_without_a_fused_kernel(name, size, args):
    backbone = load(name, size, args)
    images = images_of(backbone)
    with torch.inference_mode():  # as tasks may call it
        maps, expected = backbone.attention(images), backbone(images).embedding
    theirs = {}
    for block in maps:
        attention = backbone.body.get_submodule(block).attn
        attention.fused_attn = False
        attention.attn_drop.register_forward_hook(
            lambda _module, _inputs, output, block=block: theirs.update({block: output})
        )
    with torch.no_grad():
        after = backbone(images).embedding
    for block, map in maps.items():
        assert torch.allclose(map.weights.transpose(0, 1).flatten(0, 1).sum(-1), torch.tensor(1.0), atol=1e-5)
        assert torch.allclose(map.weights.flatten(0, 1), theirs[block], atol=1e-5)
        rows, columns = map.grid
        assert map.weights.shape[-1] == map.prefix + rows * columns
        assert map.stride * rows * map.weights.shape[1] ** 0.5 == pytest.approx(size)
    assert torch.allclose(after, expected, atol=1e-5)
    assert torch.backends.mha.get_fastpath_enabled()


def test_attention_of_open_clip():
    tower = {"image_size": 64, "layers": 3, "width": 64, "patch_size": 16, "head_width": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3}
    backbone = load("open_clip/ViT-B-32", 64, {"embed_dim": 24, "vision_cfg": tower, "text_cfg": text})
    images = images_of(backbone)
    maps = backbone.attention(images)
    assert list(maps) == backbone.blocks
    seen = {}
    for name in backbone.blocks:
        block = backbone.body.get_submodule(name)
        block.register_forward_pre_hook(lambda _module, inputs, name=name: seen.update({name: inputs[0]}))
    with torch.no_grad():
        backbone(images)
        for name, map in maps.items():
            block = backbone.body.get_submodule(name)
            tokens = block.ln_1(seen[name])
            _, expected = block.attn(tokens, tokens, tokens, average_attn_weights=False)
            assert torch.allclose(map.weights[:, 0], expected, atol=1e-5)
            assert (map.prefix, map.grid, map.stride) == (1, (4, 4), 16)


VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SEES = VIT | {"image_size": 32, "patch_size": 8}
WORDS = VIT | {"vocab_size": 100, "max_position_embeddings": 20, "eos_token_id": 1}
TOWERS = {
    "clip": tf.CLIPConfig(text_config=WORDS, vision_config=SEES),
    "dinov2": tf.Dinov2Config(**SEES),
    "vit": tf.ViTConfig(**SEES),
    "siglip": tf.SiglipVisionConfig(**SEES),  # as many tokens as channels a head
}


@pytest.mark.parametrize("kind", TOWERS)
def test_attention_of_transformers(tmp_path, kind):
    tf.AutoModel.from_config(TOWERS[kind]).save_pretrained(tmp_path / kind)
    if kind == "clip":
        tf.CLIPTokenizer(vocab={"<|startoftext|>": 0, "<|endoftext|>": 1}, merges=[]).save_pretrained(tmp_path / kind)
    backbone = load(f"transformers/{kind}", 32, folder=tmp_path)
    images = images_of(backbone)
    maps = backbone.attention(images)
    tower = backbone.image_tower
    tower.set_attn_implementation("eager")
    with torch.no_grad():
        expected = tower(pixel_values=images, output_attentions=True).attentions
    assert len(maps) == len(expected) == 2
    for map, theirs in zip(maps.values(), expected, strict=True):
        assert torch.allclose(map.weights[:, 0], theirs, atol=1e-5)
        assert (map.prefix, map.grid, map.stride) == (kind != "siglip", (4, 4), 8)


@pytest.mark.parametrize(
    ("name", "size", "args"),
    [
        ("timm/test_resnet", 64, {}),
        ("timm/hiera_tiny_224", 64, {"embed_dim": 24, "stages": [1, 1, 1, 1]}),  # other queries than keys
        ("timm/xcit_nano_12_p8_224", 64, {}),  # attention between channels
        ("timm/xcit_nano_12_p8_224", 64, {"embed_dim": 256}),  # as many of them a head as places
        (
            "timm/maxvit_rmlp_pico_rw_256",
            256,
            {"embed_dim": [32] * 4, "depths": [1] * 4},
        ),  # windows whose places lie apart
    ],
)
def test_no_attention_over_places(name, size, args):
    backbone = load(name, size, args)
    with pytest.raises(NotApplicable, match="has no attention over places"):
        backbone.attention(images_of(backbone))


def test_attention_whose_heads_lie_one_after_the_other():
    """SAM's (arXiv 2304.02643), of which windows that reach beyond the image are left out."""
    backbone = load("timm/samvit_base_patch16", 256, {"embed_dim": 48, "depth": 3, "num_heads": 2})
    images = images_of(backbone)
    (map,) = backbone.attention(images).values()
    with torch.no_grad():
        tokens = backbone(images, layers=["blocks.1"]).layers["blocks.1"]
        block = backbone.body.blocks[2]
        attention, alone = block.attn, {}
        attention.fused_attn = False
        attention.attn_drop.register_forward_hook(lambda _module, _inputs, output: alone.update(weights=output))
        block(tokens)
    assert (map.prefix, map.grid, map.stride) == (0, (16, 16), 16)
    assert torch.allclose(map.weights[:, 0], alone["weights"].reshape(2, 2, 256, 256), atol=1e-5)


def test_attention_is_reduced_as_it_comes():
    backbone = load("mini/vit-supervised", 64)
    shapes = backbone.attention(images_of(backbone), lambda map: map.weights.shape)
    assert shapes == dict.fromkeys(backbone.blocks, (2, 1, 3, 64, 64))


def test_residuals_of_a_vit_are_its_attention_and_its_mlp():
    backbone = load("timm/vit_small_patch16_224", 64, NARROW)
    images, before = images_of(backbone), backbone(images_of(backbone)).embedding
    with torch.inference_mode():
        found = backbone.residuals(images, lambda residual: residual)
    assert list(found) == backbone.blocks
    block, (attention, mlp) = backbone.body.blocks[1], found["blocks.1"]
    assert (attention.kind, mlp.kind) == ("attention", "mlp")
    assert (attention.prefix, attention.cls) == (1, True)
    with torch.no_grad():
        tokens = backbone(images, layers=["blocks.0"]).layers["blocks.0"]
        assert torch.allclose(attention.skip, tokens, atol=1e-5)
        assert torch.allclose(attention.branch, block.attn(block.norm1(tokens)), atol=1e-5)
        after = tokens + attention.branch
        assert torch.allclose(mlp.skip, after, atol=1e-5)
        assert torch.allclose(mlp.branch, block.mlp(block.norm2(after)), atol=1e-5)
    assert torch.allclose(backbone(images).embedding, before)


def test_residuals_of_a_resnet_are_its_shortcuts_projected_ones_too():
    backbone = load("timm/test_resnet", 64)
    images, caught = images_of(backbone), {}
    for name in backbone.blocks:
        unit = backbone.body.get_submodule(name)
        last = next(m for n, m in reversed(list(unit.named_children())) if n.startswith("bn"))
        last.register_forward_hook(lambda _module, _inputs, output, name=name: caught.update({name: output.clone()}))
        if unit.downsample is not None:
            unit.downsample.register_forward_hook(
                lambda _module, _inputs, output, name=name: caught.update({f"{name} skip": output.clone()})
            )
    found = backbone.residuals(images, lambda residual: residual)
    assert list(found) == backbone.blocks
    for name, (residual,) in found.items():
        assert residual.kind == "convolution"
        assert torch.allclose(residual.branch, caught[name].flatten(2).mT, atol=1e-6)
        if f"{name} skip" in caught:
            assert torch.allclose(residual.skip, caught[f"{name} skip"].flatten(2).mT, atol=1e-6)
    assert any("skip" in name for name in caught)


@pytest.mark.parametrize(
    ("name", "size", "args", "kinds"),
    [
        ("timm/test_convnext", 64, {}, ["convolution"]),
        ("timm/swin_tiny_patch4_window7_224", 56, {"embed_dim": 24, "depths": [1, 1, 1, 1]}, ["attention", "mlp"]),
        ("timm/eva02_tiny_patch14_224", 56, {"depth": 2}, ["attention", "mlp"]),  # rotary embeddings are sums too
        ("torchvision/vit_b_32", 64, {}, ["attention", "mlp"]),
    ],
)
def test_kinds_of_residuals(name, size, args, kinds):
    backbone = load(name, size, args)
    found = backbone.residuals(images_of(backbone, 1), lambda residual: residual.kind)
    assert found == dict.fromkeys(backbone.blocks, kinds)


def test_a_network_without_residuals():
    backbone = load("torchvision/alexnet", 64)
    with pytest.raises(NotApplicable, match="no residual connections"):
        backbone.residuals(images_of(backbone), lambda residual: residual)


def test_layers_are_reduced_as_they_come():
    backbone = load("mini/cnn-supervised", 64)
    images = images_of(backbone)
    with torch.no_grad():
        outputs = backbone(images, layers=[*backbone.blocks, "conv1"]).layers
        norms = backbone.reduced_layers(images, lambda name, output: (name, float(output.norm())))
        named = backbone.reduced_layers(images, lambda _, output: float(output.norm()), ["conv1"])
    assert norms == {name: (name, pytest.approx(float(outputs[name].norm()))) for name in backbone.blocks}
    assert named == {"conv1": pytest.approx(float(outputs["conv1"].norm()))}
    half = load_backbone("mini/cnn-supervised", precision="bfloat16")
    with torch.no_grad():
        types = half.reduced_layers(
            images, lambda _, output: (output.dtype, (output.flatten(1) @ output.flatten(1).T).dtype)
        )
    assert set(types.values()) == {(torch.float32, torch.float32)}
    with pytest.raises(BadInput, match=r"no layer 'conv2x'"):
        backbone.reduced_layers(images, lambda _, output: output, ["conv2x"])


def test_tokens_come_as_they_are_without_a_grid():
    """Also where the next layer writes over what it gets."""
    backbone = load("mini/cnn-supervised", 64)
    images = images_of(backbone)
    follows = backbone.body.get_submodule("layer2.0")
    assert isinstance(follows.conv1, nn.Conv2d)
    follows.register_forward_pre_hook(lambda _module, inputs: (inputs[0].zero_(),))
    with torch.no_grad():
        outputs, maps = backbone(images, layers=backbone.blocks).layers, backbone.layer_tokens(images)
    assert maps["layer1.0"].abs().sum() > 0
    assert all(torch.equal(maps[name], outputs[name]) for name in backbone.blocks)
