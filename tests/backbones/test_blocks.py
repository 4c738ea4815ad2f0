"""Blocks: which modules they are in any network, and their outputs pooled and as grids."""

from pathlib import Path
from threading import Thread

import pytest
import torch
import transformers as tf
import yaml
from backbench.backbones import BadInput, NotApplicable, load_backbone
from backbench.backbones.card import BackboneCard
from torch import nn

FAMILIES = yaml.safe_load((Path(__file__).parent / "architectures.yaml").read_text())
MATRIX = {name: keys for named in FAMILIES.values() for name, keys in named.items()}
# Branches side by side from the first layer to the last: no output holds all that is known of the image.
PARALLEL = {"timm/crossvit_tiny_240", "timm/tnt_s_patch16_224"}
INPUT = {"mean": [0.5] * 3, "std": [0.5] * 3}
SHALLOW = {"depth": 12, "embed_dim": 48, "num_heads": 2}


def load(name, size, args=None):
    source, _, model = name.partition("/")
    card = {"name": name, "source": source, "model": model, "pretrained": False, "model_args": args or {}}
    return load_backbone(BackboneCard.model_validate(card | {"input": {"size": size}}))


def images_of(backbone, batch=2, seed=0):
    side = backbone.input.size
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))


# name, px, arguments → how many blocks, the first, the last, and the tokens before the patches of the last
EXPECTED = [
    ("timm/resnet50", 64, {}, 16, "layer1.0", "layer4.2", None),
    ("timm/convnext_tiny", 64, {"dims": (8, 16, 24, 32)}, 18, "stages.0.blocks.0", "stages.3.blocks.2", None),
    ("timm/swin_tiny_patch4_window7_224", 56, {"embed_dim": 24}, 12, "layers.0.blocks.0", "layers.3.blocks.1", None),
    ("timm/vit_small_patch16_224", 64, SHALLOW, 12, "blocks.0", "blocks.11", 1),
    ("timm/deit_tiny_distilled_patch16_224", 64, SHALLOW, 12, "blocks.0", "blocks.11", 2),
    ("timm/vit_small_patch16_dinov3", 64, SHALLOW, 12, "blocks.0", "blocks.11", 5),
    ("timm/efficientnet_b0", 64, {}, 16, "blocks.0.0", "blocks.6.0", None),
    ("timm/mobilenetv3_large_100", 64, {}, 15, "blocks.0.0", "blocks.5.2", None),
    ("torchvision/mobilenet_v3_large", 64, {}, 15, "features.1", "features.15", None),
    ("torchvision/resnet18", 64, {}, 8, "layer1.0", "layer4.1", None),
    ("torchvision/squeezenet1_1", 64, {}, 8, "features.3", "features.12", None),
    ("torchvision/googlenet", 64, {}, 9, "inception3a", "inception5b", None),
    ("mini/cnn-image-text", 64, {}, 4, "image.layer1.0", "image.layer4.0", None),
    ("mini/vit-masked", 64, {}, 5, "blocks.0", "blocks.4", 0),
]


@pytest.mark.parametrize(("name", "size", "args", "count", "first", "last", "prefix"), EXPECTED)
def test_blocks_are_residual_units_in_the_order_they_run(name, size, args, count, first, last, prefix):
    backbone = load(name, size, args)
    assert len(backbone.blocks) == count
    assert (backbone.blocks[0], backbone.blocks[-1]) == (first, last)
    images = images_of(backbone)
    with torch.inference_mode():
        outputs = backbone(images, layers=backbone.blocks).layers
        pooled, grids = backbone.pooled_layers(images), backbone.layer_tokens(images, 2)
    assert list(grids) == list(outputs) == backbone.blocks
    pools = ["mean", "cls"] if prefix else ["mean"]
    assert list(pooled) == [f"{block}.{pool}" for block in backbone.blocks for pool in pools]
    for block, output in outputs.items():
        if prefix is not None:
            patches = output[:, prefix:]
            rows = int(patches.shape[1] ** 0.5)
            assert rows**2 == patches.shape[1]
            places = patches.mT.unflatten(2, (rows, rows))
            assert not prefix or torch.equal(pooled[f"{block}.cls"], output[:, 0])
        else:
            places = output if "swin" not in name else output.permute(0, 3, 1, 2)
        assert torch.allclose(pooled[f"{block}.mean"], places.mean((2, 3)), atol=1e-6)
        assert torch.allclose(grids[block], nn.functional.adaptive_avg_pool2d(places, 2), atol=1e-6)
        assert pooled[f"{block}.mean"].dtype == grids[block].dtype == torch.float32


VIT = {"hidden_size": 32, "num_hidden_layers": 12, "num_attention_heads": 2, "intermediate_size": 64}
WORDS = VIT | {"num_hidden_layers": 3, "vocab_size": 100, "max_position_embeddings": 20} | {"eos_token_id": 1}
SEES = VIT | {"image_size": 32, "patch_size": 8}
SWIN = {"embed_dim": 16, "depths": [2, 2, 6, 2], "num_heads": [1, 2, 4, 8], "image_size": 64, "window_size": 2}
TOWERS = {  # its configuration → blocks, the last of them, pooled outputs
    "clip": (tf.CLIPConfig(text_config=WORDS, vision_config=SEES), 12, "vision_model.encoder.layers.11", 24),
    "dinov2": (tf.Dinov2Config(**SEES), 12, "encoder.layer.11", 24),
    "swin": (tf.SwinConfig(**SWIN), 12, "encoder.layers.3.blocks.1", 12),
}


@pytest.mark.parametrize("kind", TOWERS)
def test_blocks_of_transformers_are_those_that_see_images(tmp_path, kind):
    config, count, last, pooled = TOWERS[kind]
    model = tf.AutoModel.from_config(config)
    model.save_pretrained(tmp_path / kind)
    if kind == "clip":
        tf.CLIPTokenizer(vocab={"<|startoftext|>": 0, "<|endoftext|>": 1}, merges=[]).save_pretrained(tmp_path / kind)
    size = 64 if kind == "swin" else 32
    card = BackboneCard.model_validate(
        {"name": kind, "source": "transformers", "model": kind, "folder": tmp_path, "input": INPUT | {"size": size}}
    )
    backbone = load_backbone(card)
    assert len(backbone.blocks) == count
    assert backbone.blocks[-1] == last
    with torch.inference_mode():
        assert len(backbone.pooled_layers(images_of(backbone))) == pooled
        assert {t.shape[2:] for t in backbone.layer_tokens(images_of(backbone), 3).values()} == {(3, 3)}


def test_blocks_of_open_clip_are_those_of_the_image_tower():
    tower = {"image_size": 64, "layers": 12, "width": 64, "patch_size": 16, "head_width": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 3}
    args = {"embed_dim": 24, "vision_cfg": tower, "text_cfg": text}
    blocks = load("open_clip/ViT-B-32", 64, args).blocks
    assert blocks == [f"visual.transformer.resblocks.{i}" for i in range(12)]


@pytest.mark.slow
@pytest.mark.parametrize("name", MATRIX)
def test_every_architecture_has_blocks_unless_all_its_branches_are_parallel(name):
    backbone = load(name, MATRIX[name]["size"], MATRIX[name].get("args"))
    assert bool(backbone.blocks) == (name not in PARALLEL)
    if backbone.blocks:
        with torch.inference_mode():
            pooled = backbone.pooled_layers(images_of(backbone))
        assert all(rows.ndim == 2 and rows.isfinite().all() for rows in pooled.values())
    else:
        with pytest.raises(NotApplicable, match="no blocks"):
            backbone.pooled_layers(images_of(backbone))


@pytest.mark.parametrize(
    "name", ["mini/cnn-supervised", "mini/vit-supervised", "timm/test_vit3", "torchvision/swin_t", "timm/test_mambaout"]
)
def test_a_grid_shows_the_image_where_it_changed(name):
    """Channels first or last, tokens with others before them: a changed quarter is seen in its own quarter."""
    backbone = load(name, 64)
    images = images_of(backbone, 1)
    with torch.inference_mode():
        before = backbone.layer_tokens(images, 2)
        for quarter in range(4):
            row, column = divmod(quarter, 2)
            changed = images.clone()
            changed[:, :, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32] = images_of(backbone, 1, 1)[
                :, :, :32, :32
            ]
            after = backbone.layer_tokens(changed, 2)
            first = backbone.blocks[0]
            assert int((after[first] - before[first]).norm(dim=1).flatten().argmax()) == quarter


def test_images_of_another_shape():
    backbone = load("mini/vit-masked", 64)
    images = torch.randn(1, 3, 32, 96, generator=torch.Generator().manual_seed(0))
    block = backbone.blocks[2]
    with torch.inference_mode():
        tokens = backbone(images, layers=[block]).layers[block]
        grid = backbone.layer_tokens(images, 4)[block]
    want = nn.functional.adaptive_avg_pool2d(tokens.mT.unflatten(2, (4, 12)), 4)
    assert torch.allclose(grid, want, atol=1e-6)


def test_tokens_in_the_order_of_windows_have_no_grid():
    backbone = load("timm/hiera_tiny_224", 64, MATRIX["timm/hiera_tiny_224"]["args"])
    assert len(backbone.pooled_layers(images_of(backbone))) == 4
    with pytest.raises(NotApplicable, match="not the image row by row"):
        backbone.layer_tokens(images_of(backbone), 2)


def test_looking_for_blocks_leaves_the_network_as_it_was():
    backbone = load("timm/levit_128s", 64)
    backbone.train()
    frozen = next(backbone.body.parameters())
    frozen.requires_grad_(False)
    before, wants = backbone.weights_digest, [p.requires_grad for p in backbone.parameters()]
    assert len(backbone.blocks) == 9
    assert backbone.training
    assert backbone.weights_digest == before
    assert [p.requires_grad for p in backbone.parameters()] == wants
    assert not any(module._forward_hooks for module in backbone.modules())


def test_several_threads_may_be_the_first_to_ask():
    backbone = load("mini/vit-masked", 64)
    images, found = images_of(backbone), []

    def ask():
        with torch.inference_mode():
            found.append(backbone.pooled_layers(images))

    threads = [Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [list(one) for one in found] == [[f"blocks.{i}.mean" for i in range(5)]] * 4
    assert all(torch.equal(found[0][name], one[name]) for one in found for name in one)


def test_wrong_images_are_told():
    with pytest.raises(BadInput, match="images must be"):
        load("mini/cnn-random", 64).pooled_layers(torch.zeros(3, 64, 64))
