"""Cards of research repositories, each against a file with the names that its authors' own file has."""

import hashlib

import pytest
import torch
from backbench.backbones import find_backbone, load_backbone
from backbench.backbones.card import Checkpoint
from torch.nn.functional import layer_norm
from torchvision.models.resnet import Bottleneck, ResNet

HALF, IMAGENET = (0.5, 0.5, 0.5), (0.485, 0.456, 0.406)
MLP = {"0.weight": (8, 4), "1.weight": (8,), "1.running_var": (8,), "3.weight": (8, 8)}


def random(shapes, prefix=""):
    """Tensors of `shapes`, no two the same."""
    return {prefix + name: 0.1 * torch.randn(*shape) for name, shape in shapes.items()}


def under(prefix, weights):
    return {prefix + name: tensor for name, tensor in weights.items()}


def pair(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


# -- the networks, by the names their authors use ------------------------------------------------------------------


def resnet():
    """torchvision's names and shapes, one block a stage."""
    network = ResNet(Bottleneck, [1, 1, 1, 1])
    weights = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("fc.")}
    return {k: v if v.ndim == 0 else v + 0.01 * torch.rand_like(v) for k, v in weights.items()}


def vit(width, depth, patch, tokens):
    """timm's names at the time of MoCo v3 and MAE, which are those of today."""
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, tokens, width)}
    shapes |= pair("patch_embed.proj", width, 3, patch, patch) | pair("norm", width)
    for i in range(depth):
        shapes |= pair(f"blocks.{i}.norm1", width) | pair(f"blocks.{i}.norm2", width)
        shapes |= pair(f"blocks.{i}.attn.qkv", 3 * width, width) | pair(f"blocks.{i}.attn.proj", width, width)
        shapes |= pair(f"blocks.{i}.mlp.fc1", 4 * width, width) | pair(f"blocks.{i}.mlp.fc2", width, 4 * width)
    return random(shapes)


def convnext(dims):
    """The names of ConvNeXt's authors, without layer scale, one block a stage."""
    shapes = pair("downsample_layers.0.0", dims[0], 3, 4, 4) | pair("downsample_layers.0.1", dims[0])
    for i, dim in enumerate(dims):
        if i:
            shapes |= pair(f"downsample_layers.{i}.0", dims[i - 1])
            shapes |= pair(f"downsample_layers.{i}.1", dim, dims[i - 1], 2, 2)
        shapes |= pair(f"stages.{i}.0.dwconv", dim, 1, 7, 7) | pair(f"stages.{i}.0.norm", dim)
        shapes |= pair(f"stages.{i}.0.pwconv1", 4 * dim, dim) | pair(f"stages.{i}.0.pwconv2", dim, 4 * dim)
    return random(shapes | pair("norm", dims[-1]))


def swinv2(width, heads):
    """timm's names at the time of MiDaS v3.1: stages end with their reduction, where today's begin with it."""
    shapes = pair("patch_embed.proj", width, 3, 4, 4) | pair("patch_embed.norm", width) | pair("norm", 8 * width)
    for i, count in enumerate(heads):
        dim, block = width * 2**i, f"layers.{i}.blocks.0"
        shapes |= {f"{block}.attn.{name}": (dim,) for name in ("q_bias", "v_bias")}
        shapes |= {f"{block}.attn.logit_scale": (count, 1, 1), f"{block}.attn.cpb_mlp.2.weight": (count, 512)}
        shapes |= {f"{block}.attn.qkv.weight": (3 * dim, dim)} | pair(f"{block}.attn.cpb_mlp.0", 512, 2)
        shapes |= pair(f"{block}.attn.proj", dim, dim) | pair(f"{block}.norm1", dim) | pair(f"{block}.norm2", dim)
        shapes |= pair(f"{block}.mlp.fc1", 4 * dim, dim) | pair(f"{block}.mlp.fc2", dim, 4 * dim)
        if i < 3:
            shapes |= {f"layers.{i}.downsample.reduction.weight": (2 * dim, 4 * dim)}
            shapes |= pair(f"layers.{i}.downsample.norm", 2 * dim)
    return random(shapes)


def sam(width, depth, head):
    """The names of Segment Anything's image encoder; the last block looks at the whole image."""
    shapes = {"pos_embed": (1, 64, 64, width)} | pair("patch_embed.proj", width, 3, 16, 16)
    for i in range(depth):
        side = 64 if i == depth - 1 else 14
        shapes |= {f"blocks.{i}.attn.rel_pos_{axis}": (2 * side - 1, head) for axis in "hw"}
        shapes |= pair(f"blocks.{i}.attn.qkv", 3 * width, width) | pair(f"blocks.{i}.attn.proj", width, width)
        shapes |= pair(f"blocks.{i}.norm1", width) | pair(f"blocks.{i}.norm2", width)
        shapes |= pair(f"blocks.{i}.mlp.lin1", 4 * width, width) | pair(f"blocks.{i}.mlp.lin2", width, 4 * width)
    shapes |= {"neck.0.weight": (256, width, 1, 1), "neck.2.weight": (256, 256, 3, 3)}
    return random(shapes | pair("neck.1", 256) | pair("neck.3", 256))


# -- the files, as their authors packed them -----------------------------------------------------------------------


def moco(body, head):
    average = {name: tensor + 1 for name, tensor in body.items()}
    both = under("base_encoder.", body | random(MLP, head)) | under("momentum_encoder.", average | random(MLP, head))
    weights = under("module.", both | random(MLP, "predictor."))
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    return {"epoch": 300, "arch": "vit_small", "state_dict": weights, "optimizer": optimizer, "scaler": {"scale": 1.0}}


def full_vicreg(body):
    weights = under("module.", under("backbone.", body) | random(MLP, "projector.") | random(MLP, "maps_projector."))
    return {"epoch": 1000, "model": weights, "optimizer": {"state": {0: {"mu": torch.zeros(3)}}}}


def full_dino(body):
    from argparse import Namespace

    wrapped = under("module.backbone.", body) | random({"mlp.0.weight": (4, 4)}, "module.head.")
    student = {name: tensor + 1 for name, tensor in wrapped.items()}
    return {"student": student, "teacher": under("", wrapped), "args": Namespace(arch="resnet50"), "epoch": 800}


def midas(body):
    buffers = {"layers.0.blocks.0.attn.relative_position_index": (4, 4), "layers.0.blocks.0.attn_mask": (4, 16, 16)}
    classifier = random(pair("head", 1000, 8 * body["patch_embed.norm.weight"].shape[0]))
    model = under("pretrained.model.", body | classifier | random(buffers))
    return model | random({"layer1_rn.weight": (8, 4, 3, 3), "output_conv.0.bias": (4,)}, "scratch.")


def segment_anything(body):
    prompts = random({"point_embeddings.0.weight": (1, 8), "pe_layer.positional_encoding_gaussian_matrix": (2, 8)})
    decoder = random({"transformer.layers.0.norm1.weight": (8,), "iou_token.weight": (1, 8)}, "mask_decoder.")
    return under("image_encoder.", body) | under("prompt_encoder.", prompts) | decoder


def with_decoder(body):
    width = body["norm.weight"].shape[0]
    extra = {"mask_token": (1, 1, 8), "decoder_pos_embed": (1, 197, 8), "decoder_embed.weight": (8, width)}
    return {"model": body | random(extra | {"decoder_blocks.0.norm1.weight": (8,), "decoder_pred.bias": (768,)})}


R50 = {"layers": [1, 1, 1, 1]}
DIMS = (8, 16, 24, 32)
CONVNEXT = {"dims": list(DIMS), "depths": [1, 1, 1, 1]}
SWAV = {"projection_head.0.weight": (8, 4), "prototypes.weight": (30, 8)}
SMALL = {"embed_dim": 48, "depth": 2}

# What is tried, the packaged card, the arguments that make its network small, its body, the file around it.
LAYOUTS = {
    "moco-v3/vit-small": (SMALL, lambda: vit(48, 2, 16, 197), lambda body: moco(body, "head.")),
    "moco-v3/vit-base": (SMALL, lambda: vit(48, 2, 16, 197), lambda body: moco(body, "head.")),
    "moco-v3/resnet50": (R50, resnet, lambda body: moco(body, "fc.")),
    "vicreg/resnet50": (R50, resnet, dict),
    "vicreg/resnet50 full": (R50, resnet, full_vicreg),
    "vicregl/resnet50-alpha0.9": (R50, resnet, dict),
    "vicregl/convnext-small-alpha0.9": (CONVNEXT, lambda: convnext(DIMS), dict),
    "vicregl/convnext-xlarge-alpha0.75": (CONVNEXT, lambda: convnext(DIMS), dict),
    "vicregl/convnext-xlarge-alpha0.75 full": (CONVNEXT, lambda: convnext(DIMS), full_vicreg),
    "dino/resnet50": (R50, resnet, dict),
    "dino/resnet50 full": (R50, resnet, full_dino),
    "mae/vit-base": (SMALL, lambda: vit(48, 2, 16, 197), lambda body: {"model": body}),
    "mae/vit-base full": (SMALL, lambda: vit(48, 2, 16, 197), with_decoder),
    "mae/vit-large": (SMALL, lambda: vit(48, 2, 16, 197), lambda body: {"model": body}),
    "mae/vit-huge": (SMALL, lambda: vit(48, 2, 14, 257), with_decoder),
    "midas/swinv2-tiny-256": ({"embed_dim": 24, "depths": [1] * 4}, lambda: swinv2(24, (3, 6, 12, 24)), midas),
    "midas/swinv2-base-384": ({"embed_dim": 32, "depths": [1] * 4}, lambda: swinv2(32, (4, 8, 16, 32)), midas),
    "sam/vit-base": (
        {"embed_dim": 48, "depth": 2, "global_attn_indexes": [1]},
        lambda: sam(48, 2, 4),
        segment_anything,
    ),
    "swav/resnet50": (R50, resnet, lambda body: under("module.", body | random(SWAV))),
    "sscd/resnet50": (R50, resnet, lambda body: under("backbone.", body | random(pair("fc", 512, 2048)))),
}


@pytest.fixture
def load(tmp_path):
    """Write the file of a layout and load the packaged card from it: the body written, and the backbone."""

    def call(layout):
        torch.manual_seed(len(layout))
        small, make, pack = LAYOUTS[layout]
        card = find_backbone(layout.partition(" ")[0])
        assert card.checkpoint.path.startswith("https://")
        body = make()
        torch.save(pack(body), tmp_path / "weights.pth.tar")
        here = {"checkpoint": Checkpoint(path="weights.pth.tar"), "folder": tmp_path}
        return body, load_backbone(card.model_copy(update=here | {"model_args": card.model_args | small}))

    return call


def contents(weights):
    """What is in the tensors of some weights, batch counters aside, whatever the tensors are called."""
    return sorted(hashlib.sha256(t.flatten().numpy().tobytes()).hexdigest() for t in weights.values() if t.ndim)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tensor_of_the_body_is_loaded_and_nothing_else(layout, load):
    body, backbone = load(layout)
    assert contents(backbone.body.state_dict()) == contents(body)
    assert not any(isinstance(m, torch.nn.Linear) and m.out_features in (1000, 4096) for m in backbone.body.modules())


def test_every_card_of_a_research_repository_has_its_layout_tried():
    from backbench.backbones import list_backbones

    groups = {layout.partition("/")[0] for layout in LAYOUTS}
    cards = {name for name in list_backbones() if name.partition("/")[0] in groups}
    tried = {layout.partition(" ")[0] for layout in LAYOUTS}
    kinds = {name.rpartition("-alpha")[0] or name for name in tried}  # one alpha of each network stands for the others
    assert tried <= cards
    assert {name.rpartition("-alpha")[0] or name for name in cards} - kinds <= {"vicregl/convnext-base"}


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if " " not in layout])
def test_input_statistics_are_the_authors(layout):
    card = find_backbone(layout)
    assert card.input.mean == (HALF if layout.startswith("midas/") else IMAGENET)
    assert None not in (card.input.size, card.input.interpolation, card.input.crop)  # nothing is timm's own weights'
    assert None not in (card.family, card.pretraining, card.license, card.paper)


def pooled_by_torchvision(body, images):
    """What torchvision's own network pools with these weights."""
    network = ResNet(Bottleneck, [1, 1, 1, 1]).eval()
    network.fc = torch.nn.Identity()
    network.load_state_dict(body)
    with torch.no_grad():
        return network(images)


@pytest.mark.parametrize("layout", ["vicreg/resnet50", "vicreg/resnet50 full"])
def test_vicreg_embedding_is_the_pooled_2048_not_a_random_projection(layout, load):
    body, backbone = load(layout)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        embedding = backbone(images).embedding
    assert embedding.shape == (2, 2048)
    assert torch.allclose(embedding, pooled_by_torchvision(body, images), atol=1e-4)


def test_moco_resnet_prefix_is_stripped(load):
    body, backbone = load("moco-v3/resnet50")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        embedding = backbone(images).embedding
    assert torch.allclose(embedding, pooled_by_torchvision(body, images), atol=1e-4)  # and not the momentum encoder's


def test_moco_vit_small_has_twelve_heads(load):
    body, backbone = load("moco-v3/vit-small")
    assert {block.attn.num_heads for block in backbone.body.blocks} == {12}
    assert torch.equal(backbone.body.blocks[1].attn.qkv.weight, body["blocks.1.attn.qkv.weight"])


def test_midas_embedding_is_not_the_1000_way_classifier(load):
    body, backbone = load("midas/swinv2-tiny-256")
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, 256, 256), layers=["norm"])
    assert features.embedding.shape == (1, 8 * 24)
    assert torch.allclose(features.embedding, features.layers["norm"].mean((1, 2)), atol=1e-5)
    reductions = [body[f"layers.{i}.downsample.reduction.weight"] for i in range(3)]
    loaded = [backbone.body.layers[i + 1].downsample.reduction.weight for i in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(reductions, loaded, strict=True))


def test_vicregl_normalises_places_before_it_averages_them(load):
    body, backbone = load("vicregl/convnext-xlarge-alpha0.75")
    with torch.no_grad():
        features = backbone(torch.randn(2, 3, 64, 64), maps=True)
    places = features.maps[-1].permute(0, 2, 3, 1)
    want = layer_norm(places, (DIMS[-1],), body["norm.weight"], body["norm.bias"], eps=1e-6).mean((1, 2))
    assert torch.allclose(features.embedding, want, atol=1e-5)


def test_sam_embedding_is_its_neck_s_256(load):
    _, backbone = load("sam/vit-base")
    assert backbone.embed_dim == 256
    assert [(level.channels, level.stride) for level in backbone.levels][-1][1] == 16
