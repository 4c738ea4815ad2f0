"""What a task is given to work with: features from the bank, a seed, a folder, a voice."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..backbones import Backbone, BackboneCard
from ..backbones.transform import Letterbox, Preprocessing
from .bank import Bank
from .datasets import Split
from .extraction import Grid


def silent(_what: str, _done: int, _total: int) -> None:
    """Progress that nobody watches."""


@dataclass
class Context:
    """One cell's surroundings. `progress(what, done, total)` shows where the cell stands."""

    bank: Bank
    folder: Path
    device: str = "cpu"
    seed: int = 0
    progress: Callable[[str, int, int], None] = silent
    other: Backbone | BackboneCard | None = None  # the backbone that a recipe's `other` names, where it is at hand
    images: int = field(default=0, init=False)  # pushed through the network by this cell, for its cost

    def embeddings(self, backbone: Backbone, split: Split, transform: Preprocessing | None = None) -> Tensor:
        """(n, D) float32 embeddings of a split on the CPU; `transform` takes the place of the backbone's own."""
        return self._features(backbone, split, "embedding", transform)["embedding"]

    def projections(self, backbone: Backbone, split: Split) -> Tensor:
        """(n, T) float32 embeddings in the text tower's space."""
        return self._features(backbone, split, "projection")["projection"]

    def maps(self, backbone: Backbone, split: Split, size: int) -> list[Tensor]:
        """Feature maps [(n, C, H, W) float16, …] of letterboxed images of `size` pixels, memory-mapped."""
        letterbox = Letterbox.of(backbone.input, size, backbone.loading.decoder)
        found = self._features(backbone, split, "maps", letterbox)
        return [found[f"map{i}"] for i in range(len(backbone.levels))]

    def layers(self, backbone: Backbone, split: Split) -> dict[str, Tensor]:
        """{"block.mean": (n, C), "block.cls": (n, C), …} float32, memory-mapped: pooled outputs of blocks, by depth."""
        return self._features(backbone, split, "layers")

    def tokens(self, backbone: Backbone, split: Split, grid: int, layers: int) -> dict[str, Tensor]:
        """{"block": (n, C, grid, grid), …} float16, memory-mapped: outputs averaged in a grid, of so many blocks at
        equal distances, by depth."""
        return self._features(backbone, split, "tokens", grid=Grid(grid, layers))

    def generator(self) -> torch.Generator:
        """A fresh random generator at this cell's seed."""
        return torch.Generator().manual_seed(self.seed)

    def _features(
        self,
        backbone: Backbone,
        split: Split,
        what: str,
        transform: Preprocessing | None = None,
        grid: Grid | None = None,
    ) -> dict[str, Tensor]:
        found = self.bank.features(
            backbone, split, what, transform=transform, grid=grid, device=self.device, progress=self.progress
        )
        self.images += found.computed
        return found.tensors
