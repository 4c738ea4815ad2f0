"""Time, disk and memory of cells before they run, from a 16-image probe of each backbone and each head."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..backbones import NotApplicable
from ..tasks import find_task
from .cell import Job, compute, dataset_of, load_cell_backbone, peak_memory
from .plan import Cell

IMAGES = 16  # of the probe
MORE = 4 * IMAGES  # a second point, so that what does not grow with the data is not scaled up with it


def estimate_cells(cells: Sequence[Cell], home: Path, device: str) -> list[dict[str, Any]]:
    """A row a cell: seconds, images to push through the network, disk_mb, memory_mb. Heads are timed on one backbone.

    Splits that several cells share are counted once, as the bank will hold them.
    """
    heads: dict[str, tuple[float, float]] = {}
    banked: set[tuple] = set()
    rows = []
    for cell in cells:
        task, data = find_task(cell.task), dataset_of(cell)
        backbone = load_cell_backbone(cell, device)
        try:
            task.check_backbone(backbone)
        except NotApplicable:
            continue
        if cell.column not in heads:
            heads[cell.column] = _head(cell, home, device)
        fixed, growing = heads[cell.column]
        sizes = {name: len(data[name]) for name in task.splits(data)}
        what = "maps" if task.needs.maps else "embedding"
        fresh = {n: s for n, s in sizes.items() if (cell.card.name, what, cell.fingerprints[n]) not in banked}
        banked |= {(cell.card.name, what, cell.fingerprints[n]) for n in sizes}
        images = sum(fresh.values())
        second, size = _image(backbone, task.needs.maps, device)
        rows.append(
            {
                "backbone": cell.card.name,
                "task": cell.task,
                "dataset": cell.dataset.name,
                "seconds": round(fixed + growing * sum(sizes.values()) + images * second, 1),
                "images": images,
                "disk_mb": round(images * size / 2**20, 1),
                "memory_mb": round(peak_memory(device) / 2**20),
            }
        )
    return rows


def _image(backbone: Any, maps: bool, device: str) -> tuple[float, int]:
    """Seconds and bytes of one image through the network, from the probe."""
    side = backbone.input.size
    images = torch.zeros(IMAGES, 3, side, side, device=device)
    with torch.inference_mode():
        backbone(images, maps=maps)
        started = time.perf_counter()
        features = backbone(images, maps=maps)
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        seconds = (time.perf_counter() - started) / IMAGES
    if not maps:
        return seconds, features.embedding.shape[1] * 4
    return seconds, sum(m[0].numel() * 2 for m in features.maps)


def _head(cell: Cell, home: Path, device: str) -> tuple[float, float]:
    """Seconds that a cell takes at no images and per image, from the whole cell at two small sizes."""
    points = []
    for limit in (IMAGES, MORE):
        small = replace(cell, limit=limit)
        with tempfile.TemporaryDirectory(dir=home, prefix="probe-") as scratch:
            job = Job(Path(scratch), device)
            started = time.perf_counter()
            compute(small, job, Path(scratch) / "cell", lambda *_: None)
            seconds = time.perf_counter() - started
        data = dataset_of(small)
        points.append((sum(len(data[name]) for name in find_task(cell.task).splits(data)), seconds))
    (n, t), (m, u) = points
    growing = max(0.0, (u - t) / (m - n)) if m > n else 0.0
    return max(0.0, t - growing * n), growing
