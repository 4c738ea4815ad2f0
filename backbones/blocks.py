"""The blocks of a network: the modules whose outputs, one after the other in depth, are its intermediate features.

A block is found by what it is, not by its name. Everything that the embedding knows of the image passes through its
output, so neither the inside of a residual branch nor one of several parallel branches is a block; its output is a map
or tokens; it stands in a sequence and has more than one layer; and it is the innermost such module: a residual unit
rather than a stage. Where a network has no such sequence, blocks may stand anywhere (Inception), or be single layers
(AlexNet). Paths from image to embedding are read off the graph that autograd records of one pass.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from threading import Lock
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from .catching import catch
from .errors import NotApplicable
from .sources.outputs import MOST_PREFIX_TOKENS, places_in_map
from .sources.tokens import as_map, has_class_token

ONE_AT_A_TIME = Lock()  # while blocks are looked for, the weights of their network ask for no gradient


@dataclass(frozen=True)
class Block:
    """A module `name` and how its output holds an image of `side` pixels: a map, or tokens row by row.

    Tokens come after `prefix` others, the first of them the class token if `cls`; `rows` is 0 where they are no grid.
    """

    name: str
    layout: Literal["NCHW", "NHWC", "tokens"]
    side: int
    prefix: int = 0
    cls: bool = False
    rows: int = 0

    def pooled(self, output: Any) -> dict[str, Tensor]:
        """`mean` (B, C) float32 over the places, and `cls` (B, C) where there is a class token."""
        tensor = first(output).float()
        if self.layout != "tokens":
            return {"mean": tensor.mean((2, 3) if self.layout == "NCHW" else (1, 2))}
        cls = {"cls": tensor[:, 0].clone()} if self.cls else {}
        return {"mean": tensor[:, self.prefix :].mean(1)} | cls

    def map(self, output: Any, images: Tensor) -> Tensor:
        """(B, C, H, W) float32: the output for `images` as a map. Raises NotApplicable where its tokens are no grid."""
        tensor = first(output).float()
        if self.layout == "NHWC":
            tensor = tensor.permute(0, 3, 1, 2)
        elif self.layout == "tokens":
            height, width = (round(self.rows * pixels / self.side) for pixels in images.shape[-2:])
            if not self.rows or height * width != tensor.shape[1] - self.prefix:
                raise NotApplicable(f"the {tensor.shape[1]} tokens of {self.name!r} are not the image row by row")
            tensor = as_map(tensor, (height, width))
        return tensor

    def grid(self, output: Any, size: int | None, images: Tensor) -> Tensor:
        """(B, C, size, size) float32: the output as a map, averaged in size x size cells; without `size` as it is."""
        map = self.map(output, images)
        # As a copy: the next layer may be an activation that writes over what it gets.
        return map.clone() if size is None else adaptive_avg_pool2d(map, size)

    def seen(self, output: Any, images: Tensor, see: Callable[[Tensor], Tensor]) -> Any:
        """The output for `images` with `see(map)` in the place of its map (B, C, H, W); what is no place stays."""
        tensor = first(output)
        map = see(self.map(tensor, images)).to(tensor.dtype)
        if self.layout == "NHWC":
            map = map.permute(0, 2, 3, 1)
        elif self.layout == "tokens":
            map = torch.cat([tensor[:, : -map.shape[2:].numel()], map.flatten(2).mT], dim=1)
        return map if isinstance(output, Tensor) else (map, *output[1:])


def first(output: Any) -> Any:
    """The tensor that a module returns, or of several the first."""
    while isinstance(output, (Mapping, Sequence)) and len(output):
        output = next(iter(output.values())) if isinstance(output, Mapping) else output[0]
    return output


def spaced(blocks: Sequence[Any], count: int | None) -> Sequence[Any]:
    """`count` of the blocks, at equal distances, the last among them; all where there are no more, or none is asked."""
    count = min(count or len(blocks), len(blocks))
    return [blocks[round((i + 1) * len(blocks) / count) - 1] for i in range(count)]


def find_blocks(body: nn.Module, embed: Any, image: Tensor, maps: Sequence[Tensor]) -> list[Block]:
    """The blocks of `body` in the order they run, while `embed` takes images to embeddings (B, D).

    `image` (1, 3, S, S) is one of the size it is made for, and `maps` what it gives for that.
    """
    outputs, embedding = _pass(body, embed, image)
    narrow = _necks(embedding)
    modules, found = dict(body.named_modules()), {}
    cls, side = has_class_token(body), image.shape[-1]
    # Hiera (arXiv 2306.00989) keeps its tokens in the order of its windows.
    in_rows = not any(hasattr(module, "reroll") for module in modules.values())
    layouts = {name: _layout(output) for name, (output, _) in outputs.items()}
    of_class = {type(modules[name]): layout for name, layout in layouts.items() if layout != "either"}
    for name, (output, node) in outputs.items():
        # As many channels as places each way: another module of the class tells.
        layout = of_class.get(type(modules[name]), "NCHW") if layouts[name] == "either" else layouts[name]
        if node in narrow and layout:
            prefix, rows = _grid(output.shape[1], maps, side) if layout == "tokens" else (0, 0)
            found[name] = Block(name, layout, side, prefix, cls and prefix > 0, rows * in_rows)
    in_sequence = [n for n in found if isinstance(modules[n.rpartition(".")[0]], (nn.Sequential, nn.ModuleList))]
    anywhere = [name for name in found if type(modules[name]) is not nn.Sequential]
    tiers = [
        _innermost({name: modules[name] for name in among if _layers(modules[name]) >= layers})
        for among, layers in ((in_sequence, 2), (anywhere, 2), (in_sequence, 1))
    ]
    names = next((names for names in tiers if len(names) > 1), max(tiers, key=len))
    return [found[name] for name in names]


def _pass(body: nn.Module, embed: Any, image: Tensor) -> tuple[dict[str, tuple[Tensor, Any]], Tensor]:
    """One pass of two images: each module's output with its node of autograd's graph, in order, and the embedding."""
    outputs: dict[str, Any] = {}

    def keep(name: str, output: Any) -> tuple[Tensor, Any] | None:
        tensor = first(output)
        runs_once = name not in outputs
        usable = isinstance(tensor, Tensor) and tensor.ndim in (3, 4) and len(tensor) == 2
        return (tensor.detach(), tensor.grad_fn) if usable and runs_once else None

    names = [name for name, _ in body.named_modules() if name]
    with ONE_AT_A_TIME, catch(body, names, outputs, keep), torch.inference_mode(False), torch.enable_grad():
        weights = [parameter for parameter in body.parameters() if parameter.requires_grad]
        try:
            for parameter in weights:  # paths from the image are wanted, not those from the weights
                parameter.requires_grad_(False)
            embedding = embed(image.repeat(2, 1, 1, 1).requires_grad_() + 0)
        finally:
            for parameter in weights:
                parameter.requires_grad_()
    return {name: kept for name, kept in outputs.items() if kept}, embedding


def _necks(embedding: Tensor) -> set[Any]:
    """The nodes of the graph that every path from the image to the `embedding` passes through."""
    order, stack, seen = [], [(embedding.grad_fn, False)], set()
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node is not None and node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((before, False) for before, _ in node.next_functions)
    place = {node: i for i, node in enumerate(order)}  # those nearer to the image have lower places
    necks, reached = set(), len(order)
    for i, node in reversed(list(enumerate(order))):
        if reached >= i:  # no edge of a later node leads past this one
            necks.add(node)
        reached = min([reached, *(place[before] for before, _ in node.next_functions if before)])
    return necks


def _layout(tensor: Tensor) -> Any:
    if tensor.ndim == 3:
        return "tokens"
    places = places_in_map(tensor.shape)
    return places.layout if places else "either" if len(set(tensor.shape[1:])) == 1 else ""


def _grid(count: int, maps: Sequence[Tensor], side: int) -> tuple[int, int]:
    """Of `count` tokens, how many are no places, and the rows that the others make; (0, 0) where they are no grid."""
    rows = [m.shape[-1] for m in maps if 0 <= count - m.shape[-2:].numel() <= MOST_PREFIX_TOKENS]
    rows += [r for r in range(isqrt(count), 0, -1) if side % r == 0 and count - r * r <= MOST_PREFIX_TOKENS]
    return (count - rows[0] ** 2, rows[0]) if rows else (0, 0)


def _layers(module: nn.Module) -> int:
    """How many matrices or kernels a module has."""
    return sum(name.endswith("weight") and p.squeeze().ndim >= 2 for name, p in module.named_parameters())


def _innermost(modules: Mapping[str, nn.Module]) -> list[str]:
    def inside(name: str, among: Collection[str]) -> bool:
        return any(other.startswith(f"{name}.") for other in among)

    # A class of which some stand for themselves is no stage: a part of another one is then only a part.
    units = {type(m) for name, m in modules.items() if not inside(name, modules)} - {nn.Sequential}
    blocks = {name for name, m in modules.items() if type(m) in units or not inside(name, modules)}
    return [name for name in modules if name in blocks and not any(inside(other, [name]) for other in blocks)]
