"""diffusers: what Stable Diffusion sees in an image, at a chosen timestep and under a chosen prompt.

The image goes through the encoder of the variational autoencoder (the mode of its latent, scaled), gets the noise of
`timestep` (0: none), and goes through the UNet's way down and its middle; the way up, which paints, is taken off
(arXiv 2112.10752; as a backbone arXiv 2310.19909, which puts a GroupNorm, trained with its head, before the mean: a
frozen network has none, so here the embedding is the mean of what the middle block gives).
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from huggingface_hub import snapshot_download
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..card import BackboneCard, Input, Pretraining
from ..catching import catch
from ..errors import BadInput, Unavailable, unknown
from ..hub import weights_from
from ..interface import Backbone, Features
from .facts import Facts
from .transformers import no_bars

MODELS: dict[str, Any] = {"vae": AutoencoderKL, "unet": UNet2DConditionModel, "text_encoder": CLIPTextModel}
DESCRIPTION = ["model_index.json", "*/*.json", "tokenizer/*"]
# Half-precision twins of these files have `.fp16` in their names; `float32` is what is loaded.
WEIGHTS = ["*/diffusion_pytorch_model.safetensors", "*/diffusion_pytorch_model-*.safetensors"]
WEIGHTS += ["text_encoder/model.safetensors", "text_encoder/model-*.safetensors"]
OPTIONS = {"timestep": 0, "prompt": ""}


def find(model: str) -> str:
    """`organisation/name[@revision]`, its form checked; whether the hub has it shows when it is loaded."""
    repo = model.partition("@")[0]
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise BadInput(f"diffusers/{model}: write diffusers/organisation/name[@revision], or a folder's path in a card")
    return model


def describe(card: BackboneCard) -> Facts:
    """What the configs say; pixels go in as the library's own pipeline puts them. Raises BadInput, Unavailable."""
    folder = _folder(card, DESCRIPTION)
    unet, vae = _config(card, folder, "unet"), _config(card, folder, "vae")
    side = unet.get("sample_size") or 64
    side = side if isinstance(side, int) else side[0]
    half = (0.5, 0.5, 0.5)  # to -1..1
    return Facts(
        input={
            "size": side * 2 ** (len(vae.get("block_out_channels", [64])) - 1),
            "mean": half,
            "std": half,
            "interpolation": "lanczos",
            "crop": 1.0,
        },
        family="diffusion",
        pretraining=Pretraining(method="generative"),
    )


def build(card: BackboneCard, input: Input) -> Backbone:
    """The backbone of a diffusers card. Raises BadInput, Unavailable."""
    if card.checkpoint:
        raise BadInput(
            f"{card.name}: checkpoint: weights of a diffusion model are a folder in the hub's shape: `model`"
        )
    options = _options(card)
    folder = _folder(card, DESCRIPTION + (WEIGHTS if card.pretrained else []))
    if card.pool not in ("auto", "mean"):
        raise BadInput(f"{card.name}: pool: {card.pool!r}: this network pools by the mean over places")
    vae, unet, text, tokenizer, scheduler = _parts(card, folder)
    schedule = scheduler.alphas_cumprod
    if not 0 <= options["timestep"] < len(schedule):
        raise BadInput(f"{card.name}: model_args: timestep: {options['timestep']} is not one of 0..{len(schedule) - 1}")
    body = WayDown(vae, unet, _context(tokenizer, text, options["prompt"]))
    return DiffusionBackbone(card, input, body, options["timestep"], float(schedule[options["timestep"]]))


class WayDown(nn.Module):
    """The parts that see the image; `context` (1, tokens, D) is the prompt as its text encoder gives it."""

    context: Tensor

    def __init__(self, vae: Any, unet: Any, context: Tensor):
        super().__init__()
        self.vae, self.unet = vae, unet
        vae.decoder = vae.post_quant_conv = None
        # With nothing on the way up, the library's own forward ends with the middle block.
        unet.up_blocks, unet.conv_norm_out, unet.conv_out = nn.ModuleList(), None, nn.Identity()
        self.register_buffer("context", context)


class DiffusionBackbone(Backbone):
    """Stable Diffusion 1 or 2. The noise of a timestep is the same for every image: drawn from the card's seed."""

    body: WayDown

    def __init__(self, card: BackboneCard, input: Input, body: nn.Module, timestep: int, kept: float):
        super().__init__(card, input, body)
        self.timestep, self._kept = timestep, kept  # `kept`: the share of the image in the noisy latent's variance

    def extract(self, images: Tensor, *, embedding: bool, maps: bool, projection: bool) -> Features:
        """One pass; maps are the last of each size from stride 4 on: the autoencoder's, the way down's, the middle."""
        vae, unet = self.body.vae, self.body.unet
        levels = [
            f"{part}.down_blocks.{i}" for part in ("vae.encoder", "unet") for i in range(_blocks(self.body, part))
        ]
        caught: dict[str, Any] = {}
        with catch(self.body, levels if maps else (), caught):
            latents = self._noisy(vae.encode(images).latent_dist.mode() * vae.config.scaling_factor)
            context = self.body.context.expand(len(images), -1, -1)
            middle = unet(latents, self.timestep, encoder_hidden_states=context).sample
        found = [_before_halving(caught[level]) for level in levels if maps] + [middle]
        by_size = {m.shape[-1]: m for m in found if m.shape[-1] <= images.shape[-1] / 3.5}
        return Features(
            embedding=middle.mean((2, 3)) if embedding else None, maps=list(by_size.values()) if maps else []
        )

    def _noisy(self, latents: Tensor) -> Tensor:
        if self.timestep == 0:
            return latents
        draw = torch.Generator().manual_seed(self.card.init_seed)
        noise = torch.randn(latents.shape[1:], generator=draw).to(latents)
        return self._kept**0.5 * latents + (1 - self._kept) ** 0.5 * noise


def _blocks(body: nn.Module, part: str) -> int:
    return len(body.get_submodule(f"{part}.down_blocks"))  # pyright: ignore[reportArgumentType]


def _before_halving(output: Any) -> Tensor:
    """A block's last map of the size it works at: a block of the UNet gives (output, all its states)."""
    if isinstance(output, Tensor):
        return output
    _, states = output
    return [state for state in states if state.shape == states[0].shape][-1]


def _options(card: BackboneCard) -> dict[str, Any]:
    for key, value in card.model_args.items():
        if key not in OPTIONS:
            raise unknown("argument", key, OPTIONS, where=f"{card.name}: model_args")
        if type(value) is not type(OPTIONS[key]):
            raise BadInput(f"{card.name}: model_args: {key}: {value!r} is not {type(OPTIONS[key]).__name__}")
    return OPTIONS | card.model_args


def _folder(card: BackboneCard, patterns: list[str]) -> Path:
    """The card's folder, or its repository's files as a folder. Raises BadInput where it is no Stable Diffusion."""
    folder = card.folder / card.model
    if not folder.is_dir():
        repo, _, revision = find(card.model).partition("@")
        with weights_from("huggingface.co", card.name, instead="give `model:` a local folder in the hub's shape"):
            folder = Path(snapshot_download(repo, revision=revision or None, allow_patterns=patterns))
    index = _json(card, folder / "model_index.json")
    parts = {part: index.get(part, [None, None])[1] for part in (*MODELS, "tokenizer", "text_encoder_2")}
    wanted = {part: model.__name__ for part, model in MODELS.items()} | {"tokenizer": "CLIPTokenizer"}
    unet, vae = _config(card, folder, "unet"), _config(card, folder, "vae")
    plain = not any(unet.get(key) for key in ("addition_embed_type", "class_embed_type", "num_class_embeds"))
    if any(parts[part] != name for part, name in wanted.items()) or parts["text_encoder_2"] or not plain:
        kind = index.get("_class_name", "a pipeline")
        raise BadInput(f"{card.name}: {card.model} is {kind}; Stable Diffusion 1 and 2 are read, with one text encoder")
    if unet.get("in_channels") != vae.get("latent_channels"):
        raise BadInput(f"{card.name}: {card.model}: its UNet wants more than a latent (is it for inpainting?)")
    return folder


def _parts(card: BackboneCard, folder: Path) -> tuple[Any, ...]:
    """The models in float32, the tokenizer and the schedule of noise, without a word on the terminal."""
    with weights_from("huggingface.co", card.name, needed=False), no_bars():
        try:
            models = [_model(card, folder, part) for part in MODELS]
            tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
            return *models, tokenizer, DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
        except (BadInput, Unavailable):
            raise
        except (OSError, ValueError, RuntimeError) as error:
            raise BadInput(f"{card.name}: {folder}: {' '.join(str(error).split())[:200]}") from None


def _model(card: BackboneCard, folder: Path, part: str) -> Any:
    kind, path, is_text = MODELS[part], folder / part, part == "text_encoder"
    if not card.pretrained:
        return kind(CLIPTextConfig.from_pretrained(path)) if is_text else kind.from_config(kind.load_config(path))
    if not list(path.glob("*.safetensors")):
        error = BadInput if (card.folder / card.model).is_dir() else Unavailable
        raise error(f"{card.name}: {card.model} has no {part}/*.safetensors here; other formats are not read")
    wide = {"dtype" if is_text else "torch_dtype": torch.float32}
    model, loading = kind.from_pretrained(path, use_safetensors=True, output_loading_info=True, **wide)
    if missing := sorted(loading["missing_keys"]):
        raise BadInput(f"{card.name}: {path} lacks weights: {', '.join(missing[:4])}, …")
    return model


def _config(card: BackboneCard, folder: Path, part: str) -> dict[str, Any]:
    return _json(card, folder / part / "config.json")


def _json(card: BackboneCard, path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{card.name}: {path}: not a diffusion model's folder: {error}") from None


def _context(tokenizer: Any, text: Any, prompt: str) -> Tensor:
    """(1, tokens, D) of a prompt, padded to full length as the library's own pipeline does."""
    length = tokenizer.model_max_length
    tokens = tokenizer([prompt], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    mask = tokens.attention_mask if getattr(text.config, "use_attention_mask", False) else None
    with torch.no_grad():
        return text.eval()(tokens.input_ids, attention_mask=mask).last_hidden_state
