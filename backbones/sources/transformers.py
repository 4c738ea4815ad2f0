"""transformers: vision models and dual towers of the hub, or of a local folder in the hub's shape."""

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForDepthEstimation,
    AutoModelForImageClassification,
    AutoTokenizer,
    BlipForImageTextRetrieval,
    ViTConfig,
)
from transformers.utils import logging

from ..card import BackboneCard, Checkpoint, Family, Input, Pretraining
from ..checkpoint import load_checkpoint
from ..errors import BadInput, NotApplicable, Unavailable
from ..hub import is_network, weights_from
from ..interface import Backbone
from . import dual_towers as dual
from . import image_towers as image
from . import staged_towers as staged
from . import timm
from .facts import Facts, method_of
from .image_processors import input_of, input_of_timm, statistics

# Where a repository has pickled weights only, transformers would have a bot convert them, and tell it so unasked.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")


@dataclass(frozen=True)
class Reading:
    """How one type of network is loaded and read: by which of the library's classes, which part of it, as what."""

    tower: type[image.ImageTower]
    loader: Any = AutoModel
    part: str = ""


def _all(types: str, *reading: Any) -> dict[str, Reading]:
    return dict.fromkeys(types.split(), Reading(*reading))


# `model_type` of a config → how it is read. What is not here is refused: features read by guess are wrong in silence.
PLAIN = "vit vit_mae vit_msn deit beit data2vec-vision dinov2 dinov2_with_registers dinov3_vit ijepa dpt pixio sapiens2"
READINGS: dict[str, Reading] = {
    **_all(f"{PLAIN} siglip_vision_model tipsv2_vision_model", image.PlainTower),
    **_all("clip_vision_model mlcd mlcd_vision_model", image.ClipTower),
    "radio": Reading(image.RadioTower),
    "aimv2_vision_model": Reading(image.Aimv2Tower),
    "siglip2_vision_model": Reading(image.NaflexTower),
    **_all("resnet regnet bit convnext convnextv2 mobilenet_v1 mobilenet_v2 efficientnet textnet", staged.StagedTower),
    **_all("mobilevit mobilevitv2 pvt_v2 segformer vitdet", staged.StagedTower),
    **_all("cvt poolformer swiftformer", staged.ClassifiedTower, AutoModelForImageClassification),
    **_all("swin swinv2 focalnet", staged.WindowTower),
    "dinov3_convnext": Reading(staged.WithPooledPrefix),
    "hgnet_v2": Reading(staged.BareTower),
    "levit": Reading(staged.TokenStages),
    "pvt": Reading(staged.PvtTower),
    "hiera": Reading(staged.HieraTower),
    **_all("sam sam_hq", staged.SamTower, AutoModel, "vision_encoder"),
    "sam_vision_model": Reading(staged.SamTower),
    "sam2": Reading(staged.Sam2Tower, AutoModel, "vision_encoder.backbone"),
    "sam2_hiera_det_model": Reading(staged.Sam2Tower),
    "sam3": Reading(image.PlainTower, AutoModel, "vision_encoder.backbone"),
    "sam3_vit_model": Reading(image.PlainTower),
    **_all("depth_anything prompt_depth_anything", staged.DepthTower, AutoModelForDepthEstimation, "backbone"),
    **_all("clip metaclip_2 altclip chinese_clip clipseg", dual.ClipDual),
    **_all("siglip tipsv2", dual.SiglipDual),
    "siglip2": Reading(dual.NaflexDual),
    "aimv2": Reading(dual.Aimv2Dual),
    "align": Reading(dual.AlignDual),
    "blip": Reading(dual.BlipDual, BlipForImageTextRetrieval),
}
DPT_OF_A_BACKBONE = Reading(staged.DepthTower, AutoModelForDepthEstimation, "backbone")

CNN = "align bit convnext convnextv2 dinov3_convnext efficientnet hgnet_v2 mobilenet_v1 mobilenet_v2 regnet resnet "
CNN += "textnet"
HYBRID = "cvt focalnet levit mobilevit mobilevitv2 poolformer swiftformer"


def find(model: str) -> str:
    """`organisation/name[@revision]`, its form checked; whether the hub has it shows when it is loaded."""
    repo = model.partition("@")[0]
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise BadInput(f"transformers/{model}: write transformers/organisation/name, then @revision if there is one")
    return model


def describe(card: BackboneCard) -> Facts:
    """What the config and the image processor say. Raises BadInput, Unavailable."""
    config = _config(card)
    kind = config.model_type
    if kind == "timm_wrapper":
        return Facts(input=input_of_timm(config.pretrained_cfg), family=timm.family_of(config.architecture))
    reading = _reading(card, config)
    family: Family = "cnn" if kind in CNN.split() else "hybrid" if kind in HYBRID.split() else "vit"
    method = method_of(card.model)
    if issubclass(reading.tower, dual.DualTower):
        method = "vision-language"
    if reading.loader is AutoModelForDepthEstimation:
        method = "depth"
    return Facts(
        input=input_of(config, _from_hub(card, AutoImageProcessor, missing=None)),
        family=family,
        pretraining=Pretraining(method=method) if method else None,
    )


def build(card: BackboneCard, input: Input) -> Backbone:
    """The backbone of a transformers card. Raises BadInput, Unavailable."""
    config = _config(card)
    if config.model_type == "timm_wrapper":
        backbone = timm.build(_as_timm(card, config), input)
        backbone.card = card
        return backbone
    reading = _reading(card, config)
    if card.model_args:
        config.update(card.model_args)
    if reading.loader is AutoModelForImageClassification:
        config.num_labels = 0  # the library then puts Identity where the classifier was
    body = _body(card, config, reading)
    if hasattr(getattr(body, "pooler", None), "dense"):  # BERT's pooling, left random in most vision checkpoints
        body.pooler = None
    if reading.part:
        body = body.get_submodule(reading.part)
    if card.checkpoint:
        load_checkpoint(card, body, heads=("pooler", "classifier"))
    processor = _from_hub(card, AutoImageProcessor, missing=None)
    bgr = processor is not None and statistics(processor)[2]
    if issubclass(reading.tower, dual.DualTower):
        return reading.tower(card, input, body, bgr, _from_hub(card, AutoTokenizer))
    return reading.tower(card, input, body, bgr)


def classifier(card: BackboneCard, input: Input) -> nn.Module:
    """The network of a transformers card with its classifier: images to logits. Raises as `build`,
    and NotApplicable."""
    config = _config(card)
    if config.model_type == "timm_wrapper":
        return timm.classifier(_as_timm(card, config), input)
    reading = _reading(card, config)
    made = next(iter(config.architectures or ()), "a bare network")
    if not made.endswith("ForImageClassification"):
        raise NotApplicable(f"{card.name} has no classifier: its weights are of {made}")
    if card.model_args:
        config.update(card.model_args)
    body = _body(card, config, Reading(reading.tower, AutoModelForImageClassification))
    if card.checkpoint:
        load_checkpoint(card, body)
    processor = _from_hub(card, AutoImageProcessor, missing=None)
    return Logits(body, bgr=processor is not None and statistics(processor)[2])


class Logits(nn.Module):
    """transformers' image classifier as a plain network. `bgr`: it wants its channels in that order."""

    def __init__(self, network: nn.Module, bgr: bool):
        super().__init__()
        self.network, self._bgr = network, bgr

    def forward(self, images: Tensor) -> Tensor:
        """(B, C) logits of images (B, 3, H, W)."""
        return self.network(pixel_values=images.flip(1) if self._bgr else images).logits


def _body(card: BackboneCard, config: Any, reading: Reading) -> Any:
    # Data2Vec's mean pooling, norm included, is left out unless it is asked for.
    extra = {"add_pooling_layer": True} if config.model_type == "data2vec-vision" else {}
    if not card.pretrained or card.checkpoint is not None:
        make = getattr(reading.loader, "from_config", None)
        return make(config, trust_remote_code=False, **extra) if make else reading.loader(config)
    args = {"config": config, "dtype": torch.float32, "output_loading_info": True}
    body, loading = _from_hub(card, reading.loader, **args, **extra)
    # What the file lacks starts at random: a pooling layer is then not used (BERT's beside texts never is), and
    # anything else is a mistake.
    missing = sorted(key for key in loading["missing_keys"] if not key.endswith("mask_token"))
    if any(key.startswith("pooler.") for key in missing):
        body.pooler = None
    random = [key for key in missing if not key.startswith(("pooler.", "text_model.pooler."))]
    if random:
        few = ", ".join(random[:4]) + (", …" if len(random) > 4 else "")
        raise BadInput(f"{card.name}: {card.model} lacks weights of {type(body).__name__}: {few}")
    return body


def _as_timm(card: BackboneCard, config: Any) -> BackboneCard:
    """A repository that holds one of timm's networks is a timm card with a checkpoint on the hub."""
    repo, _, revision = card.model.partition("@")
    folder = card.folder / card.model
    hub = f"hf://{repo}/model.safetensors" + (f"@{revision}" if revision else "")
    file = f"{card.model}/model.safetensors" if folder.is_dir() else hub
    weights = {"checkpoint": Checkpoint(path=file)} if card.pretrained and not card.checkpoint else {}
    args = {**(config.model_args or {}), **card.model_args}
    return card.model_copy(update={"source": "timm", "model": config.architecture, "model_args": args, **weights})


def _reading(card: BackboneCard, config: Any) -> Reading:
    kind = config.model_type
    if kind == "dpt" and getattr(config, "backbone_config", None) is not None and not config.is_hybrid:
        return DPT_OF_A_BACKBONE
    if kind in READINGS:
        return READINGS[kind]
    inner = next((c for key in ("vision_config", "backbone_config") if (c := getattr(config, key, None))), None)
    instead = "use timm or open_clip"
    if inner:
        instead = f"the network that sees its images is a {inner.model_type!r}: name a repository of that"
    raise BadInput(
        f"{card.name}: {card.model} is a {kind!r}, which is not read as a backbone here; {instead}, "
        "or `source: python` with a file of yours that makes it"
    )


def _config(card: BackboneCard) -> Any:
    config = _from_hub(card, AutoConfig)
    if config.model_type == "vit_mae":  # the encoder alone is a ViT; as an autoencoder it would hide most patches
        fields = set(inspect.signature(ViTConfig.__init__).parameters) - {"self", "kwargs"}
        return ViTConfig(**{key: value for key, value in config.to_dict().items() if key in fields})
    return config


REQUIRED = object()


def _from_hub(card: BackboneCard, kind: Any, missing: Any = REQUIRED, **args: Any) -> Any:
    """`kind.from_pretrained` of the card's repository or folder; `missing` where it has no such thing."""
    folder = card.folder / card.model
    path, _, revision = (str(folder), "", "") if folder.is_dir() else card.model.partition("@")
    with weights_from("huggingface.co", card.name, needed=not folder.is_dir()), no_bars():
        try:
            # Safetensors where there are any; a pickle is read with torch's `weights_only`, which runs nothing.
            return kind.from_pretrained(path, revision=revision or "main", trust_remote_code=False, **args)
        except (OSError, ValueError, ImportError, RuntimeError, UnpicklingError) as error:
            if is_network(error):
                raise
            if isinstance(error, ImportError):
                raise Unavailable(f"{card.name}: {card.model}: {_reason(error)}") from None
            if missing is not REQUIRED and isinstance(error, (OSError, ValueError)):
                return missing
            raise BadInput(f"{card.name}: {card.model}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return (
            "comes with code of its own, which is never run; have a look at it, save it and name it: `source: python`"
        )
    if isinstance(error, UnpicklingError) or "weights_only" in text.lower():
        return (
            "its weights are a pickle that wants to run code, which is refused; "
            "save them again: model.save_pretrained(…) writes safetensors"
        )
    return text[:200]


@contextmanager
def no_bars() -> Iterator[None]:
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()
