"""timm: embedding as the model's own head pools it, maps from its declared feature stages."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import timm
import torch
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg, is_model, model_entrypoint
from torch import Tensor, nn

from ..card import BackboneCard, Family, Input, Pretraining
from ..checkpoint import load_checkpoint
from ..errors import BadInput, unknown
from ..hub import weights_from
from ..interface import Backbone, Features, Level
from .facts import Facts, data_of, method_of

# Arguments that backbench sets itself, or that would bring weights in by a side door.
RESERVED = {"pretrained", "num_classes", "in_chans", "features_only", "checkpoint_path", "pretrained_cfg"}
RESERVED |= {"pretrained_cfg_overlay", "pretrained_strict", "cache_dir", "scriptable", "exportable", "no_jit"}

# timm's model files by what mixes their tokens; everything else is a CNN.
FAMILIES: dict[Family, str] = {
    "vit": "beit cait crossvit davit deepseek_vit deit eva gcvit gemma4_vit hiera hieradet_sam2 naflexvit nest pit "
    "pvt_v2 qwen3_vit swin_transformer swin_transformer_v2 swin_transformer_v2_cr tnt twins vision_transformer "
    "vision_transformer_relpos vision_transformer_sam volo xcit",
    "hybrid": "byoanet coat convit cpubone csatv2 edgenext efficientformer efficientformer_v2 efficientvit_mit fastvit "
    "efficientvit_msra focalnet iformer levit lowformer maxxvit metaformer mobilenetv5 mobilevit mvitv2 nextvit shvit "
    "swiftformer tiny_vit vision_transformer_hybrid visformer vitamin",
    "mlp": "mlp_mixer sequencer",
    "ssm": "efficientvim",
}


def names() -> list[str]:
    """Every architecture, and every architecture.tag with weights."""
    return timm.list_models() + timm.list_pretrained()


def find(model: str) -> str:
    """`architecture.tag` of a name that may leave its tag out. Raises BadInput with the nearest names."""
    architecture, _, tag = model.partition(".")
    if not is_model(architecture):
        raise unknown("timm model", model, timm.list_models())
    tagged = get_arch_pretrained_cfgs(architecture)
    if tag and model not in tagged:
        raise unknown("timm model", model, tagged or [architecture])
    default = next(iter(tagged), None)
    return model if tag or default is None or not tagged[default].has_weights else default


def describe(card: BackboneCard) -> Facts:
    """What timm's pretrained config says: input statistics, licence, paper; family from the model's file."""
    model = find(card.model)
    config: Any = get_pretrained_cfg(model)
    if config is None:
        return Facts(family=family_of(model))
    method = method_of(f"{model}.{config.hf_hub_id or ''}")
    paper = config.paper_ids if isinstance(config.paper_ids, str) or not config.paper_ids else config.paper_ids[0]
    return Facts(
        input={
            "size": config.input_size[-1],
            "mean": config.mean,
            "std": config.std,
            "interpolation": config.interpolation,
            "crop": config.crop_pct,
            "fit": "squash" if config.crop_mode == "squash" else "crop",
        },
        family=family_of(model),
        pretraining=Pretraining(method=method, data=data_of(config.tag or "")) if method else None,
        license=config.license,
        paper=paper,
    )


def family_of(model: str) -> Family:
    """The family of an architecture, from the file that defines it."""
    module = model_entrypoint(model.partition(".")[0]).__module__.rsplit(".", 1)[-1]
    if "hybrid" in model:
        return "hybrid"
    families: list[Family] = [family for family, modules in FAMILIES.items() if module in modules.split()]
    return families[0] if families else "cnn"


def build(card: BackboneCard, input: Input) -> Backbone:
    """The backbone of a timm card. Raises BadInput, Unavailable."""
    model = find(card.model)
    if reserved := RESERVED & card.model_args.keys():
        raise BadInput(f"{card.name}: model_args: {min(reserved)!r} is set by backbench itself; leave it out")
    pretrained = card.pretrained and card.checkpoint is None
    if pretrained and not getattr(get_pretrained_cfg(model), "has_weights", False):
        tagged = ", ".join(get_arch_pretrained_cfgs(model)) or "none"
        raise BadInput(f"{card.name}: timm has no weights for {model} (it has: {tagged}); say `pretrained: false`")
    args = card.model_args | {"pretrained": pretrained, "num_classes": 0}
    with weights_from(_host(model), card.name, needed=pretrained):
        body = _create(card, model, args, input.size)
    if card.checkpoint:
        classifier = getattr(body, "pretrained_cfg", {}).get("classifier") or ("head", "fc", "classifier")
        load_checkpoint(card, body, heads=(classifier,) if isinstance(classifier, str) else tuple(classifier))
    return TimmBackbone(card, input, body)


def _create(card: BackboneCard, model: str, args: dict[str, Any], size: int) -> nn.Module:
    # A network with position embeddings or windows made for one size takes others only when it is told so at birth.
    tries: list[dict[str, Any]] = [{}]
    if getattr(get_pretrained_cfg(model), "fixed_input_size", False) and "img_size" not in args:
        any_size = {"dynamic_img_size": True}
        tries = [any_size | {"dynamic_img_pad": True}, any_size, {"img_size": size}]
    for index, extra in enumerate(tries):
        try:
            return timm.create_model(model, **(extra | args))
        except TypeError as error:
            if index == len(tries) - 1:
                given = ", ".join(card.model_args) or "none given"
                raise BadInput(f"{card.name}: timm cannot build {model}: {error} (model_args: {given})") from None
    raise AssertionError


def _host(model: str) -> str:
    config: Any = get_pretrained_cfg(model)
    return "huggingface.co" if config is None or config.hf_hub_id else urlsplit(config.url).netloc


class TimmBackbone(Backbone):
    """Any network with timm's interface: `forward_features`, `forward_intermediates`, `forward_head`."""

    def __init__(self, card: BackboneCard, input: Input, body: nn.Module):
        super().__init__(card, input, body)
        strides = [int(stage["reduction"]) for stage in _stages(self.image_tower)]
        # A pyramid is the last stage of each stride from 4 on; a plain ViT has one stride, so one map.
        wanted = {stride: index for index, stride in enumerate(strides) if stride >= 4 or stride == max(strides)}
        self._stages, self._strides = list(wanted.values()), list(wanted)
        self._plain = len(set(strides)) == 1
        self._prefix = int(getattr(self.image_tower, "num_prefix_tokens", 0))
        if card.pool.startswith("cls") and not self._prefix:
            raise BadInput(
                f"{self.name}: pool: {card.pool!r} needs a class token and this network has none; use 'mean'"
            )
        if card.pool == "map" and getattr(self.image_tower, "attn_pool", None) is None:
            raise BadInput(f"{self.name}: pool: 'map' needs an attention pooling layer and this network has none")

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """Channels (measured) and stride (declared by timm) of each feature map."""
        return tuple(Level(m.shape[1], s) for m, s in zip(self._dry.maps, self._strides, strict=True))

    def extract(self, images: Tensor, *, embedding: bool, maps: bool, projection: bool) -> Features:
        """One pass: the final features, and the stages on the way when `maps` are asked for."""
        found: Sequence[Tensor] = []
        if maps and self._stages:
            last, found = self.image_tower.forward_intermediates(images, indices=self._stages, norm=self._plain)
        else:
            last = self.image_tower.forward_features(images)
        return Features(
            embedding=self._pool(last) if embedding else None,
            maps=list(found),
            projection=self.project(last) if projection else None,
        )

    def project(self, last: Tensor) -> Tensor:
        """(B, T) in the text tower's space, from the image tower's final features."""
        raise NotImplementedError

    def _pool(self, last: Tensor) -> Tensor:
        if self.card.pool in ("auto", "map"):
            return self.image_tower.forward_head(last, pre_logits=True)
        if last.ndim == 3:
            cls, mean = last[:, 0], last[:, self._prefix :].mean(1)
        else:
            cls, mean = None, last.mean((1, 2) if getattr(self.image_tower, "output_fmt", "NCHW") == "NHWC" else (2, 3))
        parts = {"cls": [cls], "mean": [mean], "cls+mean": [cls, mean]}[self.card.pool]
        after = (
            getattr(self.image_tower, "fc_norm", None) or nn.Identity()
        )  # timm's ViTs normalise here or before, never twice
        return torch.cat([after(part) for part in parts], dim=1)


def _stages(tower: nn.Module) -> list[dict[str, Any]]:
    if not hasattr(tower, "forward_intermediates"):
        return []
    info = getattr(tower, "feature_info", [])
    return list(getattr(info, "info", info))
