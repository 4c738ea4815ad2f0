"""What a stranger's module gives, understood from its shapes: where in a tensor the places of an image are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, Literal

from torch import Tensor

from .tokens import as_map

WHOLE = ""  # the name of an output that is one tensor
MOST_PREFIX_TOKENS = 16  # class token and registers, in front of the patch tokens


@dataclass(frozen=True)
class Places:
    """How a tensor holds the places of an image: (B, C, H, W), (B, H, W, C), or tokens (B, N, D) row by row.

    Tokens are of `patch` x `patch` pixels each, after `prefix` others.
    """

    layout: Literal["NCHW", "NHWC", "tokens"]
    patch: int = 0
    prefix: int = 0

    def as_map(self, tensor: Tensor, images: Tensor) -> Tensor:
        """(B, C, H, W) of a `tensor` that came out for `images`."""
        if self.layout == "tokens":
            return as_map(tensor, (images.shape[-2] // self.patch, images.shape[-1] // self.patch))
        return tensor if self.layout == "NCHW" else tensor.permute(0, 3, 1, 2).contiguous()


def by_name(output: Any) -> dict[str, Any]:
    """An output's parts: by key, by index from "0" on, or a single one as WHOLE."""
    if isinstance(output, Mapping):
        return {str(key): value for key, value in output.items()}
    if isinstance(output, (list, tuple)):
        return {str(index): value for index, value in enumerate(output)}
    return {WHOLE: output}


def places_in_map(shape: Sequence[int], wide: Sequence[int] | None = None) -> Places | None:
    """From the shape for a square image, and of one twice as `wide`; None where these leave it open."""
    _, first, middle, last = shape
    rows_last, rows_first = middle == last, first == middle
    if rows_last != rows_first:
        return Places("NCHW" if rows_last else "NHWC")
    if wide is None or wide[1] != first or (wide[2] == middle) == (wide[3] == last):
        return None  # as many channels as places each way, and what grows with the image does not tell them apart
    return Places("NCHW" if wide[2] == middle else "NHWC")


def places_in_tokens(count: int, side: int) -> Places | None:
    """From the number of tokens for an image of `side` pixels; None where they are no grid of patches."""
    for prefix in range(min(count, MOST_PREFIX_TOKENS + 1)):
        rows = isqrt(count - prefix)
        if rows**2 == count - prefix and side % rows == 0:
            return Places("tokens", side // rows, prefix)
    return None
