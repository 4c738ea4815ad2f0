"""A plain ViT that attends within windows (ViTDet: Li et al. 2022, arXiv 2203.16527): memory for large images.

Four blocks at equal distances attend everywhere, the others each window by itself. Where windows do not divide the
image, the last ones are moved back into it and overlap those before; a patch is taken from the last that has it.
Tokens that are no patches (class token, registers) go with every window, and are averaged over all.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...backbones import Backbone, BadInput, NotApplicable
from ...backbones.blocks import spaced

EVERYWHERE = 4  # blocks


def attend_in_windows(backbone: Backbone, window: int, size: int) -> None:
    """From now on blocks see windows of `window` x `window` patches of square images of `size` pixels.

    Raises NotApplicable unless the network is a plain ViT whose blocks take nothing but tokens.
    """
    plain = f"`window` is for plain ViTs whose blocks take nothing but tokens, which {backbone.name} is not"
    if len(backbone.levels) != 1 or not backbone.blocks:
        raise NotApplicable(plain)
    device = next(backbone.parameters()).device
    images = torch.zeros(1, 3, size, size, device=device)
    with torch.no_grad():
        grid = backbone(images, embedding=False, maps=True).maps[0].shape[-1]
    if window >= grid:
        return
    patches, owner = windows_of(grid, window)
    everywhere = spaced(backbone.blocks, EVERYWHERE)

    def split(_block: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        tokens, others = args[0] if args else None, (*args[1:], *kwargs.values())
        if not isinstance(tokens, Tensor) or tokens.ndim != 3 or tokens.shape[1] < grid**2:
            raise NotApplicable(plain)
        if any(isinstance(other, Tensor | tuple | list) for other in others):  # of every token, as rotary positions
            raise NotApplicable(plain)
        prefix = tokens.shape[1] - grid**2
        within = tokens[:, prefix:][:, patches]  # (B, windows, window², C)
        first = tokens[:, None, :prefix].expand(-1, len(patches), -1, -1)
        return (torch.cat([first, within], dim=2).flatten(0, 1), *args[1:]), kwargs

    def join(_block: Any, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (join(_block, _args, output[0]), *output[1:])
        tokens = output.unflatten(0, (-1, len(patches)))
        prefix = tokens.shape[2] - window**2
        return torch.cat([tokens[:, :, :prefix].mean(1), tokens[:, :, prefix:].flatten(1, 2)[:, owner]], dim=1)

    for name in backbone.blocks:
        if name not in everywhere:
            block = backbone.body.get_submodule(name)
            block.register_forward_pre_hook(split, with_kwargs=True)
            block.register_forward_hook(join)
    try:
        with torch.no_grad():
            backbone(images, embedding=False, maps=True)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, BadInput) as error:  # as of position biases that are made for one number of tokens
        raise NotApplicable(plain) from error


def windows_of(grid: int, window: int) -> tuple[Tensor, Tensor]:
    """Patches (n, window²) of each window of a grid, and for each patch (grid²,) its place among all of those."""
    starts = np.minimum(np.arange(0, grid, window), grid - window)
    lines = starts[:, None] + np.arange(window)
    patches = (lines[:, None, :, None] * grid + lines[None, :, None, :]).reshape(-1, window**2)
    owner = np.empty(grid**2, int)
    owner[patches.ravel()] = np.arange(patches.size)
    return torch.from_numpy(patches), torch.from_numpy(owner)
