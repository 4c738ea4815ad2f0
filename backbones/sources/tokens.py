"""Tokens as maps and as embeddings: what the sources share."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..errors import BadInput


def as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, D, H, W) of the last H x W tokens of (B, N, D): class tokens and registers come first in every library."""
    height, width = grid
    patches = tokens[:, tokens.shape[1] - height * width :]
    return patches.transpose(1, 2).unflatten(2, (height, width)).contiguous()


def has_class_token(network: nn.Module) -> bool:
    """Whether a network learned a class token, by the names that libraries give to it."""
    known = ("cls_token", "class_token", "class_embedding")
    return any(part.startswith(known) for name, _ in network.named_parameters() for part in name.split("."))


def pad_to(images: Tensor, patch: int) -> Tensor:
    """`images` (B, C, H, W) filled up right and below with zeros to whole patches; themselves where they are whole."""
    height, width = images.shape[-2:]
    missing = (0, -width % patch, 0, -height % patch)
    return pad(images, missing) if any(missing) else images


def pool_tokens(
    tokens: Tensor, prefix: int, pool: str, where: str, cls: bool = True, also: tuple[str, ...] = ()
) -> Tensor:
    """(B, D) of tokens (B, N, D), the first `prefix` of them no patches; (B, 2 D) for cls+mean. Raises BadInput.

    The first one is the class token, unless `cls` is False: then all of the prefix are registers. `also` names the
    pools that the network does itself, for somebody who asked for one that it lacks.
    """
    pools = ["cls", "mean", "cls+mean"] if prefix and cls else ["mean"]
    if pool not in pools:
        lacks = "an attention pooling layer" if pool == "map" else "a class token"
        choice = ", ".join(["auto", *pools, *also])
        raise BadInput(f"{where}: pool: {pool!r} needs {lacks} and this network has none; use one of {choice}")
    parts = {"cls": tokens[:, 0], "mean": tokens[:, prefix:].mean(1)}
    return torch.cat([parts[part] for part in pool.split("+")], dim=1)
