"""Attention maps of any library's network: a softmax is caught where it is computed, and its shape tells of what it is.

Fused kernels never form a map, so inside `Softmaxes` torch computes attention as two products and a softmax. Read are
maps (B, heads, N, N) over all places of a block and the tokens before them (the plain ViTs of timm, open_clip,
torchvision and transformers), and (B · windows, heads, n, n) within square windows that tile its places (Swin). Left
out is what has other keys than queries (PVT, MViT), tokens in an order of their own (Hiera), windows that reach beyond
the image, what attends between channels (XCiT, half of DaViT), and a block that attends more than once (MaxViT,
MobileViT), as one of those may look at places that lie far apart.
"""

import re
from contextlib import ExitStack
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from .blocks import Block, first
from .errors import NotApplicable

NAMES_OF_OTHERS = re.compile("channel|covariance|xca", re.IGNORECASE)  # classes that attend between channels
SOFTMAXES = {torch.ops.aten._softmax.default, torch.ops.aten._safe_softmax.default}


@dataclass(frozen=True)
class AttentionMap:
    """Who looks where in one block: `weights` (B, windows, heads, N, N) float32; a query's row sums to one.

    Of the N tokens of a window the first `prefix` are no places (class token, registers); the others are the `grid` of
    rows and columns, row by row, `stride` pixels apart. One window is all of the image.
    """

    weights: Tensor
    prefix: int
    grid: tuple[int, int]
    stride: float


class Softmaxes(TorchDispatchMode):
    """Inside, every softmax that this thread computes is at hand, those of fused attention too; not in inference mode,
    which hides them."""

    def __init__(self):
        super().__init__()
        self._seen: list[Tensor] = []
        self._settings = ExitStack()

    def __enter__(self):
        # The encoder layers of torch have a kernel of their own, beside that of attention.
        self._settings.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        self._settings.enter_context(sdpa_kernel(SDPBackend.MATH))
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._settings.close()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if func in SOFTMAXES and output.ndim >= 3 and output.shape[-1] == output.shape[-2]:
            self._seen.append(output)
        return output

    def taken(self) -> list[Tensor]:
        """Those since the last time this was asked, each with as many queries as keys."""
        seen, self._seen = self._seen, []
        return seen


def attention_map(
    block: Block, module: nn.Module, output: Any, softmaxes: list[Tensor], images: Tensor
) -> AttentionMap | None:
    """The attention over places among the `softmaxes` of a block with this `output`; None where there is not one."""
    try:
        _, channels, height, width = block.map(output, images).shape
    except NotApplicable:  # tokens in an order of their own
        return None
    prefix = first(output).shape[1] - height * width if block.layout == "tokens" else 0
    read = [_over_places(weights, len(images), prefix, (height, width)) for weights in softmaxes]
    found = [map for map in read if map is not None]
    if len(found) != 1:
        return None
    weights, prefix, grid = found[0]
    heads, count = weights.shape[2:4]
    if channels == heads * count and any(NAMES_OF_OTHERS.search(type(part).__name__) for part in module.modules()):
        return None  # a head has as many channels as there are tokens, and it attends between channels
    return AttentionMap(weights.float(), prefix, grid, images.shape[-1] / width)


def _over_places(
    weights: Tensor, batch: int, prefix: int, grid: tuple[int, int]
) -> tuple[Tensor, int, tuple[int, int]] | None:
    """(B, windows, heads, N, N) of a softmax, how many tokens of a window are no places, and the grid of the others;
    None where it is not over places."""
    count, places = weights.shape[-1], grid[0] * grid[1]
    side = isqrt(count)
    if count == prefix + places:
        windows = 1
    elif count == side * side and not (grid[0] % side or grid[1] % side):
        windows, prefix, grid = places // count, 0, (side, side)
    else:
        return None
    # Images, windows and heads lie in this order in all libraries, the heads in a dimension of their own or not.
    together = weights.ndim == 3 or len(weights) == 1
    of_heads = weights.ndim == 4 and len(weights) == batch * windows
    if not (together or of_heads) or weights[..., 0, 0].numel() % (batch * windows):
        return None
    return weights.reshape(batch, windows, -1, count, count), prefix, grid
