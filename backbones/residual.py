"""Residual connections of any library's network: sums of two tensors, told apart by the graph that autograd records.

Of the two sides of a sum, the skip is the one with fewer layers of its own: none where it is the identity, one where it
is a projection (the first unit of a ResNet's stage). The other is the branch. What has no such two sides is no residual
connection, nor is a sum of other tensors than a block gives (rotary embeddings, attention's biases).
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .blocks import Block, first

ADDITIONS = {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__}
LAYERS = ("Convolution", "MmBackward", "AddmmBackward", "LinearBackward")  # nodes of autograd's graph, with weights
ATTENTION = ("Softmax", "ScaledDotProduct", "MultiHeadAttention")


@dataclass(frozen=True)
class Residual:
    """Both sides of one residual connection, (B, N, C) float32: `skip` is passed on, `branch` is what was computed.

    Of the N places the first `prefix` are none, the first of them the class token if `cls`. `kind`: what the branch
    does; without attention or convolution it is an mlp.
    """

    kind: Literal["attention", "convolution", "mlp"]
    skip: Tensor
    branch: Tensor
    prefix: int
    cls: bool


class Sums(TorchFunctionMode):
    """Inside, every sum of a skip and a branch is at hand; where gradients are recorded, of images that ask for one."""

    def __init__(self):
        super().__init__()
        self._seen: list[tuple[Any, Tensor, Tensor]] = []
        # The graph is read and never gone back through: what it would keep for that may go.
        self._bare = torch.autograd.graph.saved_tensors_hooks(lambda _: None, lambda nothing: nothing)

    def __enter__(self):
        self._bare.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._bare.__exit__(*error)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in ADDITIONS and len(args) == 2:
            a, b = args
            if isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and a.ndim in (3, 4):
                self._see(a, b)
        return func(*args, **(kwargs or {}))

    def _see(self, a: Tensor, b: Tensor) -> None:
        behind_a, behind_b = _behind(a), _behind(b)
        if behind_a.isdisjoint(behind_b):  # a weight, such as the embedding of positions
            return
        own = [(_layers(behind_a - behind_b), a, behind_a), (_layers(behind_b - behind_a), b, behind_b)]
        (few, skip, before), (many, branch, behind) = sorted(own, key=lambda side: side[0])
        if few <= 1 and few < many:
            # As copies: the sum may be written over one of them.
            self._seen.append((_kind(behind - before), skip.detach().clone(), branch.detach().clone()))

    def taken(self) -> list[tuple[Any, Tensor, Tensor]]:
        """(kind, skip, branch) of those since the last time this was asked."""
        seen, self._seen = self._seen, []
        return seen


def residuals_of(block: Block, output: Any, sums: list[tuple[Any, Tensor, Tensor]]) -> list[Residual]:
    """The residual connections of a block with this `output`, among the sums that were taken in it."""
    tensor = first(output)
    axes = (2, 3) if block.layout == "NCHW" else (1, 2)
    as_tokens = tensor if block.layout == "tokens" else tensor.movedim(axes, (1, 2)).flatten(1, 2)
    found = []
    for kind, skip, branch in sums:
        if skip.ndim == 4 and skip.shape == tensor.shape:
            skip, branch = (side.movedim(axes, (1, 2)).flatten(1, 2) for side in (skip, branch))
        if skip.shape == as_tokens.shape:
            found.append(Residual(kind, skip.float(), branch.float(), block.prefix, block.cls))
    return found


def _behind(tensor: Tensor) -> set[Any]:
    """The nodes of the graph that a tensor was computed by."""
    stack, seen = [tensor.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack.extend(before for before, _ in node.next_functions)
    return seen


def _layers(nodes: set[Any]) -> int:
    return sum(node.name().startswith(LAYERS) for node in nodes)


def _kind(nodes: set[Any]) -> Literal["attention", "convolution", "mlp"]:
    names = {node.name() for node in nodes}
    if any(part in name for name in names for part in ATTENTION):
        return "attention"
    return "convolution" if any(name.startswith("Convolution") for name in names) else "mlp"
