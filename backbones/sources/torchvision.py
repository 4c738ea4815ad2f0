"""torchvision: embedding = what the classifier sees, maps = what the stages give."""

import math
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision import models
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

from ..card import BackboneCard, Input, Pretraining
from ..catching import catch
from ..checkpoint import load_checkpoint
from ..errors import BadInput, unknown
from ..hub import weights_from
from ..interface import Backbone, Features
from .facts import Facts, crop_of
from .tokens import as_map, pad_to, pool_tokens

# Arguments that backbench sets itself.
RESERVED = {"weights", "progress", "num_classes", "aux_logits", "init_weights"}

# Inception v3's and GoogLeNet's classifiers half-way, which only help in training.
AUXILIARY = ("AuxLogits", "aux1", "aux2")


def names() -> list[str]:
    """Every classification network of torchvision."""
    return models.list_models(module=models)


def find(model: str) -> str:
    """`architecture@WEIGHTS` of a name that may leave its weights out. Raises BadInput with the nearest names."""
    architecture, _, tag = model.partition("@")
    if architecture not in names():
        raise unknown("torchvision model", architecture, names())
    weights: Any = models.get_model_weights(architecture)
    if tag and tag not in weights.__members__:
        raise unknown("tag", tag, weights.__members__, where=f"torchvision/{architecture}")
    return f"{architecture}@{weights[tag or 'DEFAULT'].name}"


def describe(card: BackboneCard) -> Facts:
    """What the weights' own preset says."""
    architecture = card.model.partition("@")[0]
    weights = _weights(card.model)
    preset = weights.transforms()
    transformer, name = architecture.startswith(("vit", "swin")), weights.name
    data = "ig-3.6b" if "SWAG_LINEAR" in name else "ig-3.6b + imagenet-1k" if "SWAG" in name else "imagenet-1k"
    return Facts(
        input={
            "size": preset.crop_size[0],
            "mean": tuple(preset.mean),
            "std": tuple(preset.std),
            "interpolation": preset.interpolation.value,
            "crop": crop_of(preset.crop_size[0], preset.resize_size[0]),
        },
        family="vit" if transformer else "hybrid" if architecture.startswith("maxvit") else "cnn",
        pretraining=Pretraining(method="supervised", data=data),
        license=weights.meta.get("license"),
    )


def build(card: BackboneCard, input: Input) -> Backbone:
    """The backbone of a torchvision card. Raises BadInput, Unavailable.

    torchvision's own weights of Inception v3 and GoogLeNet undo the statistics of their preset inside the network
    (`transform_input`). A checkpoint of one's own sees images as the card's `input` says, and nothing is undone.
    """
    body = _network(card, input)
    last = _take_off_classifier(body)
    if card.checkpoint:
        load_checkpoint(card, body, heads=(last, *AUXILIARY))
    kind = TorchvisionTransformer if isinstance(body, VisionTransformer) else TorchvisionBackbone
    return kind(card, input, body)


def classifier(card: BackboneCard, input: Input) -> nn.Module:
    """The network of a torchvision card with its classifier: images to logits. Raises as `build`."""
    body = _network(card, input)
    if card.checkpoint:
        load_checkpoint(card, body, heads=AUXILIARY)
    return body


def _network(card: BackboneCard, input: Input) -> nn.Module:
    weights = _weights(card.model)
    architecture = card.model.partition("@")[0]
    if reserved := RESERVED & card.model_args.keys():
        raise BadInput(f"{card.name}: model_args: {min(reserved)!r} is set by backbench itself; leave it out")
    args: dict[str, Any] = dict(card.model_args)
    if architecture in ("googlenet", "inception_v3"):
        args["aux_logits"] = False
        args |= {} if card.pretrained and not card.checkpoint else {"init_weights": True}
    if architecture == "maxvit_t":  # counts its windows at birth
        args.setdefault("input_size", (input.size, input.size))
    pretrained = card.pretrained and card.checkpoint is None
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(weights.url).path).name
    try:
        with weights_from("download.pytorch.org", card.name, needed=pretrained and not cached.is_file()):
            return models.get_model(architecture, weights=weights if pretrained else None, progress=False, **args)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{card.name}: torchvision cannot build {architecture}: {error}; see model_args") from None


def _weights(model: str) -> Any:
    architecture, _, tag = find(model).partition("@")
    return models.get_model_weights(architecture)[tag]  # pyright: ignore[reportIndexIssue]


def _take_off_classifier(body: nn.Module) -> str:
    """Put Identity where the last layer with an output per class was; its name."""
    name = [name for name, module in body.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1]
    body.set_submodule(name, nn.Identity())
    return name


class TorchvisionBackbone(Backbone):
    """A network of stages: its maps are what the last stage of each resolution gives.

    `pool: auto` is what the classifier's last layer sees: the mean over places, after the final norm of ConvNeXt and
    Swin; VGG's and AlexNet's 4096 units; the layer before the last of MobileNetV3 and MaxViT. SqueezeNet's classifier
    looks at each place first: the mean of what it sees. `pool: mean` is the mean over places of the last map.
    """

    body: Any

    def __init__(self, card: BackboneCard, input: Input, body: nn.Module):
        super().__init__(card, input, body)
        if card.pool not in ("auto", "mean"):
            raise BadInput(f"{self.name}: pool: {card.pool!r}: this network pools places; use one of auto, mean")
        # torchvision's Swin carries its maps with channels last.
        self._channels_last = isinstance(body, SwinTransformer)
        self._stages = self._find_stages()

    def extract(self, images: Tensor, *, embedding: bool, maps: bool, projection: bool) -> Features:
        """One pass, with the stages' outputs caught on the way."""
        caught: dict[str, Tensor] = {}
        by_mean = self.card.pool == "mean"
        with catch(self.body, self._stages if maps else self._stages[-1:] if by_mean else (), caught):
            pooled = self.body(images)
        stages = {name: self._channels_first(stage) for name, stage in caught.items()}
        if by_mean:
            pooled = stages[self._stages[-1]].mean((2, 3))
        return Features(
            embedding=pooled if embedding else None,
            maps=[stages[name] for name in self._stages] if maps else [],
        )

    def _channels_first(self, stage: Tensor) -> Tensor:
        return stage.permute(0, 3, 1, 2).contiguous() if self._channels_last else stage

    def _find_stages(self) -> tuple[str, ...]:
        """The last module of each stride from 4 on, among the outermost blocks in the order they run."""
        caught: dict[str, Tensor] = {}
        side = self.input.size
        with torch.no_grad(), catch(self.body, _blocks(self.body), caught):
            self.body(torch.zeros(1, 3, side, side))
        last: dict[int, str] = {}
        for name, output in caught.items():
            if isinstance(output, Tensor) and output.ndim == 4:
                # Convolutions without padding lose a few pixels at the borders: only the power of 2 tells a stage.
                stride = 2 ** round(math.log2(side / self._channels_first(output).shape[-1]))
                last[stride] = name
        return tuple(name for stride, name in last.items() if stride >= 4)


class TorchvisionTransformer(Backbone):
    """torchvision's plain ViT: its tokens after the final norm, of images of any size.

    `pool: auto` is the class token, which its classifier sees; `mean` that of the patch tokens, `cls+mean` both.
    """

    body: VisionTransformer

    def __init__(self, card: BackboneCard, input: Input, body: nn.Module):
        super().__init__(card, input, body)
        if card.pool == "map":
            self._dry  # noqa: B018 - says what it has instead

    def extract(self, images: Tensor, *, embedding: bool, maps: bool, projection: bool) -> Features:
        """One pass through the encoder; the last patches are filled up where they are not whole."""
        patches = self.body.conv_proj(pad_to(images, self.body.patch_size))
        height, width = patches.shape[-2:]
        cls = self.body.class_token.expand(len(images), -1, -1)
        tokens = torch.cat([cls, patches.flatten(2).mT], dim=1) + self._positions((height, width))
        encoder = self.body.encoder
        tokens = encoder.ln(encoder.layers(encoder.dropout(tokens)))
        pool = "cls" if self.card.pool == "auto" else self.card.pool
        return Features(
            embedding=pool_tokens(tokens, 1, pool, self.name) if embedding else None,
            maps=[as_map(tokens, (height, width))] if maps else [],
        )

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        # As torchvision's `interpolate_embeddings` does it, which knows squares alone.
        table = self.body.encoder.pos_embedding
        side = self.body.image_size // self.body.patch_size
        if grid == (side, side):
            return table
        resized = interpolate(as_map(table, (side, side)), size=grid, mode="bicubic", align_corners=True)
        return torch.cat([table[:, :1], resized.flatten(2).mT], dim=1)


def _blocks(body: nn.Module) -> list[str]:
    """Children of the trunk, or where there is no trunk of the body, its sequences opened; pooling left out."""
    trunk = next((name for name in ("features", "trunk_output", "layers", "blocks") if hasattr(body, name)), None)
    if trunk:
        return [f"{trunk}.{name}" for name, _ in body.get_submodule(trunk).named_children()]
    names = []
    for name, module in body.named_children():
        if isinstance(module, nn.Sequential):
            names += [f"{name}.{inner}" for inner, _ in module.named_children()]
        elif not isinstance(module, (nn.AdaptiveAvgPool2d, nn.Dropout)):
            names.append(name)
    return names
