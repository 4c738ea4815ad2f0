"""transformers' image networks, and the plain transformers among them: patch tokens after the final norm are one map.

`pool: auto` is what was trained: the library's pooled output, else the class token after the final norm, else the mean.
A dense layer over the class token (BERT's "pooler") is never used: most vision files lack it, and then it is random.
"""

import inspect
from math import isqrt
from typing import Any

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..card import BackboneCard, Input
from ..errors import NotApplicable
from ..interface import Backbone, Features
from .tokens import as_map, pool_tokens


class ImageTower(Backbone):
    """What all kinds share: one pass through the library's network. `bgr`: it wants its channels in that order."""

    body: Any
    fixed_size = False  # made for `config.image_size` alone

    def __init__(self, card: BackboneCard, input: Input, body: nn.Module, bgr: bool = False):
        super().__init__(card, input, body)
        self._bgr = bgr
        takes = inspect.signature(self.image_tower.forward).parameters
        self._options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}

    def extract(self, images: Tensor, *, embedding: bool, maps: bool, projection: bool) -> Features:
        """One pass, and what was asked for read off the library's output."""
        if self.fixed_size:
            self.own_size_only(images)
        output = self.run(images.flip(1) if self._bgr else images, maps)
        return Features(
            embedding=self.pool(output, images) if embedding else None,
            maps=self.maps(output, images) if maps else [],
            projection=self.project(output) if projection else None,
        )

    def run(self, images: Tensor, maps: bool) -> Any:
        """The library's output, with hidden states where maps are asked for."""
        return self.image_tower(pixel_values=images, output_hidden_states=maps, **self._options)

    def pool(self, output: Any, images: Tensor) -> Tensor:
        """(B, D) the embedding, by the card's `pool`."""
        raise NotImplementedError

    def maps(self, output: Any, images: Tensor) -> list[Tensor]:
        """[(B, C, H, W), …] fine to coarse."""
        raise NotImplementedError

    def project(self, output: Any) -> Tensor:
        """(B, T) in the text tower's space."""
        raise NotImplementedError

    def own_size_only(self, images: Tensor) -> None:
        """Raises NotApplicable for images of another size than the network was made for."""
        side = self.image_tower.config.image_size
        side = side if isinstance(side, int) else side[0]
        if images.shape[-2:] != (side, side):
            raise NotApplicable(f"{self.name} takes images of {side} px only")


class PlainTower(ImageTower):
    """A transformer over patches of one size (arXiv 2010.11929)."""

    def tokens(self, output: Any) -> Tensor:
        """(B, N, D) after the final norm: class token, registers, patches."""
        return output.last_hidden_state

    def pooled(self, output: Any) -> Tensor | None:
        """(B, D) as the network itself pools, None where it does not."""
        return getattr(output, "pooler_output", None)

    def pool(self, output: Any, images: Tensor) -> Tensor:
        """(B, D) the embedding, by the card's `pool`."""
        pool, pooled = self.card.pool, self.pooled(output)
        if pool == "map" and hasattr(self.image_tower, "head"):  # pooling by attention
            pool = "auto"
        if pool == "auto" and pooled is not None:
            return pooled
        tokens = self.tokens(output)
        height, width = self._grid(images)
        prefix = tokens.shape[1] - height * width
        # BEiT normalises what it has pooled instead of its tokens.
        after = getattr(getattr(self.image_tower, "pooler", None), "layernorm", None) or nn.Identity()
        if pool == "auto":
            pool = "cls" if prefix else "mean"
        parts = [after(pool_tokens(tokens, prefix, part, self.name)) for part in pool.split("+")]
        return torch.cat(parts, dim=1)

    def maps(self, output: Any, images: Tensor) -> list[Tensor]:
        """One map: the patch tokens."""
        return [as_map(self.tokens(output), self._grid(images))]

    def run(self, images: Tensor, maps: bool) -> Any:
        """The library's output; its last hidden state is all that is wanted."""
        return super().run(images, maps=False)

    def _grid(self, images: Tensor) -> tuple[int, int]:
        patch = self.image_tower.config.patch_size
        height, width = (patch, patch) if isinstance(patch, int) else patch
        return images.shape[-2] // height, images.shape[-1] // width


class ClipTower(PlainTower):
    """CLIP's (arXiv 2103.00020), which gives its final norm to the class token alone: here all tokens get it."""

    def tokens(self, output: Any) -> Tensor:
        """(B, N, D) after the final norm."""
        return self.image_tower.post_layernorm(output.last_hidden_state)


class RadioTower(PlainTower):
    """RADIO (arXiv 2312.06709): the embedding is its summary, some of its class tokens side by side."""

    def pooled(self, output: Any) -> Tensor:
        """(B, D) the summary."""
        return output.summary


class Aimv2Tower(PlainTower):
    """AIMv2 (arXiv 2411.14402), its position embeddings resampled to the images' size."""

    def run(self, images: Tensor, maps: bool) -> Any:
        """The library's output; at another size than its own, put together from the library's parts."""
        tower, grid = self.image_tower, self._grid(images)
        positions = getattr(tower.embeddings, "position_embedding", None)  # those at native resolution compute them
        if positions is None or grid[0] * grid[1] == positions.num_embeddings:
            return super().run(images, maps)
        old = isqrt(positions.num_embeddings)
        resampled = resample_abs_pos_embed(positions.weight[None], list(grid), [old, old], num_prefix_tokens=0)
        patches = tower.embeddings.rms_norm(tower.embeddings.patch_embed(images).flatten(2).transpose(1, 2))
        tokens = tower.rms_norm(tower.encoder(inputs_embeds=patches + resampled).last_hidden_state)
        return BaseModelOutputWithPooling(tokens, tower.head(tokens) if tower.use_head else None)


class NaflexTower(PlainTower):
    """SigLIP 2 at native resolution (arXiv 2502.14786): images go in as lists of patches; all of ours have one size."""

    def run(self, images: Tensor, maps: bool) -> Any:
        """The library's output."""
        height, width = self._grid(images)
        patch = self.image_tower.config.patch_size
        cut = images[:, :, : height * patch, : width * patch].unflatten(3, (width, patch)).unflatten(2, (height, patch))
        patches = cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        return self.image_tower(
            pixel_values=patches,
            pixel_attention_mask=torch.ones(patches.shape[:2], dtype=torch.long, device=images.device),
            spatial_shapes=torch.tensor([[height, width]] * len(images), device=images.device),
        )
