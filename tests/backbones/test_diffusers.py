"""Stable Diffusion as a backbone: the library's own intermediate outputs, at a timestep and under a prompt."""

import json
import shutil
import time

import pytest
import torch
from backbench.backbones import BackboneCard, BadInput, Unavailable, find_backbone, hub, load_backbone
from backbench.backbones.check import check

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'backbench[diffusion]'")

WIDTHS = (8, 8, 16, 16)
DOWN = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
UP = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stable Diffusion in small, random, in the hub's shape."""
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = tmp_path_factory.mktemp("hub") / "small-diffusion"
    torch.manual_seed(7)
    diffusers.AutoencoderKL(
        block_out_channels=WIDTHS,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        scaling_factor=0.18215,
    ).save_pretrained(folder / "vae")
    diffusers.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=WIDTHS,
        down_block_types=DOWN,
        up_block_types=UP,
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    ).save_pretrained(folder / "unet")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    text = CLIPTextModel(CLIPTextConfig(**sizes, **ends, vocab_size=len(words), max_position_embeddings=12))
    text.save_pretrained(folder / "text_encoder")
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 12}))
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
    diffusers.PNDMScheduler(**betas).save_pretrained(folder / "scheduler")
    index(folder)
    return folder


def index(folder, **changes):
    parts = {
        "_class_name": "StableDiffusionPipeline",
        "vae": ["diffusers", "AutoencoderKL"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "PNDMScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(parts | changes))


def card(folder, **keys):
    return BackboneCard(name="small", source="diffusers", model=folder.name, folder=folder.parent, **keys)


@pytest.fixture(scope="module")
def backbone(folder):
    return load_backbone(card(folder))


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1


def own(folder, images, timestep, prompt, seed=0):
    """What diffusers gives on the way through the whole networks: outputs of the blocks by name."""
    from transformers import CLIPTextModel, CLIPTokenizer

    pipe = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL.from_pretrained(folder / "vae"),
        unet=diffusers.UNet2DConditionModel.from_pretrained(folder / "unet"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        scheduler=diffusers.PNDMScheduler.from_pretrained(folder / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    seen = {}
    places = {"vae": pipe.vae.encoder.down_blocks[1], "middle": pipe.unet.mid_block}
    places |= {f"down{i}": pipe.unet.down_blocks[i].attentions[-1] for i in range(3)}
    for name, module in places.items():
        module.register_forward_hook(lambda _m, _i, output, name=name: seen.__setitem__(name, output))
    with torch.no_grad():
        context, _ = pipe.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)
        latents = pipe.vae.encode(images).latent_dist.mode() * pipe.vae.config.scaling_factor
        if timestep:
            noise = torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(seed))
            latents = pipe.scheduler.add_noise(latents, noise[None], torch.tensor([timestep]))
        pipe.unet(latents, timestep, encoder_hidden_states=context.expand(len(images), -1, -1))
    return {name: output[0] if isinstance(output, tuple) else output for name, output in seen.items()}


@pytest.mark.parametrize(("timestep", "prompt"), [(0, ""), (0, "object detection"), (250, "an image")])
def test_features_are_the_librarys_own(folder, images, timestep, prompt):
    args = {"timestep": timestep, "prompt": prompt}
    features = load_backbone(card(folder, model_args=args))(images, maps=True)
    want = own(folder, images, timestep, prompt)
    assert torch.allclose(features.embedding, want["middle"].mean((2, 3)), atol=1e-6)
    assert len(features.maps) == 5
    for found, name in zip(features.maps, ("vae", "down0", "down1", "down2", "middle"), strict=True):
        assert torch.allclose(found, want[name], atol=1e-6)


def test_levels_are_those_of_battle_of_the_backbones(backbone):
    """arXiv 2310.19909: the autoencoder's at stride 4, three blocks of the way down, the middle."""
    assert [(level.channels, level.stride) for level in backbone.levels] == [
        (8, 4),
        (8, 8),
        (8, 16),
        (16, 32),
        (16, 64),
    ]
    assert backbone.embed_dim == 16


def test_the_card_is_filled_from_the_library(folder, backbone):
    assert backbone.input.model_dump(include={"size", "mean", "std", "interpolation"}) == {
        "size": 128,  # the latent's side, as often as the autoencoder halves
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "lanczos",
    }
    assert (backbone.card.family, backbone.card.pretraining.method) == ("diffusion", "generative")


def test_keeps_every_promise(folder):
    points = check(card(folder, model_args={"timestep": 100}))
    assert [point for point in points if point.state == "fail"] == []
    assert {point.name for point in points if point.state == "n/a"} == {"text meets image"}


def test_prompt_timestep_and_seed_change_features(folder, images):
    def embed(seed=0, **args):
        return load_backbone(card(folder, model_args=args, init_seed=seed))(images).embedding

    plain = embed()
    others = [embed(prompt="a dog"), embed(timestep=200), embed(timestep=200, seed=1), embed(timestep=201)]
    for i, one in enumerate([plain, *others]):
        for other in others[i:]:
            assert not torch.allclose(one, other, atol=1e-5)
    assert torch.equal(embed(timestep=200), others[1])
    assert torch.equal(embed(seed=1), plain)


def test_noise_is_the_images_own_whatever_the_batch(folder, images):
    noisy = load_backbone(card(folder, model_args={"timestep": 500}))
    with torch.no_grad():
        assert torch.allclose(noisy(images).embedding[1:], noisy(images[1:]).embedding, atol=1e-5)
        assert torch.allclose(noisy(images.flip(0)).embedding.flip(0), noisy(images).embedding, atol=1e-5)


def test_any_size_of_64_pixels_steps(backbone):
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 192, 64), maps=True).maps
    assert [tuple(m.shape[2:]) for m in maps] == [(192 // s, 64 // s) for s in (4, 8, 16, 32, 64)]


def test_only_what_sees_the_image_is_kept(folder, backbone):
    whole = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
    painting = sum(p.numel() for m in (whole.up_blocks, whole.conv_norm_out, whole.conv_out) for p in m.parameters())
    encoder = diffusers.AutoencoderKL.from_pretrained(folder / "vae")
    seeing = sum(p.numel() for m in (encoder.encoder, encoder.quant_conv) for p in m.parameters())
    assert backbone.parameters_count == sum(p.numel() for p in whole.parameters()) - painting + seeing


def test_the_digest_tells_prompts_apart_and_nothing_else(folder, backbone):
    assert load_backbone(card(folder)).weights_digest == backbone.weights_digest
    assert load_backbone(card(folder, model_args={"prompt": "a dog"})).weights_digest != backbone.weights_digest


def test_random_weights_of_the_same_architecture(folder, backbone, images):
    random = load_backbone(card(folder, pretrained=False))
    assert random.parameters_count == backbone.parameters_count
    assert random.weights_digest == load_backbone(card(folder, pretrained=False)).weights_digest
    assert not torch.allclose(random(images).embedding, backbone(images).embedding, atol=1e-4)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"model_args": {"timestap": 3}}, r"no argument 'timestap'; did you mean 'timestep'"),
        ({"model_args": {"timestep": "3"}}, "timestep: '3' is not int"),
        ({"model_args": {"timestep": 1000}}, r"timestep: 1000 is not one of 0\.\.999"),
        ({"pool": "cls"}, "pool: 'cls'"),
        (
            {"checkpoint": {"path": "x.ckpt"}, "input": {"mean": [0.5] * 3, "std": [0.5] * 3}},
            "a folder in the hub's shape",
        ),
    ],
)
def test_mistakes_in_a_card(folder, keys, said):
    with pytest.raises(BadInput, match=said):
        load_backbone(card(folder, **keys))


def test_other_pipelines_are_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    index(copy, _class_name="StableDiffusionXLPipeline", text_encoder_2=["transformers", "CLIPTextModelWithProjection"])
    with pytest.raises(BadInput, match="copy is StableDiffusionXLPipeline; Stable Diffusion 1 and 2 are read"):
        load_backbone(card(copy))
    index(copy)
    config = json.loads((copy / "unet" / "config.json").read_text())
    (copy / "unet" / "config.json").write_text(json.dumps(config | {"in_channels": 9}))
    with pytest.raises(BadInput, match="inpainting"):
        load_backbone(card(copy))


def test_weights_that_are_not_whole(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folder, tmp_path / "copy")
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights.pop("mid_block.resnets.0.conv1.weight")
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"lacks weights: mid_block\.resnets\.0\.conv1\.weight"):
        load_backbone(card(copy))
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(BadInput, match="unet"):
        load_backbone(card(copy))
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(BadInput, match=r"no unet/\*\.safetensors"):
        load_backbone(card(copy))
    (copy / "tokenizer" / "vocab.json").unlink()
    with pytest.raises(BadInput):
        load_backbone(card(copy, pretrained=False))
    (copy / "model_index.json").unlink()
    with pytest.raises(BadInput, match=r"model_index\.json"):
        load_backbone(card(copy))


def test_a_hub_out_of_reach_is_told_in_seconds(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(hub, "reachable", lambda host: False)
    start = time.monotonic()
    with pytest.raises(Unavailable, match=r"no network to huggingface\.co") as told:
        load_backbone(find_backbone("diffusers/none-such/stable-diffusion-of-nobody"))
    assert time.monotonic() - start < 10
    assert "\n" not in str(told.value)
    assert capfd.readouterr() == ("", "")


def test_names_are_of_the_hubs_form(folder):
    with pytest.raises(BadInput, match="organisation/name"):
        find_backbone("diffusers/stable-diffusion")
    with pytest.raises(BadInput, match="a folder's path"):
        load_backbone(card(folder).model_copy(update={"model": "no-such-folder"}))


def test_of_a_repository_only_what_is_read_is_fetched(folder, backbone, tmp_path, monkeypatch):
    """A repository holds its weights several times over: in half precision, as pickles, for other libraries."""
    from huggingface_hub.utils import filter_repo_objects

    copy, fetched = shutil.copytree(folder, tmp_path / "repository"), tmp_path / "fetched"
    heavy = ["unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.safetensors", "v1-5-pruned.ckpt"]
    heavy += ["safety_checker/model.safetensors", "text_encoder/model.fp16.safetensors", "v1-5-pruned.safetensors"]
    for file in heavy:
        (copy / file).parent.mkdir(exist_ok=True)
        (copy / file).write_bytes(b"never read")

    def download(repo, revision, allow_patterns):
        assert (repo, revision) == ("someone/small-diffusion", "v1")
        every = [file.relative_to(copy).as_posix() for file in copy.rglob("*") if file.is_file()]
        for file in filter_repo_objects(every, allow_patterns=allow_patterns):
            (fetched / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(copy / file, fetched / file)
        return str(fetched)

    monkeypatch.setattr("backbench.backbones.sources.diffusers.snapshot_download", download)
    monkeypatch.setattr(hub, "reachable", lambda host: True)
    found = find_backbone("diffusers/someone/small-diffusion@v1")
    assert (found.family, list(fetched.rglob("*.safetensors"))) == ("diffusion", [])
    assert load_backbone(found).weights_digest == backbone.weights_digest
    assert not {file for file in heavy if (fetched / file).exists()}
