"""open_clip: embedding = the image tower before its text projection, projection = after it, and the text tower."""

from collections.abc import Sequence
from typing import Any

import open_clip
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.layers.format import Format
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from ..card import BackboneCard, Family, Input, Pretraining
from ..checkpoint import load_checkpoint
from ..errors import BadInput, unknown
from ..hub import weights_from
from ..interface import Backbone, Features
from .facts import Facts, data_of
from .timm import TimmBackbone, family_of
from .tokens import as_map, pool_tokens


def find(model: str) -> str:
    """The name itself, its tag in open_clip's spelling. Raises BadInput with the nearest names."""
    architecture, _, tag = model.partition("@")
    if architecture not in open_clip.list_models():
        raise unknown("open_clip model", architecture, open_clip.list_models())
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag and tag not in tags:
        raise unknown("tag", tag, tags, where=f"open_clip/{architecture}")
    return model


def describe(card: BackboneCard) -> Facts:
    """What open_clip's config of the weights says."""
    architecture, _, tag = card.model.partition("@")
    config = open_clip.get_pretrained_cfg(architecture, tag) if tag else {}
    tower = _config(architecture)["vision_cfg"] | card.model_args.get("vision_cfg", {})
    size = tower.get("image_size", 224)
    return Facts(
        input={
            "size": size if isinstance(size, int) else size[0],
            "mean": config.get("mean", open_clip.OPENAI_DATASET_MEAN),
            "std": config.get("std", open_clip.OPENAI_DATASET_STD),
            "interpolation": config.get("interpolation", "bicubic"),
            "fit": "squash" if config.get("resize_mode") == "squash" else "crop",
        },
        family=_family(tower),
        pretraining=Pretraining(method="vision-language", data=data_of(tag)) if tag else None,
    )


def build(card: BackboneCard, input: Input) -> Backbone:
    """The backbone of an open_clip card. Raises BadInput, Unavailable."""
    architecture, _, tag = find(card.model).partition("@")
    pretrained = card.pretrained and card.checkpoint is None
    if pretrained and not tag:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise BadInput(f"{card.name}: say which weights, open_clip/{architecture}@TAG; tags: {tags}")
    # Some weights were trained with a cheaper GELU than the architecture of that name now has.
    quick_gelu = bool(tag and open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu"))
    size = input.size if input.size != describe(card).input["size"] else None
    text = card.model_args.get("text_cfg") or _config(architecture)["text_cfg"]
    # Some towers' own configs and tokenizers are on the hub, trained weights or not.
    remote = pretrained or "hf_model_name" in text or "hf_tokenizer_name" in text
    try:
        with weights_from("huggingface.co", card.name, needed=remote):
            body = open_clip.create_model(
                architecture,
                pretrained=tag if pretrained else None,
                force_quick_gelu=quick_gelu,
                force_image_size=size,
                pretrained_text=False,
                **card.model_args,
            )
            tokenizer = _tokenizer(architecture, card.model_args.get("text_cfg"))
    except TypeError as error:
        raise BadInput(f"{card.name}: open_clip cannot build {architecture}: {error}; see model_args") from None
    if card.checkpoint:
        load_checkpoint(card, body)
    if hasattr(body, "text_decoder"):
        del body.text_decoder  # CoCa's writes captions: no feature comes from it
    visual = body.visual
    for tower, kind in TOWERS.items():
        if isinstance(visual, tower):
            return kind(card, input, body, tokenizer)
    raise BadInput(
        f"{card.name}: the image tower of {architecture} ({type(visual).__name__}) is not one that is read here"
    )


def _config(architecture: str) -> dict[str, Any]:
    config = open_clip.get_model_config(find(architecture))
    assert config is not None
    return config


def _tokenizer(architecture: str, changed: dict[str, Any] | None) -> Any:
    """The architecture's tokenizer; open_clip's own for a text tower that the card describes without naming one."""
    if changed and "hf_tokenizer_name" not in changed:
        return open_clip.SimpleTokenizer(context_length=changed.get("context_length", 77))
    return open_clip.get_tokenizer(architecture)


def _family(tower: dict[str, Any]) -> Family:
    if "timm_model_name" in tower:
        return family_of(tower["timm_model_name"])
    return "cnn" if isinstance(tower.get("layers"), list) else "vit"


class _WithText(Backbone):
    """A CLIP model (arXiv 2103.00020): the body holds both towers."""

    has_text = True
    body: Any

    def __init__(self, card: BackboneCard, input: Input, body: nn.Module, tokenizer: Any):
        super().__init__(card, input, body)
        self.tokenizer = tokenizer

    @property
    def image_tower(self) -> Any:
        """open_clip's visual module."""
        return self.body.visual

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """(N, T) text embeddings, not normalised."""
        tokens = self.tokenizer(list(texts)).to(next(self.body.parameters()).device)
        return self.body.encode_text(tokens, normalize=False)  # CoCa's would


class ClipTransformer(_WithText):
    """The image tower is open_clip's own ViT, at any multiple of its patch size."""

    def extract(self, images: Tensor, *, embedding: bool, maps: bool, projection: bool) -> Features:
        """One pass: pooled as the tower pools or as the card says; the map is its normalised patch tokens."""
        visual = self.image_tower
        last = visual.transformer(self._embed(images))
        grid = images.shape[-2] // visual.patch_size[0], images.shape[-1] // visual.patch_size[1]
        own = self.card.pool == "auto" or (self.card.pool == "map" and visual.attn_pool is not None)
        pooled = visual._pool(last)[0] if projection or own else None
        result = Features()
        if embedding:
            result.embedding = pooled if own else self._pool(last)
        if maps:
            result.maps = [as_map(self._norm(last), grid)]
        if projection:
            result.projection = pooled if visual.proj is None else pooled @ visual.proj
        return result

    def _norm(self, tokens: Tensor) -> Tensor:
        # An attention pooling layer has its own width, and the norm after it too: tokens are then used as they come.
        return tokens if self.image_tower.attn_pool is not None else self.image_tower.ln_post(tokens)

    def _pool(self, last: Tensor) -> Tensor:
        # CLIPA's towers (arXiv 2305.07017) normalise what they have pooled, all others pool what they have normalised.
        late = self.image_tower.final_ln_after_pool
        tokens = last if late else self._norm(last)
        parts = [pool_tokens(tokens, 1, part, self.name) for part in self.card.pool.split("+")]
        return torch.cat([self._norm(part) if late else part for part in parts], dim=1)

    def _embed(self, images: Tensor) -> Tensor:
        # open_clip's `_embeds`, with the position embedding resampled to the grid of these images.
        visual = self.image_tower
        patches = visual.conv1(images)
        cls = visual.class_embedding.to(patches.dtype).expand(len(images), 1, -1)
        positions = resample_abs_pos_embed(
            visual.positional_embedding[None], list(patches.shape[-2:]), list(visual.grid_size), num_prefix_tokens=1
        )
        tokens = torch.cat([cls, patches.flatten(2).transpose(1, 2)], dim=1) + positions.to(patches.dtype)
        return visual.ln_pre(visual.patch_dropout(tokens))


class ClipResNet(_WithText):
    """The image tower is CLIP's ResNet; its attention pooling is pooling and projection in one."""

    def __init__(self, card: BackboneCard, input: Input, body: nn.Module, tokenizer: Any):
        super().__init__(card, input, body, tokenizer)
        if card.pool not in ("auto", "map", "mean"):
            raise BadInput(f"{self.name}: pool: {card.pool!r}: this network pools by attention (auto) or by mean")

    def extract(self, images: Tensor, *, embedding: bool, maps: bool, projection: bool) -> Features:
        """One pass through the stages."""
        visual, stages = self.image_tower, []
        stage = visual.stem(images)
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            stage = layer(stage)
            stages.append(stage)
        by_mean = self.card.pool == "mean"
        # Its position embeddings are made for one size: at any other there are maps, and no more.
        pooled = visual.attnpool(stage) if projection or (embedding and not by_mean) else None
        return Features(
            embedding=(stage.mean((2, 3)) if by_mean else pooled) if embedding else None,
            maps=stages if maps else [],
            projection=pooled if projection else None,
        )


class ClipTimm(_WithText, TimmBackbone):
    """The image tower is a timm network with a projection behind it."""

    def __init__(self, card: BackboneCard, input: Input, body: nn.Module, tokenizer: Any):
        super().__init__(card, input, body, tokenizer)
        trunk = self.image_tower
        if hasattr(trunk, "dynamic_img_size") and isinstance(trunk.patch_embed, PatchEmbed):
            # What timm's `dynamic_img_size` sets when a ViT is made; open_clip has no way to ask for it.
            trunk.dynamic_img_size = True
            trunk.patch_embed.strict_img_size, trunk.patch_embed.flatten = False, False
            trunk.patch_embed.output_fmt = Format.NHWC
            if getattr(trunk, "rope", None) is not None:
                trunk.rope._use_cached_embed = False

    @property
    def image_tower(self) -> Any:
        """The timm network."""
        return self.body.visual.trunk

    def project(self, last: Tensor) -> Tensor:
        """(B, T) in the text tower's space."""
        return self.body.visual.head(self.image_tower.forward_head(last))

    def _pool(self, last: Tensor) -> Tensor:
        # Where open_clip took timm's pooling off, its own attention pooling is pooling and projection in one.
        pooled = super()._pool(last)
        return pooled if pooled.ndim == 2 else self.project(last)


TOWERS = {VisionTransformer: ClipTransformer, ModifiedResNet: ClipResNet, TimmModel: ClipTimm}
