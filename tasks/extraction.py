"""From images to features, batch by batch: the same bits whatever the number of threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ..backbones import Backbone
from ..backbones.errors import BadInput
from ..backbones.transform import Preprocessing
from .datasets import Split
from .datasets.pictures import encoded
from .threads import attention_in_products, compute_alone, cores, keep_freed_memory, one_thread

PIXELS = {"cpu": 2**18, "cuda": 2**24}  # of a batch: small enough for a core to keep its activations near
LARGEST = {"cpu": 64, "cuda": 256}
HALF = torch.finfo(torch.float16).max
HALVED = ("maps", "tokens")  # kept in float16, as there are many of them


@dataclass(frozen=True)
class Grid:
    """Of tokens: `size` cells each way, of so many `layers` at equal distances in depth."""

    size: int
    layers: int


def batch_size(size: int, device: str) -> int:
    """Images a batch at `size` pixels: a constant, as the last bits of a feature may depend on its batch."""
    kind = "cpu" if torch.device(device).type == "cpu" else "cuda"
    return max(1, min(LARGEST[kind], PIXELS[kind] // size**2))


def extract(
    backbone: Backbone,
    split: Split,
    what: str,
    transform: Preprocessing,
    device: str = "cpu",
    progress: Callable[[str, int, int], None] | None = None,
    *,
    grid: Grid | None = None,
    start: int = 0,
) -> Iterator[dict[str, Tensor]]:
    """Features of each batch of the split from row `start` on, in order, by name, on the CPU; maps and tokens float16.

    On the CPU each batch is decoded and computed by one thread, several batches at a time; on a GPU threads decode and
    one stream computes. `start` begins a batch. Raises BadInput naming the image whose features are not finite.
    """
    step = batch_size(transform.size, device)
    spans = (range(first, min(first + step, len(split))) for first in range(start, len(split), step))
    backbone.to(device).eval()

    def decode(span: range) -> tuple[range, Tensor]:
        return span, torch.stack([pixels_of(split.images, i, transform) for i in span])

    def compute(span: range, pixels: Tensor) -> tuple[range, dict[str, Tensor]]:
        with torch.inference_mode():
            found = features_of(backbone, transform.normalise(pixels.to(device)), what, grid)
            return span, {name: as_kept(what, finite(name, rows, span)).cpu() for name, rows in found.items()}

    def finite(name: str, rows: Tensor, span: range) -> Tensor:
        bad = ~rows.flatten(1).isfinite().all(1)
        if bad.any():
            image = span[int(bad.nonzero()[0])]
            label = split.ids[image] if len(split.ids) else f"number {image}"
            shown = "map" if what == "maps" else name
            raise BadInput(
                f"{backbone.name}: the {shown} of image {label} is not finite; "
                "its weights, or the mean and std on its card, are wrong"
            )
        return rows

    def whole(span: range) -> tuple[range, dict[str, Tensor]]:
        return compute(*decode(span))

    keep_freed_memory()
    on_cpu = torch.device(device).type == "cpu"
    precision = backbone.loading.precision
    # Each thread has settings of its own for the libraries under torch, beside the common one that is put back.
    with (
        one_thread(),
        attention_in_products(precision) if on_cpu else nullcontext(),
        ThreadPoolExecutor(cores(), "extract", compute_alone, (precision,)) as pool,
    ):
        for result in _ahead(pool, whole if on_cpu else decode, spans):
            span, features = result if on_cpu else compute(*result)
            yield features
            if progress:
                progress(f"features of {backbone.name}", span.stop, len(split))
    torch.clear_autocast_cache()


def pixels_of(images: Any, index: int, transform: Preprocessing) -> Tensor:
    """(3, size, size) uint8 of an image, from the bytes of its file where the transform's decoder takes such."""
    if getattr(transform, "decoder", "pil") == "fast":
        try:
            if (data := encoded(images, index)) is not None:
                return transform.pixels(data)
        except (OSError, ValueError, RuntimeError, SyntaxError):
            pass  # another format, or broken: decoded the plain way, which also says what is wrong
    return transform.pixels(images[index])


def features_of(backbone: Backbone, images: Tensor, what: str, grid: Grid | None = None) -> dict[str, Tensor]:
    """What one pass gives, by name; an embedding comes with its projection (together they are `vectors`)."""
    if what == "maps":
        return {f"map{i}": m for i, m in enumerate(backbone(images, embedding=False, maps=True).maps)}
    if what == "layers":
        return backbone.pooled_layers(images)
    if what == "tokens":
        assert grid is not None
        return backbone.layer_tokens(images, grid.size, grid.layers)
    features = backbone(images, projection=backbone.has_text)
    found = {"embedding": features.embedding, "projection": features.projection}
    return {name: rows for name, rows in found.items() if rows is not None}


def as_kept(what: str, rows: Tensor) -> Tensor:
    """Finite features in the type that the bank keeps: some networks have a few huge activations, which saturate."""
    return rows.float().clamp(-HALF, HALF).half() if what in HALVED else rows.float()


def _ahead(pool: ThreadPoolExecutor, function: Callable, items: Iterable) -> Iterator:
    """`map` on a pool, in order, with only a few results waiting in memory."""
    items = iter(items)
    waiting: deque[Future] = deque(pool.submit(function, item) for item in islice(items, 2 * cores()))
    try:
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(items, 1))
            yield result
    finally:
        for future in waiting:
            future.cancel()
