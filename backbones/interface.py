"""The one interface over every backbone: images in, the asked-for features out."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import log2
from typing import Any, final

import torch
from torch import Tensor, nn

from .attending import AttentionMap, Softmaxes, attention_map
from .blocks import Block, find_blocks, first, spaced
from .card import BackboneCard, Input
from .catching import catch, copied
from .errors import BadInput, NotApplicable, unknown
from .loading import Loading, told_why_not_compiled
from .residual import Residual, Sums, residuals_of
from .transform import Transform


@dataclass(frozen=True)
class Level:
    """One feature map of the pyramid: its `channels`, and its `stride` in input pixels."""

    channels: int
    stride: int


@dataclass
class Features:
    """What a forward pass gave; what was not asked for stays empty.

    embedding: (B, D) the image as one vector; maps: [(B, C, H, W), …] fine to coarse;
    projection: (B, T) the image in the text tower's space; layers: name → that module's output.
    """

    embedding: Tensor | None = None
    maps: list[Tensor] = field(default_factory=list)
    projection: Tensor | None = None
    layers: dict[str, Any] = field(default_factory=dict)


class Backbone(nn.Module):
    """A pretrained vision network. A source subclasses it and writes `extract` (and `encode_text`), no more.

    `body` is the library's own module; its submodules are the named layers.
    """

    has_text = False  # a text tower, so `projection` and `embed_text` work

    def __init__(self, card: BackboneCard, input: Input, body: nn.Module):
        super().__init__()
        self.card, self.input, self.body = card, input, body
        self.transform = Transform.of(input)
        self.loading = Loading()
        self._extract = self.extract
        self.eval()

    # -- what a source writes ------------------------------------------------------------------------------------

    def extract(self, images: Tensor, *, embedding: bool, maps: bool, projection: bool) -> Features:
        """Features of normalised `images` (B, 3, H, W); called by `forward` only."""
        raise NotImplementedError

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """(N, T) embeddings of `texts` in the space of `projection`; called by `embed_text` only."""
        raise NotImplementedError

    # -- what everybody calls ------------------------------------------------------------------------------------

    @final
    def forward(
        self,
        images: Tensor,
        *,
        embedding: bool = True,
        maps: bool = False,
        projection: bool = False,
        layers: Sequence[str] = (),
    ) -> Features:
        """Features, in float32, of `images` (B, 3, H, W) out of `transform`. Raises BadInput, NotApplicable."""
        if projection and not self.has_text:
            raise NotApplicable(f"{self.name} has no text tower")
        if maps and not self.levels:
            raise NotApplicable(f"{self.name} has no feature maps")
        features = self._run(
            images, self._known_layers(layers), copied, embedding=embedding, maps=maps, projection=projection
        )
        return features if self.loading.precision == "float32" else _widened(features)

    @final
    def pooled_layers(self, images: Tensor) -> dict[str, Tensor]:
        """{"block.mean": (B, C), "block.cls": (B, C), …} float32: each block's output, the mean over places and, where
        there is one, the class token; in order of depth. Raises BadInput, NotApplicable without blocks.
        """
        pooled = self._through_blocks(images, Block.pooled)
        return {f"{name}.{pool}": rows for name, pools in pooled.items() for pool, rows in pools.items()}

    @final
    def layer_tokens(self, images: Tensor, grid: int | None = None, layers: int | None = None) -> dict[str, Tensor]:
        """{"block": (B, C, grid, grid), …} float32: outputs averaged in the cells of a grid, without one as they are
        (B, C, H, W); of all blocks, or of so many `layers` at equal distances; by depth.

        Raises BadInput, NotApplicable without blocks, or where one's tokens are not the image row by row.
        """
        return self._through_blocks(images, lambda block, output: block.grid(output, grid, images), layers)

    @final
    def reduced_layers(
        self, images: Tensor, keep: Callable[[str, Any], Any], layers: Sequence[str] = ()
    ) -> dict[str, Any]:
        """{"layer": keep("layer", output), …} of all blocks, or of the named `layers`, in the order they run: what is
        made of each output in float32 as it comes, so that no two need lie in memory. Raises BadInput, NotApplicable.
        """

        def kept(name: str, output: Any) -> Any:
            # The network may compute in half precision; what is made of its output does not.
            with torch.autocast(images.device.type, enabled=False):
                return keep(name, _wide(first(output)))

        if not layers:
            return self._through_blocks(images, lambda block, output: kept(block.name, output))
        return self._run(images, self._known_layers(layers), kept, embedding=True).layers

    @final
    def attention(self, images: Tensor, keep: Callable[[AttentionMap], Any] = lambda found: found) -> dict[str, Any]:
        """{"block": keep(AttentionMap), …} by depth: who looks where, in each block that has one attention over places,
        of all of them or within windows. No gradients. Raises BadInput, NotApplicable without any such (attending.py).
        """
        blocks, found = self._blocks, dict[str, Any]()

        def of(block: Block, output: Any) -> None:
            module = self.body.get_submodule(block.name)
            if (map := attention_map(block, module, output, softmaxes.taken(), images)) is not None:
                found[block.name] = keep(map)

        with torch.inference_mode(False), torch.no_grad(), Softmaxes() as softmaxes:
            if blocks:
                self._through_blocks(images, of)
        if not found:
            raise NotApplicable(f"{self.name} has no attention over places that can be read")
        return found

    @final
    def residuals(self, images: Tensor, keep: Callable[[Residual], Any]) -> dict[str, list[Any]]:
        """{"block": [keep(Residual), …], …} by depth: both sides of each residual connection, as they are added.

        Raises BadInput, NotApplicable without any (residual.py).
        """
        blocks, found = self._blocks, dict[str, list[Any]]()

        def of(block: Block, output: Any) -> None:
            if here := residuals_of(block, output, sums.taken()):
                found[block.name] = [keep(residual) for residual in here]

        with torch.inference_mode(False), torch.enable_grad(), Sums() as sums:
            if blocks:
                self._through_blocks(images.clone().requires_grad_(), of)
        if not found:
            raise NotApplicable(f"{self.name} has no residual connections in its blocks")
        return found

    @final
    @contextmanager
    def seen_as_map(self, block: str, images: Tensor, see: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Inside, what a block gives for `images` goes on as `see(map)` of its map (B, C, H, W) float32, by which the
        embedding can be differentiated. Raises BadInput for no block; a pass NotApplicable where it gives no map."""
        if (found := next((one for one in self._blocks if one.name == block), None)) is None:
            raise unknown("block", block, self.blocks, where=self.name)
        module, compiled = self.body.get_submodule(block), self._extract
        hook = module.register_forward_hook(lambda _, inputs, output: found.seen(output, images, see))
        self._extract = self.extract  # what a compiled pass does inside cannot be changed
        try:
            yield
        finally:
            self._extract = compiled
            hook.remove()

    @final
    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """(N, T) embeddings of `texts`, not normalised. Raises NotApplicable without a text tower."""
        if not self.has_text:
            raise NotApplicable(f"{self.name} has no text tower")
        with self._autocast(next(self.parameters()).device.type):
            return self.encode_text(list(texts)).float()

    @final
    def load_as(self, loading: Loading) -> "Backbone":
        """Itself, from now on computing as `loading` says. Raises Unavailable where torch cannot compile it."""
        self.loading, self._extract = loading, self.extract
        self.transform = replace(self.transform, decoder=loading.decoder)
        layout = torch.channels_last if loading.channels_last else torch.contiguous_format
        self.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
        if loading.compile:
            self._extract = torch.compile(self.extract)
            with told_why_not_compiled(self.name):
                self(self._probe)
        return self

    @property
    def name(self) -> str:
        """The card's name, or `source/model`."""
        return self.card.name or f"{self.card.source}/{self.card.model}"

    @property
    def image_tower(self) -> Any:
        """The part of the body that sees images: all of it, unless there is a text tower too."""
        return self.body

    @cached_property
    def embed_dim(self) -> int:
        """D of the embedding, measured by a dry pass."""
        embedding = self._dry.embedding
        assert embedding is not None
        return embedding.shape[1]

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """Channels and stride of each feature map, measured by a dry pass; empty where there are none."""
        strides = [self._probe_side / m.shape[-1] for m in self._dry.maps]
        if len(strides) > 1:  # a pyramid halves its maps, whatever rounding and borders take off them
            strides = [2 ** round(log2(stride)) for stride in strides]
        return tuple(Level(m.shape[1], round(stride)) for m, stride in zip(self._dry.maps, strides, strict=True))

    @property
    def blocks(self) -> list[str]:
        """Names of the modules whose outputs are the intermediate features, by depth; empty where there are none."""
        return [block.name for block in self._blocks]

    @property
    def layer_names(self) -> list[str]:
        """Names that `forward(layers=…)` takes."""
        return [name for name, _ in self.body.named_modules() if name]

    @cached_property
    def parameters_count(self) -> int:
        """Number of parameters of the image side as loaded (text tower included where the body holds one)."""
        return sum(p.numel() for p in self.body.parameters())

    @cached_property
    def macs(self) -> int | None:
        """Multiply-accumulates from one image of its size to the embedding, as torch counts them by the shapes alone:
        the same on every device and in every precision. None where they cannot be counted."""
        from torch.utils.flop_counter import FlopCounterMode

        try:
            with self._for_evaluation(), torch.no_grad(), FlopCounterMode(display=False) as counter:
                self.extract(self._probe, embedding=True, maps=False, projection=False)
        except Exception:  # a network runs where its operations cannot be watched: that is no reason to fail
            return None
        return counter.get_total_flops() // 2 or None  # a multiplication and an addition are two operations

    @cached_property
    def weights_digest(self) -> str:
        """sha256 over names, shapes, types and bytes of all weights and buffers: the same weights, the same digest."""
        sha = hashlib.sha256()
        for name, tensor in sorted(self.body.state_dict().items()):
            if isinstance(tensor, Tensor):
                data = tensor.detach().cpu().contiguous()
                sha.update(f"{name}|{tuple(data.shape)}|{data.dtype}|".encode())
                sha.update(data.flatten().view(torch.uint8).numpy().data)
        return sha.hexdigest()

    def parameter_groups(self, layer_decay: float = 1.0, weight_decay: float = 0.05) -> list[dict[str, Any]]:
        """Optimiser groups with `lr_scale` falling by `layer_decay` per depth, no decay on vectors (timm's rule).

        Depths are timm's own where the network is timm's, else those of the blocks.
        """
        tower = self.image_tower
        depths = self._depths(tower)
        plain = tower.no_weight_decay() if hasattr(tower, "no_weight_decay") else ()
        deepest, groups = max(depths.values(), default=0), dict[tuple[int, float], dict[str, Any]]()
        for name, parameter in tower.named_parameters():
            if parameter.requires_grad:
                depth = depths.get(name, deepest)
                decay = 0.0 if parameter.ndim < 2 or name in plain else weight_decay
                group = {"params": [], "weight_decay": decay, "lr_scale": layer_decay ** (deepest - depth)}
                groups.setdefault((depth, decay), group)["params"].append(parameter)
        return list(groups.values())

    # -- inside --------------------------------------------------------------------------------------------------

    def _depths(self, tower: nn.Module) -> dict[str, int]:
        """The depth of each parameter by name; what lies between two blocks goes with the one before."""
        if hasattr(tower, "group_matcher"):
            from timm.models import group_parameters

            matcher = tower.group_matcher(coarse=False)  # pyright: ignore[reportCallIssue]
            return dict(group_parameters(tower, matcher, reverse=True))
        blocks = [self.body.get_submodule(name) for name in self.blocks]
        within = {id(p): depth + 1 for depth, block in enumerate(blocks) for p in block.parameters()}
        depth, depths = 0, {}
        for name, parameter in tower.named_parameters():
            depths[name] = depth = within.get(id(parameter), depth)
        return depths

    @property
    def _probe_side(self) -> int:
        return self.input.size

    @property
    def _probe(self) -> Tensor:
        parameter = next(self.parameters(), torch.zeros(()))
        return torch.zeros(1, 3, self._probe_side, self._probe_side, device=parameter.device, dtype=parameter.dtype)

    def _autocast(self, kind: str) -> torch.autocast:
        precision = self.loading.precision
        return torch.autocast(kind, getattr(torch, precision), enabled=precision != "float32")

    @cached_property
    def _dry(self) -> Features:
        with self._for_evaluation(), torch.no_grad():
            return self.extract(self._probe, embedding=True, maps=True, projection=False)

    @cached_property
    def _blocks(self) -> list[Block]:
        def embed(images: Tensor) -> Tensor | None:
            return self.extract(images, embedding=True, maps=False, projection=False).embedding

        with self._for_evaluation():
            return find_blocks(self.body, embed, self._probe, self._dry.maps)

    def _through_blocks(
        self, images: Tensor, keep: Callable[[Block, Any], Any], count: int | None = None
    ) -> dict[str, Any]:
        """What `keep` takes of the output of all blocks, or of `count`, by name, in order of depth."""
        if not self._blocks:
            raise NotApplicable(f"{self.name} has no blocks that follow each other")
        blocks = {block.name: block for block in spaced(self._blocks, count)}
        return self._run(images, list(blocks), lambda name, output: keep(blocks[name], output), embedding=True).layers

    def _run(
        self,
        images: Tensor,
        layers: Sequence[str],
        keep: Callable[[str, Any], Any],
        *,
        embedding: bool = False,
        maps: bool = False,
        projection: bool = False,
    ) -> Features:
        """One pass; `keep(name, output)` of each of the `layers` beside what was asked for."""
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            shape = f"{tuple(images.shape)} {images.dtype}"
            raise BadInput(f"{self.name}: images must be (B, 3, H, W) floats, got {shape}; see backbone.transform")
        if self.loading.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        # What a compiled pass does inside cannot be seen from outside: named layers come from a plain one.
        extract = self.extract if layers else self._extract
        caught: dict[str, Any] = {}
        with catch(self.body, layers, caught, keep), self._autocast(images.device.type):
            try:
                features = extract(images, embedding=embedding, maps=maps, projection=projection)
            except (AssertionError, IndexError, RuntimeError, ValueError) as error:
                self._may_be_the_size(images, error)
                raise
        features.layers = caught
        return features

    @contextmanager
    def _for_evaluation(self) -> Iterator[None]:
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)

    def _may_be_the_size(self, images: Tensor, error: Exception) -> None:
        # A network made for one size fails anywhere in its code; that it can't take another is a fact about it.
        if isinstance(error, (BadInput, NotApplicable, torch.OutOfMemoryError)):
            return
        size, side, reason = tuple(images.shape[-2:]), self.input.size, " ".join(str(error).split())[:100]
        if size != (side, side):
            told = f"{self.name} takes images of {side} px, not {size[0]} x {size[1]}: {reason}"
            raise NotApplicable(told) from error
        if self.card.input.size is not None and self.card.source != "python":
            raise BadInput(f"{self.name} fails at its card's `input.size` of {side} px: {reason}") from error

    def _known_layers(self, names: Sequence[str]) -> Sequence[str]:
        known = set(self.layer_names) if names else ()
        for name in names:
            if name not in known:
                raise unknown("layer", name, self.layer_names, where=self.name)
        return names


def _widened(features: Features) -> Features:
    """Everything in float32, the type that all tasks take."""
    return Features(
        embedding=_wide(features.embedding),
        maps=[_wide(m) for m in features.maps],
        projection=_wide(features.projection),
        layers={name: _wide(output) for name, output in features.layers.items()},
    )


def _wide(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
