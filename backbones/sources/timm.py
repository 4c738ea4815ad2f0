"""timm: embedding as the model's own head pools it, maps from its declared feature stages."""

import sys
from functools import cached_property, partial
from typing import Any
from urllib.parse import urlsplit

import timm
from timm.layers.attention_pool import AttentionPoolLatent, AttentionPoolPrr
from timm.layers.attention_pool2d import AttentionPool2d, RotAttentionPool2d
from timm.models import ConvMixer, get_arch_pretrained_cfgs, get_pretrained_cfg, is_model, model_entrypoint
from torch import Tensor, nn

from ..card import BackboneCard, Family, Input
from ..checkpoint import load_checkpoint
from ..errors import BadInput, NotApplicable, unknown
from ..hub import weights_from
from ..interface import Backbone, Features, Level
from .facts import Facts, pretraining_of
from .resizing import for_size
from .tokens import has_class_token, pad_to, pool_tokens

# Arguments that backbench sets itself, or that would bring weights in by a side door.
RESERVED = {"pretrained", "num_classes", "in_chans", "features_only", "checkpoint_path", "pretrained_cfg"}
RESERVED |= {"pretrained_cfg_overlay", "pretrained_strict", "cache_dir", "scriptable", "exportable", "no_jit"}

ATTENTION_POOLING = (AttentionPool2d, AttentionPoolLatent, AttentionPoolPrr, RotAttentionPool2d)

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
        pretraining=pretraining_of(model),
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
    return TimmBackbone(card, input, _network(card, input, {"num_classes": 0}))


def classifier(card: BackboneCard, input: Input) -> nn.Module:
    """The network of a timm card with its classifier: images to logits. Raises as `build`, and NotApplicable."""
    config = get_pretrained_cfg(find(card.model))
    if config is not None and not config.num_classes:
        raise NotApplicable(f"{card.name} has no classifier: timm has the network without one")
    return _network(card, input, {})


def _network(card: BackboneCard, input: Input, classes: dict[str, int]) -> nn.Module:
    model = find(card.model)
    if reserved := RESERVED & card.model_args.keys():
        raise BadInput(f"{card.name}: model_args: {min(reserved)!r} is set by backbench itself; leave it out")
    pretrained = card.pretrained and card.checkpoint is None
    if pretrained and not getattr(get_pretrained_cfg(model), "has_weights", False):
        tagged = ", ".join(get_arch_pretrained_cfgs(model)) or "none"
        raise BadInput(f"{card.name}: timm has no weights for {model} (it has: {tagged}); say `pretrained: false`")
    args = card.model_args | {"pretrained": pretrained} | classes
    with weights_from(_host(model), card.name, needed=pretrained):
        body: Any = _create(card, model, args, input.size)
    if not hasattr(body, "get_classifier") and hasattr(body, "global_pool"):
        body.global_pool = ""  # what a language model would be handed asks for sizes of its own, and is not read
    if card.checkpoint:
        own = getattr(body, "pretrained_cfg", {}).get("classifier") or ("head", "fc", "classifier")
        classifiers = (own,) if isinstance(own, str) else tuple(own)
        # All of what the classifier lies in: LeViT's head has a norm that belongs to it, and goes with it.
        heads = tuple(name.partition(".")[0] for name in classifiers) if classes else ()
        # Each of timm's files of models knows the names that a network's authors gave to its weights.
        own_names = getattr(sys.modules[type(body).__module__], "checkpoint_filter_fn", None)
        load_checkpoint(card, body, heads, own_names and partial(own_names, model=body))
    return body


def _create(card: BackboneCard, model: str, args: dict[str, Any], size: int) -> nn.Module:
    # A network with position embeddings or windows made for one size takes others only when it is told so at birth.
    tries: list[dict[str, Any]] = [{}]
    if getattr(get_pretrained_cfg(model), "fixed_input_size", False) and "img_size" not in args:
        tries = [{"dynamic_img_size": True}, {"img_size": size}]
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
    """Any network with timm's interface: `forward_features`, `forward_intermediates`, `forward_head`.

    The embedding is, by the card's `pool`:
    - `auto`: what the network's own head hands to its classifier, for that is where its weights were trained to be
      read (the choice of arXiv 2310.19909 for every kind):
      a ViT's class token after the final norm (with a distillation token, the mean of the two); without one, the mean
      of its patch tokens, normalised before it or after (MAE fine-tuned, AIMv2), or its attention pooling (SigLIP);
      class attention (CaiT, XCiT, VOLO): the class token that gathers the patches; CrossViT: those of both branches;
      Swin, Hiera, mixers and most hybrids: the mean over places after the final norm;
      CNNs: global average pooling, with what their head puts before the classifier: a norm (ConvNeXt), a layer
      (MobileNetV3, 4096 units of VGG), or attention pooling (CLIP's ResNets, before its projection);
      a batch norm that is one with the classifier (LeViT, RepViT, EfficientViT of Microsoft) goes with it;
      encoders without a head (those of language models): the mean of their last features over places.
    - `mean`: the mean of the patch tokens (no class token, no registers), or over the places of the last map.
    - `cls`: the class token. `cls+mean`: that, then the mean. `map`: the attention pooling of a network that has one.
    """

    body: Any

    def __init__(self, card: BackboneCard, input: Input, body: nn.Module):
        super().__init__(card, input, body)
        tower = self.image_tower
        strides = [int(stage["reduction"]) for stage in _stages(tower)]
        # A pyramid is the last stage of each stride from 4 on; a plain ViT has one stride, so one map.
        wanted = {stride: index for index, stride in enumerate(strides) if stride >= 4 or stride == max(strides)}
        self._stages, self._strides = list(wanted.values()), list(wanted)
        self._plain = len(set(strides)) == 1
        self._by_attention = any(isinstance(module, ATTENTION_POOLING) for module in tower.modules())
        own = card.pool == "auto" or (card.pool == "map" and self._by_attention)
        self._pooled_by_head = own and hasattr(tower, "get_classifier")
        if not self._pooled_by_head:
            self._dry  # noqa: B018 - a pool that this network lacks shows now, not in the middle of a run

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """Channels (measured) and stride (declared by timm) of each feature map."""
        return tuple(Level(m.shape[1], s) for m, s in zip(self._dry.maps, self._strides, strict=True))

    def extract(self, images: Tensor, *, embedding: bool, maps: bool, projection: bool) -> Features:
        """One pass: the final features, and the stages on the way when `maps` are asked for."""
        last, found = self._pass(images, maps)
        return Features(
            embedding=self._pool(last) if embedding else None,
            maps=found,
            projection=self.project(last) if projection else None,
        )

    def project(self, last: Tensor) -> Tensor:
        """(B, T) in the text tower's space, from the image tower's final features."""
        raise NotImplementedError

    def _pass(self, images: Tensor, maps: bool) -> tuple[Any, list[Tensor]]:
        if self._plain and not isinstance(self.image_tower, ConvMixer):
            images = pad_to(images, self._strides[0])  # as timm's ViTs can be told to do; ConvMixer drops the rest
        tower = for_size(self.image_tower, (images.shape[-2], images.shape[-1]))
        if not maps or not self._stages:
            return tower.forward_features(images), []
        if hasattr(tower, "img_size_scaled") and tuple(tower.img_size) != tuple(images.shape[-2:]):
            side = self.input.size  # CrossViT scales whatever it gets, so its maps would not be of these images
            raise NotApplicable(f"{self.name} brings every image to {side} px: it has maps of that size only")
        return tower.forward_intermediates(images, indices=self._stages, norm=self._plain)

    def _pool(self, last: Any) -> Tensor:
        tower, pool = self.image_tower, self.card.pool
        if self._pooled_by_head:
            return tower.forward_head(last, pre_logits=True)
        if self._prefix is None:
            raise BadInput(f"{self.name}: pool: {pool!r}: this network pools in no other way than its own; use 'auto'")
        if last.ndim == 4:
            last = last.flatten(1, 2) if getattr(tower, "output_fmt", "") == "NHWC" else last.flatten(2).mT
        has_cls, also = has_class_token(tower), ("map",) if self._by_attention else ()
        pool = "mean" if pool == "auto" else pool
        pooled = pool_tokens(last, self._prefix, pool, self.name, cls=has_cls, also=also)
        # A ViT normalises its tokens, or what is pooled of them.
        norm = getattr(tower, "fc_norm", None) or nn.Identity()
        return norm(pooled.unflatten(1, (-1, last.shape[-1]))).flatten(1)

    @cached_property
    def _prefix(self) -> int | None:
        """How many of the last tokens are no places; None where the places are not among them (PiT, CrossViT)."""
        last, maps = self._pass(self._probe, maps=True)
        if not isinstance(last, Tensor) or not maps:
            return None
        extra = last.shape[1] - maps[-1].shape[-2:].numel() if last.ndim == 3 else 0
        # Fewer tokens than places: merged ones, or the class tokens alone.
        return max(extra, 0) if extra >= 0 or not has_class_token(self.image_tower) else None


def _stages(tower: nn.Module) -> list[dict[str, Any]]:
    if not hasattr(tower, "forward_intermediates"):
        return []
    info = getattr(tower, "feature_info", [])
    return list(getattr(info, "info", info))
