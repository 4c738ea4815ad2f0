"""transformers: vision models and dual towers of the hub, or of a local folder in the hub's shape."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer, ViTConfig
from transformers.utils import logging

from ..card import BackboneCard, Family, Input, Pretraining
from ..checkpoint import load_checkpoint
from ..errors import BadInput
from ..hub import is_network, weights_from
from ..interface import Backbone, Features
from .facts import Facts, crop_of, method_of
from .tokens import as_map, pool_tokens

CNN = {"convnext", "convnextv2", "efficientnet", "mobilenet_v1", "mobilenet_v2", "regnet", "resnet", "bit", "hgnet_v2"}
HYBRID = {"mobilevit", "mobilevitv2", "levit", "cvt", "focalnet", "poolformer", "efficientformer", "swiftformer"}
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # PIL's numbers, which image processors store


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
    family: Family = "cnn" if kind in CNN else "hybrid" if kind in HYBRID else "vit"
    dual = hasattr(config, "vision_config") and hasattr(config, "text_config")
    method = "vision-language" if dual else method_of(card.model)
    return Facts(
        input=_input(config, _from_hub(card, AutoImageProcessor, missing=None)),
        family=family,
        pretraining=Pretraining(method=method) if method else None,
    )


def build(card: BackboneCard, input: Input) -> Backbone:
    """The backbone of a transformers card. Raises BadInput, Unavailable."""
    config = _config(card)
    if card.model_args:
        config.update(card.model_args)
    if card.pretrained and card.checkpoint is None:
        args = {"config": config, "dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
        body, loading = _from_hub(card, AutoModel, **args)
        # What the file lacks starts at random: fine for a pooling layer that is not used, wrong anywhere else.
        random = [key for key in loading["missing_keys"] if not key.startswith(("pooler.", "embeddings.mask_token"))]
        if random:
            raise BadInput(
                f"{card.name}: {card.model} lacks weights of {type(body).__name__}: {', '.join(random[:4])}, …"
            )
    else:
        body = AutoModel.from_config(config, trust_remote_code=False)
    if hasattr(getattr(body, "pooler", None), "dense"):  # BERT's pooling, left random in most vision checkpoints
        body.pooler = None
    if card.checkpoint:
        load_checkpoint(card, body, heads=("pooler", "classifier"))
    if hasattr(body, "get_text_features") and hasattr(body, "vision_model"):
        return TransformersDualTower(card, input, body, _from_hub(card, AutoTokenizer))
    return TransformersBackbone(card, input, body)


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
    with weights_from("huggingface.co", card.name, needed=not folder.is_dir()), _no_bars():
        try:
            return kind.from_pretrained(path, revision=revision or "main", trust_remote_code=False, **args)
        except (OSError, ValueError) as error:
            if is_network(error):
                raise
            if missing is not REQUIRED:
                return missing
            raise BadInput(f"{card.name}: {card.model}: {' '.join(str(error).split())[:200]}") from None


@contextmanager
def _no_bars() -> Iterator[None]:
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()


def _input(config: Any, processor: Any) -> dict[str, Any]:
    """The keys of `Input` that an image processor knows."""
    says = processor.to_dict() if processor is not None else {}
    size, crop_size = says.get("size") or {}, says.get("crop_size") or {}
    resized = size.get("shortest_edge") or size.get("height")
    fit = "squash" if "height" in size else "crop"
    seen = crop_size.get("height") if says.get("do_center_crop") else resized
    if says.get("crop_pct") and resized:  # ConvNeXt's processor: below 384 px it resizes to more, then crops
        seen, resized = resized, int(resized / says["crop_pct"]) if resized < 384 else resized
        fit = "crop" if seen < 384 else "squash"
    if seen is None:
        side = getattr(getattr(config, "vision_config", config), "image_size", None)
        seen = side if isinstance(side, int) or side is None else side[0]
    found = {
        "size": seen,
        "mean": says.get("image_mean"),
        "std": says.get("image_std"),
        "interpolation": FILTERS.get(says.get("resample", 3)),
        "crop": crop_of(seen, resized) if seen and resized else None,
        "fit": fit,
    }
    return {key: value for key, value in found.items() if value is not None}


class TransformersBackbone(Backbone):
    """A vision model: tokens of a plain transformer, or the stages of a hierarchical network."""

    body: Any

    def __init__(self, card: BackboneCard, input: Input, body: nn.Module):
        super().__init__(card, input, body)
        self._options = _options(self.image_tower)
        patch = getattr(self.image_tower.config, "patch_size", None)
        self._patch: Any = patch if isinstance(patch, int) or patch is None else patch[0]

    def extract(self, images: Tensor, *, embedding: bool, maps: bool, projection: bool) -> Features:
        """One pass; a hierarchical network's maps are its stages, a plain transformer's its normalised patch tokens."""
        output = self.image_tower(pixel_values=images, output_hidden_states=maps, **self._options)
        last = self.last(output)
        result = Features()
        if embedding:
            result.embedding = self._pool(output, last, images)
        if maps:
            stages = getattr(output, "reshaped_hidden_states", None) or output.hidden_states or ()
            result.maps = _pyramid(stages, images.shape[-1])
            if not result.maps and self._prefix(last, images) >= 0:
                result.maps = [as_map(last, self._grid(images))]
        if projection:
            result.projection = self.project(output)
        return result

    def last(self, output: Any) -> Tensor:
        """The final features after the final norm: (B, N, D) or (B, C, H, W)."""
        return output.last_hidden_state

    def project(self, output: Any) -> Tensor:
        """(B, T) in the text tower's space, from the image tower's output."""
        raise NotImplementedError

    def _pool(self, output: Any, last: Tensor, images: Tensor) -> Tensor:
        pool, pooled = self.card.pool, getattr(output, "pooler_output", None)
        if pool == "auto" and pooled is not None:
            return pooled.flatten(1)
        if last.ndim == 4:
            if pool not in ("auto", "mean"):
                raise BadInput(f"{self.name}: pool: {pool!r}: this network pools by the mean over places")
            return last.mean((2, 3))
        prefix = max(0, self._prefix(last, images))
        if pool == "auto":
            pool = "cls" if prefix else "mean"
        return pool_tokens(last, prefix, pool, self.name)

    def _grid(self, images: Tensor) -> tuple[int, int]:
        return images.shape[-2] // self._patch, images.shape[-1] // self._patch

    def _prefix(self, last: Tensor, images: Tensor) -> int:
        """Tokens that are not patches; below 0 where tokens are not a grid of patches."""
        if last.ndim != 3 or not self._patch:
            return -1
        height, width = self._grid(images)
        return last.shape[1] - height * width


class TransformersDualTower(TransformersBackbone):
    """CLIP (arXiv 2103.00020), SigLIP (arXiv 2303.15343) and their like: the body holds both towers."""

    has_text = True

    def __init__(self, card: BackboneCard, input: Input, body: nn.Module, tokenizer: Any):
        super().__init__(card, input, body)
        self.tokenizer = tokenizer
        # SigLIP was trained on texts padded to full length, and without a projection; its tokens come normalised.
        config: Any = body.config
        self._sigmoid = config.model_type.startswith("siglip")

    @property
    def image_tower(self) -> Any:
        """The image tower."""
        return self.body.vision_model

    def last(self, output: Any) -> Tensor:
        """(B, N, D) tokens after the norm that CLIP gives its class token alone."""
        tokens = output.last_hidden_state
        return tokens if self._sigmoid else self.image_tower.post_layernorm(tokens)

    def project(self, output: Any) -> Tensor:
        """(B, T) in the text tower's space."""
        pooled = output.pooler_output
        return self.body.visual_projection(pooled) if hasattr(self.body, "visual_projection") else pooled

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """(N, T) text embeddings, not normalised."""
        length = self.body.config.text_config.max_position_embeddings
        padding = "max_length" if self._sigmoid else True
        tokens = self.tokenizer(list(texts), padding=padding, truncation=True, max_length=length, return_tensors="pt")
        return self.body.get_text_features(**tokens.to(self.body.device)).pooler_output


def _options(vision: nn.Module) -> dict[str, bool]:
    """What this model's forward can be told: to take images of any size, and to give stages before they are halved."""
    encoder = getattr(vision, "encoder", vision)
    options = {}
    if "interpolate_pos_encoding" in inspect.signature(vision.forward).parameters:
        options["interpolate_pos_encoding"] = True
    if "output_hidden_states_before_downsampling" in inspect.signature(encoder.forward).parameters:
        options["output_hidden_states_before_downsampling"] = True
    return options


def _pyramid(stages: Sequence[Tensor], side: int) -> list[Tensor]:
    """The last map of each size, from stride 4 on."""
    maps = {stage.shape[-1]: stage for stage in stages if stage.ndim == 4 and stage.shape[-1] <= side / 3.5}
    return list(maps.values())
