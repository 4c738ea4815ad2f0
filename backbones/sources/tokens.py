"""Tokens as maps and as embeddings: what the sources share."""

import torch
from torch import Tensor

from ..errors import BadInput


def as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, D, H, W) of the last H x W tokens of (B, N, D): class tokens and registers come first in every library."""
    height, width = grid
    patches = tokens[:, tokens.shape[1] - height * width :]
    return patches.transpose(1, 2).unflatten(2, (height, width)).contiguous()


def pool_tokens(tokens: Tensor, prefix: int, pool: str, where: str) -> Tensor:
    """(B, D) of tokens (B, N, D), the first `prefix` of them no patches; (B, 2 D) for cls+mean. Raises BadInput."""
    if pool.startswith("cls") and not prefix:
        raise BadInput(f"{where}: pool: {pool!r} needs a class token and this network has none; use 'mean'")
    if pool not in ("cls", "mean", "cls+mean"):
        raise BadInput(f"{where}: pool: {pool!r} is not for this network; use one of auto, cls, mean, cls+mean")
    parts = {"cls": tokens[:, 0], "mean": tokens[:, prefix:].mean(1)}
    return torch.cat([parts[part] for part in pool.split("+")], dim=1)
