"""Every kind of tower that transformers and open_clip have: small, random, through every point of `check`."""

from functools import cache

import pytest
import torch
import transformers as tf
from backbench.backbones import BadInput, NotApplicable, load_backbone
from backbench.backbones.card import BackboneCard
from backbench.backbones.check import check
from backbench.backbones.sources.transformers import READINGS
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.siglip2.image_processing_siglip2 import convert_image_to_patches

VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
PLAIN = VIT | {"image_size": 32, "patch_size": 8}
WORDS = VIT | {"vocab_size": 100, "max_position_embeddings": 20, "bos_token_id": 0, "eos_token_id": 1}
BERT = WORDS | {"pad_token_id": 1, "type_vocab_size": 2, "projection_dim": 16, "project_dim": 32}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
PVT = STAGES | {"num_attention_heads": [1, 1, 1, 1], "mlp_ratios": [2] * 4, "image_size": 64}
SWIN = {"embed_dim": 8, "depths": [1, 2, 1, 1], "image_size": 64, "drop_path_rate": 0.0}
WINDOWS = SWIN | {"num_heads": [1, 1, 2, 2], "window_size": 2}
SAM = PLAIN | {"output_channels": 16, "window_size": 2, "global_attn_indexes": [1], "num_pos_feats": 8, "mlp_dim": 64}
HIERA = {"embed_dim": 8, "depths": [1, 1, 1, 1], "image_size": [64, 64], "num_heads": [1, 1, 2, 2]}
SAM2 = {
    "hidden_size": 8,
    "num_attention_heads": 1,
    "blocks_per_stage": [1, 1, 2, 1],
    "embed_dim_per_stage": [8, 16, 32, 64],
}
SAM2 |= {"num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [4, 2, 2, 2]}
SAM2 |= {"global_attention_blocks": [3], "window_positional_embedding_background_size": [2, 2]}
SAM2_NECK = {
    "backbone_config": {"model_type": "sam2_hiera_det_model", **SAM2},
    "backbone_channel_list": [64, 32, 16, 8],
}
HGNET = STAGES | {"embedding_size": 8, "stem_channels": [3, 8, 8], "stage_in_channels": [8, 8, 16, 24]}
HGNET |= {"stage_mid_channels": [8] * 4, "stage_out_channels": [8, 16, 24, 32]}
HGNET |= {"stage_num_blocks": [1] * 4, "stage_numb_of_layers": [2] * 4}
MOBILEVIT2 = {"width_multiplier": 0.25, "n_attn_blocks": [1, 1, 1]}
CVT = {"embed_dim": [8, 16, 24], "num_heads": [1, 1, 1], "depth": [1, 2, 3]}
EFFICIENTNET = {"width_coefficient": 0.25, "depth_coefficient": 0.1, "image_size": 64, "hidden_dim": 320}
MOBILEVIT = {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 64], "num_attention_heads": 2}
LEVIT = {"hidden_sizes": [16, 24, 32], "num_attention_heads": [2] * 3, "depths": [1] * 3, "key_dim": [8] * 3}
LEVIT |= {"down_ops": [["Subsample", 8, 2, 4, 2, 2], ["Subsample", 8, 3, 4, 2, 2]]}
TEXTNET = {"hidden_sizes": [8, 8, 16, 24, 32], "stem_out_channels": 8}
TEXTNET |= {"conv_layer_kernel_sizes": [[[3, 3]]] * 4, "conv_layer_strides": [[2]] * 4, "depths": [1] * 4}
RADIO = VIT | {"patch_size": 8, "image_size": 32, "max_img_size": 64, "patch_dim": 192}
DEPTH = {"reassemble_hidden_size": 32, "neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8}
NAFLEX = VIT | {"patch_size": 8, "num_patches": 16}

PYRAMID = [(8, 4), (16, 8), (24, 16), (32, 32)]
DOUBLED = [(8, 4), (16, 8), (32, 16), (64, 32)]
PATCHES = [(32, 8)]


WINDOWED = PLAIN | {"window_size": 2, "global_attn_indexes": [1], "pretrain_image_size": 32}
SAM3 = {"vision_config": {"backbone_config": WINDOWED | {"model_type": "sam3_vit_model"}, "fpn_hidden_size": 32}}
SAM3 |= {"text_config": WORDS | {"projection_dim": 16}, "mask_decoder_config": {"hidden_size": 32}}
for part in ("geometry_encoder_config", "detr_encoder_config", "detr_decoder_config"):
    SAM3[part] = {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


def dual(vision, text, **more):
    return {"vision_config": vision, "text_config": text, "projection_dim": 16, **more}


# type → config, side of the image, (channels, stride) of its levels, and the embedding by the library's own means:
# what its classifier sees, a field of its output (`pooler_output`), the first token or the mean of them.
TYPES = {
    "vit": (PLAIN, 32, PATCHES, "classifier"),
    "vit_mae": (
        PLAIN | {"mask_ratio": 0.0} | {f"decoder_{key}": value for key, value in VIT.items()},
        32,
        PATCHES,
        "first",
    ),
    "vit_msn": (PLAIN, 32, PATCHES, "classifier"),
    "deit": (PLAIN, 32, PATCHES, "classifier"),
    "beit": (PLAIN | {"use_relative_position_bias": True}, 32, PATCHES, "classifier"),
    "data2vec-vision": (PLAIN | {"use_absolute_position_embeddings": True}, 32, PATCHES, "classifier"),
    "dinov2": (PLAIN, 32, PATCHES, "first"),
    "dinov2_with_registers": (PLAIN, 32, PATCHES, "first"),
    "dinov3_vit": (PLAIN | {"num_register_tokens": 4}, 32, PATCHES, "first"),
    "ijepa": (PLAIN, 32, PATCHES, "classifier"),
    "dpt": (PLAIN | {"backbone_out_indices": [0, 0, 1, 1], "neck_hidden_sizes": [8] * 4}, 32, PATCHES, "first"),
    "pixio": (PLAIN, 32, PATCHES, "pooler_output"),
    "sapiens2": (PLAIN, 32, PATCHES, "first"),
    "radio": (RADIO, 32, PATCHES, "summary"),
    "aimv2_vision_model": (PLAIN | {"use_head": False}, 32, PATCHES, "mean"),
    "clip_vision_model": (PLAIN, 32, PATCHES, "pooler_output"),
    "siglip_vision_model": (PLAIN, 32, PATCHES, "pooler_output"),
    "mlcd": (PLAIN, 32, PATCHES, "pooler_output"),
    "resnet": (STAGES | {"embedding_size": 8, "layer_type": "basic"}, 64, PYRAMID, "classifier"),
    "regnet": (STAGES | {"embedding_size": 8, "groups_width": 8}, 64, PYRAMID, "classifier"),
    "bit": (STAGES | {"embedding_size": 8, "num_groups": 2}, 64, PYRAMID, "classifier"),
    "convnext": (STAGES, 64, PYRAMID, "classifier"),
    "convnextv2": (STAGES, 64, PYRAMID, "classifier"),
    "dinov3_convnext": (STAGES, 64, PYRAMID, "pooler_output"),
    "hgnet_v2": (HGNET, 64, PYRAMID, "classifier"),
    "efficientnet": (EFFICIENTNET, 64, [(8, 4), (16, 8), (32, 16), (80, 32)], "classifier"),
    "mobilenet_v1": ({"depth_multiplier": 0.25}, 64, [(32, 4), (64, 8), (128, 16), (256, 32)], "classifier"),
    "mobilenet_v2": ({"depth_multiplier": 0.25}, 64, [(8, 4), (8, 8), (24, 16), (80, 32)], "classifier"),
    "textnet": (TEXTNET, 64, PYRAMID, "classifier"),
    "mobilevit": (MOBILEVIT, 64, [(16, 4), (16, 8), (24, 16), (32, 32)], "classifier"),
    "mobilevitv2": (MOBILEVIT2, 64, [(32, 4), (64, 8), (96, 16), (128, 32)], "classifier"),
    "pvt_v2": (PVT, 64, PYRAMID, "classifier"),
    "segformer": (PVT, 64, PYRAMID, "classifier"),
    "pvt": (PVT, 64, PYRAMID, "classifier"),
    "poolformer": (STAGES, 64, PYRAMID, "classifier"),
    "swiftformer": ({"embed_dims": [8, 16, 24, 32], "depths": [1] * 4}, 64, PYRAMID, "classifier"),
    "cvt": (CVT, 64, [(8, 4), (16, 8), (24, 16)], "classifier"),
    "swin": (WINDOWS, 64, DOUBLED, "classifier"),
    "swinv2": (WINDOWS, 64, DOUBLED, "classifier"),
    "focalnet": (SWIN | {"hidden_sizes": [16, 32, 64, 64]}, 64, DOUBLED, "classifier"),
    "levit": (LEVIT | {"image_size": 64}, 64, [(16, 16), (24, 32), (32, 64)], "classifier"),
    "hiera": (HIERA, 64, DOUBLED, "classifier"),
    "sam": ({"vision_config": SAM}, 32, [(16, 8)], "mean"),
    "sam_hq": ({"vision_config": SAM}, 32, [(16, 8)], "mean"),
    "sam_vision_model": (SAM, 32, [(16, 8)], "mean"),
    "sam2_hiera_det_model": (SAM2, 64, DOUBLED, "mean"),
    "sam3": (SAM3, 32, PATCHES, "mean"),
    "sam3_vit_model": (SAM3["vision_config"]["backbone_config"], 32, PATCHES, "mean"),
    "vitdet": (PLAIN, 32, PATCHES, "mean"),
    "mlcd_vision_model": (PLAIN, 32, PATCHES, "pooler_output"),
    "siglip2_vision_model": (NAFLEX, 32, PATCHES, "pooler_output"),
    "tipsv2_vision_model": (PLAIN, 32, PATCHES, "pooler_output"),
    "sam2": ({"vision_config": SAM2_NECK}, 64, DOUBLED, "mean"),
    "clip": (dual(PLAIN, WORDS), 32, PATCHES, "pooler_output"),
    "metaclip_2": (dual(PLAIN, WORDS), 32, PATCHES, "pooler_output"),
    "siglip": (dual(PLAIN, WORDS), 32, PATCHES, "pooler_output"),
    "siglip2": (dual(NAFLEX, WORDS), 32, PATCHES, "pooler_output"),
    "altclip": (dual(PLAIN, BERT), 32, PATCHES, "pooler_output"),
    "chinese_clip": (dual(PLAIN, BERT), 32, PATCHES, "pooler_output"),
    "clipseg": (dual(PLAIN, WORDS), 32, PATCHES, "pooler_output"),
    "aimv2": (dual(PLAIN, WORDS), 32, PATCHES, "pooler_output"),
    "align": (dual(EFFICIENTNET, BERT, projection_dim=80), 64, [(8, 4), (16, 8), (32, 16), (80, 32)], "pooler_output"),
    "blip": (dual(PLAIN, BERT | {"encoder_hidden_size": 32}), 32, PATCHES, "first"),
    "tipsv2": (dual(PLAIN, WORDS), 32, PATCHES, "pooler_output"),
}
DUAL = [kind for kind, (config, *_) in TYPES.items() if "text_config" in config and kind != "sam3"]


def library(kind, source):
    """The class that published weights of a type were saved from: with its classifier where there is one."""
    special = {"vit_mae": tf.ViTMAEForPreTraining, "blip": tf.BlipForImageTextRetrieval}
    special |= {"deit": tf.DeiTForImageClassification, "levit": tf.LevitForImageClassification}
    if kind in special:
        return special[kind]
    return tf.AutoModelForImageClassification if source == "classifier" else tf.AutoModel


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Makes, once each, a folder in the hub's shape with a small random network of a type."""
    folder = tmp_path_factory.mktemp("hub")
    letters = [f"{letter}{end}" for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
    vocabulary = {word: number for number, word in enumerate(["<|startoftext|>", "<|endoftext|>", *letters])}
    tokenizer = tf.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16)

    @cache
    def make(kind):
        config, side, _, source = TYPES[kind]
        torch.manual_seed(0)
        config = CONFIG_MAPPING[kind](**config)
        loader = library(kind, source)
        network = loader.from_config(config) if hasattr(loader, "from_config") else loader(config)
        enliven(network, side)
        network.save_pretrained(folder / kind)
        tf.ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(folder / kind)
        if kind in DUAL:
            tokenizer.save_pretrained(folder / kind)
        return folder

    return make


def enliven(network, side):
    """Weights and batch statistics under which a small network tells images apart, as those of a fresh one don't."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            start = torch.nn.init.kaiming_normal_ if parameter.ndim == 4 else torch.nn.init.xavier_normal_
            start(parameter)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_parameters()
        norm.bias.data += 1  # away from the kink of what comes next, where rounding would grow from layer to layer
        norm.momentum = None
    if norms:
        with torch.no_grad():
            images = torch.nn.functional.interpolate(torch.rand(8, 3, 8, 8) * 2 - 1, side, mode="bilinear")
            getattr(network.train(), "vision_model", network)(pixel_values=images)


def load(hub, kind, **card):
    return load_backbone(BackboneCard(name=kind, source="transformers", model=kind, folder=hub(kind), **card))


def failed(points):
    """The points that were not kept, as lines."""
    return [f"{point.name}: {point.detail}" for point in points if point.state == "fail"]


@pytest.mark.parametrize("kind", TYPES)
def test_transformers(hub, kind):
    backbone = load(hub, kind)
    assert [(level.channels, level.stride) for level in backbone.levels] == TYPES[kind][2]
    assert failed(check(backbone.card)) == []


def test_every_type_that_is_read_is_tested():
    assert READINGS.keys() - TYPES.keys() == {"depth_anything", "prompt_depth_anything"}  # in test_transformers.py


@pytest.mark.parametrize("kind", TYPES)
def test_the_embedding_is_the_library_s_own(hub, kind):
    _, side, _, source = TYPES[kind]
    network = library(kind, source).from_pretrained(hub(kind) / kind).eval()
    backbone, images = load(hub, kind), torch.rand(2, 3, side, side)
    with torch.no_grad():
        found = backbone(images, embedding=True, maps=True, projection=kind in DUAL)
        want = own(network, images, source, backbone.embed_dim)
    assert want.std() > 0.01  # there is something to compare
    assert torch.allclose(found.embedding, want, atol=1e-6), (found.embedding - want).abs().max()


def own(network, images, source, width):
    """The embedding by the library's means alone."""
    if source == "classifier":
        seen = []
        names = [name for name, _ in network.named_children() if name in ("classifier", "head", "fc")]
        network.get_submodule(names[0]).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        network(images)
        return seen[0].flatten(1) if seen[0].ndim != 3 else seen[0].mean(1)
    tower = getattr(network, "vision_model", getattr(network, "vision_encoder", getattr(network, "vit", network)))
    output = tower(**inputs_of(tower, images))
    if source == "first":
        return output.last_hidden_state[:, 0]
    if source == "mean":
        last = output.last_hidden_state
        return last.mean([axis for axis in range(1, last.ndim) if last.shape[axis] != width])
    return output[source]


def inputs_of(tower, images):
    """What the library's own call takes: SigLIP 2 at native resolution wants its images cut."""
    if "Siglip2" not in type(tower).__name__:
        return {"pixel_values": images}
    patches = torch.stack([convert_image_to_patches(image, 8) for image in images])
    shapes = torch.tensor([[4, 4]] * len(images))
    return {"pixel_values": patches, "pixel_attention_mask": torch.ones(patches.shape[:2]), "spatial_shapes": shapes}


PLAIN_ONES = [kind for kind, (_, _, levels, _) in TYPES.items() if levels == PATCHES]
NORM_ONE_TOKEN = ["clip_vision_model", "mlcd", "mlcd_vision_model", "clip", "metaclip_2", "altclip", "chinese_clip"]


@pytest.mark.parametrize("kind", [kind for kind in PLAIN_ONES if kind not in ("sam3", "sam3_vit_model", "vitdet")])
def test_the_map_is_the_library_s_patch_tokens_after_the_final_norm(hub, kind):
    backbone, images = load(hub, kind), torch.rand(2, 3, 32, 32)
    tower = backbone.image_tower
    with torch.no_grad():
        found = backbone(images, maps=True).maps[0].flatten(2).transpose(1, 2)
        output = tower(**inputs_of(tower, images))
        # Class tokens, registers and distillation tokens come first, and are no patches.
        want = output.last_hidden_state[:, -16:]
        if kind in [*NORM_ONE_TOKEN, "clipseg"]:
            assert torch.allclose(output.pooler_output, tower.post_layernorm(output.last_hidden_state[:, 0]), atol=1e-6)
            want = tower.post_layernorm(want)
    assert torch.allclose(found, want, atol=1e-6)


@pytest.mark.parametrize(("kind", "prefix"), [("vit", 1), ("deit", 2), ("dinov2_with_registers", 5), ("pixio", 8)])
def test_prefix_tokens_are_in_no_mean(hub, kind, prefix):
    images = torch.rand(2, 3, 32, 32)
    mean, both = load(hub, kind, pool="mean"), load(hub, kind, pool="cls+mean")
    with torch.no_grad():
        tokens = mean.body(images).last_hidden_state
        patches = tokens[:, prefix:].mean(1)
        assert tokens.shape[1] == 16 + prefix
        assert torch.allclose(mean(images).embedding, patches, atol=1e-6)
        assert torch.allclose(both(images).embedding, torch.cat([tokens[:, 0], patches], 1), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "pool", "said"),
    [
        ("resnet", "cls", "pools by the mean over places"),
        ("pvt", "map", "pools by the mean over places"),
        ("siglip", "cls", "has none"),
        ("vit", "map", "auto, cls, mean, cls"),
    ],
)
def test_another_pooling_is_refused_where_there_is_none(hub, kind, pool, said):
    with pytest.raises(BadInput, match=said):
        load(hub, kind, pool=pool)(torch.rand(1, 3, 32, 32))


def test_pooling_by_attention_and_by_the_mean(hub):
    for kind, pool in (("siglip", "map"), ("convnext", "mean"), ("pvt", "mean"), ("dinov3_convnext", "mean")):
        side = TYPES[kind][1]
        images = torch.rand(2, 3, side, side)
        with torch.no_grad():
            auto, found = load(hub, kind)(images).embedding, load(hub, kind, pool=pool)(images).embedding
        assert torch.equal(auto, found) == (pool == "map")
        assert found.shape == auto.shape


def test_beit_normalises_its_mean_once(hub):
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        auto, mean = load(hub, "beit")(images).embedding, load(hub, "beit", pool="mean")(images).embedding
    assert torch.allclose(auto, mean, atol=1e-6)


@pytest.mark.parametrize("kind", DUAL)
def test_image_and_text_come_out_as_the_library_has_them(hub, kind):
    side = TYPES[kind][1]
    backbone, images = load(hub, kind), torch.rand(2, 3, side, side)
    body, texts = backbone.body, ["a dog", "a very small cat on a mat"]
    long = kind in ("siglip", "siglip2", "tipsv2")
    tokens = backbone.tokenizer(
        texts, padding="max_length" if long else True, truncation=True, max_length=16, return_tensors="pt"
    )
    with torch.no_grad():
        found, text = backbone(images, projection=True).projection, backbone.embed_text(texts)
        if kind == "blip":
            scores = body(tokens.input_ids, images, use_itm_head=False, attention_mask=tokens.attention_mask)[0]
            normed = [torch.nn.functional.normalize(side, dim=-1) for side in (found, text)]
            assert torch.allclose(normed[0] @ normed[1].T, scores, atol=1e-6)
            return
        want = body.get_image_features(**inputs_of(body.vision_model, images)).pooler_output
        assert torch.allclose(text, body.get_text_features(**tokens).pooler_output, atol=1e-6)
    assert torch.allclose(found, want, atol=1e-6)


@pytest.mark.parametrize("kind", ["swin", "swinv2", "focalnet"])
def test_maps_are_the_stages_before_they_are_halved(hub, kind):
    backbone, images = load(hub, kind), torch.rand(1, 3, 64, 64)
    stages = getattr(backbone.body.encoder, "layers", None) or backbone.body.encoder.stages
    with torch.no_grad():
        maps = backbone(images, maps=True).maps
        halved = backbone.body(images, output_hidden_states=True).reshaped_hidden_states[1:]
        for stage, found, want in zip(stages[:-1], maps[:-1], halved[:-1], strict=False):
            tokens, sides = found.flatten(2).transpose(1, 2), found.shape[-2:]
            mine = stage.downsample(found)[0] if kind == "focalnet" else stage.downsample(tokens, sides)
            assert torch.allclose(mine, want.flatten(2).transpose(1, 2), atol=1e-5)
    assert torch.allclose(maps[-1], halved[-1], atol=1e-6)


def test_networks_for_one_size_say_so(hub):
    for kind in ("pvt", "levit", "sam"):
        with pytest.raises(NotApplicable, match="takes images of"):
            load(hub, kind)(torch.rand(1, 3, 96, 96), embedding=True)
    with pytest.raises(NotApplicable, match="takes images of 64 px"):
        load(hub, "hiera")(torch.rand(1, 3, 96, 96), maps=True)


# -- open_clip --------------------------------------------------------------------------------------------------------

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
OWN = {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32}
POOLER = {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 8, "output_tokens": True}
COCA = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1, "embed_cls": True}
COCA = {"text_cfg": COCA | {"output_tokens": True}, "multimodal_cfg": TEXT | {"attn_pooler_heads": 2}}


def trunk(name, side, pool="", proj="linear"):
    return {"image_size": side, "timm_model_name": name, "timm_pool": pool, "timm_proj": proj}


# architecture → what shrinks its image tower, (channels, stride) of its levels
ARCHITECTURES = {
    "ViT-B-32": (OWN, [(64, 16)]),
    "ViT-M-16-alt": (OWN | {"ls_init_value": 0.1}, [(64, 16)]),
    "ViT-B-16-quickgelu": (OWN, [(64, 16)]),
    "ViT-H-14-CLIPA": (OWN | {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}, [(64, 16)]),
    "coca_ViT-B-32": (OWN | POOLER, [(64, 16)]),
    "RN50": (
        {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
        [(64 * 2**i, 4 * 2**i) for i in range(4)],
    ),
    "convnext_tiny": (trunk("test_convnext", 64), [(24, 4), (32, 8), (48, 16), (64, 32)]),
    "convnext_large_d": (trunk("test_convnext2", 64, proj="mlp"), [(32, 4), (64, 8), (96, 16), (128, 32)]),
    "EVA02-B-16": (trunk("eva02_tiny_patch14_224", 224, "token", None), [(192, 14)]),
    "MobileCLIP-S1": (trunk("fastvit_mci0", 64, "avg", None), [(64, 4), (128, 8), (256, 16), (512, 32)]),
    "ViTamin-S": (trunk("vitamin_small_224", 224), [(384, 16)]),
    "swin_base_patch4_window7_224": (trunk("swinv2_cr_tiny_224", 224), [(96, 4), (192, 8), (384, 16), (768, 32)]),
    "ViT-B-16-SigLIP": (trunk("test_vit3", 160, "map", "none"), [(96, 16)]),
    "PE-Core-T-16-384": (trunk("vit_pe_core_tiny_patch16_384", 384, "map", None), [(192, 16)]),
}


def load_clip(architecture, **card):
    tower, _ = ARCHITECTURES[architecture]
    args = {"embed_dim": 32, "vision_cfg": tower, "text_cfg": TEXT} | (COCA if "coca" in architecture else {})
    if tower.get("timm_proj") == "none":  # nothing stands between the trunk and the texts' space
        args["embed_dim"] = 96
    card = {"name": architecture, "source": "open_clip", "model": architecture, "pretrained": False} | card
    return load_backbone(BackboneCard(model_args=args, **card))


LARGE = {"EVA02-B-16", "MobileCLIP-S1", "ViTamin-S", "swin_base_patch4_window7_224", "PE-Core-T-16-384"}


@pytest.mark.parametrize(
    "architecture", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in ARCHITECTURES]
)
def test_open_clip(architecture):
    backbone = load_clip(architecture)
    side = backbone.input.size
    images = torch.rand(2, 3, side, side)
    with torch.no_grad():
        features = backbone(images, projection=True)
        want = backbone.body.encode_image(images, normalize=False)
        tokens = backbone.tokenizer(["a dog", "a very small cat"])
        text = backbone.body.encode_text(tokens, normalize=False)
        assert torch.allclose(backbone.embed_text(["a dog", "a very small cat"]), text, atol=1e-6)
    assert torch.allclose(features.projection, want, atol=1e-6)
    assert [(level.channels, level.stride) for level in backbone.levels] == ARCHITECTURES[architecture][1]
    assert failed(check(backbone.card)) == []
