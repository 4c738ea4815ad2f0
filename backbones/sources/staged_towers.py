"""transformers' networks of stages: where each kind keeps the last map of every stride.

`pool: auto` is the library's pooled output, or what its classifier sees where that is more, else the mean over places.
"""

from collections.abc import Sequence
from math import isqrt
from typing import Any

from torch import Tensor, nn

from ..card import BackboneCard, Input
from ..catching import catch
from ..errors import BadInput
from .image_towers import ImageTower
from .tokens import as_map


class StagedTower(ImageTower):
    """A network of stages: its maps are the last of each stride from 4 on, before any final norm."""

    prefix = 0  # tokens before the places in the final features

    def __init__(self, card: BackboneCard, input: Input, body: nn.Module, bgr: bool = False):
        super().__init__(card, input, body, bgr)
        if card.pool not in ("auto", "mean"):
            raise BadInput(f"{self.name}: pool: {card.pool!r}: this network pools by the mean over places; use 'mean'")

    def stages(self, output: Any) -> Sequence[Tensor]:
        """Hidden states, of which those that are (B, C, H, W) can be maps."""
        return getattr(output, "reshaped_hidden_states", None) or output.hidden_states

    def pool(self, output: Any, images: Tensor) -> Tensor:
        """(B, D) the embedding, by the card's `pool`."""
        pooled = getattr(output, "pooler_output", None)
        if self.card.pool == "auto" and pooled is not None:
            return pooled.flatten(2).mean(2) if pooled.ndim == 4 else pooled
        last = getattr(output, "last_hidden_state", None)
        last = self.stages(output)[-1] if last is None else last
        return last.mean((2, 3)) if last.ndim == 4 else last[:, self.prefix :].mean(1)

    def maps(self, output: Any, images: Tensor) -> list[Tensor]:
        """The last hidden state of each size."""
        stages = (s for s in self.stages(output) if s.ndim == 4 and s.shape[-1] <= images.shape[-1] / 3.5)
        return list({stage.shape[-1]: stage for stage in stages}.values())


class BareTower(StagedTower):
    """A network that transformers gives as a backbone only: no final features but its last map."""

    def run(self, images: Tensor, maps: bool) -> Any:
        """The library's output."""
        return self.image_tower(pixel_values=images, output_hidden_states=True)


class DepthTower(StagedTower):
    """The encoder of a depth network (MiDaS 3.1, arXiv 2307.14460; Depth Anything): the maps that its decoder takes."""

    def __init__(self, card: BackboneCard, input: Input, body: nn.Module, bgr: bool = False):
        super().__init__(card, input, body, bgr)
        self.body.config.reshape_hidden_states = True  # some decoders put the tokens of a ViT in place themselves

    def stages(self, output: Any) -> Sequence[Tensor]:
        """The maps."""
        return output.feature_maps


class WithPooledPrefix(StagedTower):
    """DINOv3's ConvNeXt (arXiv 2508.10104): its final features begin with their mean."""

    prefix = 1


class ClassifiedTower(StagedTower):
    """A network whose final norm transformers keeps in its classifier; loaded with no labels, that gives features."""

    def pool(self, output: Any, images: Tensor) -> Tensor:
        """(B, D) what the classifier would see."""
        return output.logits


class WindowTower(StagedTower):
    """Swin (arXiv 2103.14030) and its like; their hidden states are halved, so the blocks' outputs are caught."""

    def run(self, images: Tensor, maps: bool) -> Any:
        """The library's output, its stages replaced."""
        caught: dict[str, Any] = {}
        ends = self._ends() if maps else []
        with catch(self.body, ends, caught):
            output = super().run(images, maps)
        if maps:
            halved = output.reshaped_hidden_states  # each has the size at which the next stage works
            tokens = [caught[name][0] if isinstance(caught[name], tuple) else caught[name] for name in ends]
            pairs = zip(tokens, halved[: len(ends)], strict=True)
            output.reshaped_hidden_states = tuple(as_map(t, (now.shape[-2], now.shape[-1])) for t, now in pairs)
        return output

    def _ends(self) -> list[str]:
        inside = {"layers": "blocks", "stages": "layers"}
        stages, blocks = next((s, b) for s, b in inside.items() if hasattr(self.body.encoder, s))
        depths = self.body.config.depths
        return [f"encoder.{stages}.{index}.{blocks}.{depth - 1}" for index, depth in enumerate(depths)]


class TokenStages(StagedTower):
    """Stages of tokens in rows, of square images of one size."""

    fixed_size = True

    def stages(self, output: Any) -> Sequence[Tensor]:
        """The tokens as maps, a class token left out."""
        return [as_map(tokens, (isqrt(tokens.shape[1]), isqrt(tokens.shape[1]))) for tokens in output.hidden_states]


class PvtTower(TokenStages):
    """PVT (arXiv 2102.12122): a class token joins at the last stage, and is what was trained."""

    prefix = 1

    def pool(self, output: Any, images: Tensor) -> Tensor:
        """(B, D) the class token, or the mean over places."""
        return output.last_hidden_state[:, 0] if self.card.pool == "auto" else super().pool(output, images)


class HieraTower(StagedTower):
    """Hiera (arXiv 2306.00989), channels last; transformers undoes its order of tokens for one size of image."""

    def maps(self, output: Any, images: Tensor) -> list[Tensor]:
        """The stages."""
        self.own_size_only(images)
        return super().maps(output, images)

    def stages(self, output: Any) -> Sequence[Tensor]:
        """The stages, channels first."""
        return [stage.permute(0, 3, 1, 2).contiguous() for stage in output.reshaped_hidden_states]


class SamTower(StagedTower):
    """SAM's encoder (arXiv 2304.02643): one map, after its neck."""

    fixed_size = True

    def stages(self, output: Any) -> Sequence[Tensor]:
        """The neck's output."""
        return [output.last_hidden_state]


class Sam2Tower(StagedTower):
    """SAM 2's trunk (arXiv 2408.00714): a Hiera with channels last."""

    def stages(self, output: Any) -> Sequence[Tensor]:
        """The stages, channels first."""
        return [stage.permute(0, 3, 1, 2).contiguous() for stage in output.intermediate_hidden_states]

    def pool(self, output: Any, images: Tensor) -> Tensor:
        """(B, D) the mean over places."""
        return self.stages(output)[-1].mean((2, 3))
