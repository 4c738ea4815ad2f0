"""From images to features, batch by batch: the same bits whatever the number of threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import torch
from torch import Tensor

from ..backbones import Backbone, Letterbox, Transform
from ..backbones.errors import BadInput
from .datasets import Split
from .threads import cores, one_thread

PIXELS = {"cpu": 2**18, "cuda": 2**24}  # of a batch: small enough for a core to keep its activations near
LARGEST = {"cpu": 64, "cuda": 256}
HALF = torch.finfo(torch.float16).max


def batch_size(size: int, device: str) -> int:
    """Images a batch at `size` pixels: a constant, as the last bits of a feature may depend on its batch."""
    kind = "cpu" if torch.device(device).type == "cpu" else "cuda"
    return max(1, min(LARGEST[kind], PIXELS[kind] // size**2))


def extract(
    backbone: Backbone,
    split: Split,
    what: str,
    transform: Transform | Letterbox,
    device: str = "cpu",
    progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Features of each batch of the split in order, by name, on the CPU: maps in float16, all else in float32.

    On the CPU each batch is decoded and computed by one thread, several batches at a time; on a GPU threads decode and
    one stream computes. Raises BadInput naming the image whose features are not finite.
    """
    step = batch_size(transform.size, device)
    spans = [range(start, min(start + step, len(split))) for start in range(0, len(split), step)]
    backbone.to(device).eval()

    def decode(span: range) -> tuple[range, Tensor]:
        return span, torch.stack([transform.pixels(split.images[i]) for i in span])

    def compute(span: range, pixels: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            images = transform.normalise(pixels.to(device))
            if what == "maps":
                maps = backbone(images, embedding=False, maps=True).maps
                found = {f"map{i}": m for i, m in enumerate(maps)}
            else:
                features = backbone(images, projection=backbone.has_text)
                found = {"embedding": features.embedding, "projection": features.projection}
            return {name: _kept(name, rows, span) for name, rows in found.items() if rows is not None}

    def _kept(name: str, rows: Tensor, span: range) -> Tensor:
        bad = ~rows.flatten(1).isfinite().all(1)
        if bad.any():
            image = span[int(bad.nonzero()[0])]
            label = split.ids[image] if len(split.ids) else f"number {image}"
            raise BadInput(
                f"{backbone.name}: the {name.rstrip('0123456789')} of image {label} is not finite; "
                "its weights, or the mean and std on its card, are wrong"
            )
        # Some networks have a few huge activations: they saturate.
        return (rows.float().clamp(-HALF, HALF).half() if what == "maps" else rows.float()).cpu()

    def whole(span: range) -> dict[str, Tensor]:
        return compute(*decode(span))

    on_cpu = torch.device(device).type == "cpu"
    done = 0
    # Each thread has a setting of its own for the libraries under torch, beside the common one that it puts back.
    with one_thread(), ThreadPoolExecutor(cores(), "extract", torch.set_num_threads, (1,)) as pool:
        for span, result in zip(spans, _ahead(pool, whole if on_cpu else decode, spans), strict=True):
            yield result if on_cpu else compute(*result)
            done += len(span)
            if progress:
                progress(f"features of {backbone.name}", done, len(split))


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
