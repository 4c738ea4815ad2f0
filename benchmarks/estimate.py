"""Time, disk and memory of cells before they run, from a 16-image probe of each backbone and each head."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..backbones import Backbone, NotApplicable
from ..tasks import Task, find_task
from ..tasks.entry import Entry, Index
from ..tasks.extraction import Grid, as_kept, features_of
from .cell import Job, compute, dataset_of, load_cell_backbone, peak_memory
from .plan import Cell

IMAGES = 16  # of the probe
MORE = 4 * IMAGES  # a second point, so that what does not grow with the data is not scaled up with it


@dataclass(frozen=True)
class Asked:
    """Features that a task takes of an image: which kind, in what grid, at how many pixels (None: the backbone's)."""

    what: str
    grid: Grid | None
    size: int | None

    @classmethod
    def of(cls, index: Index) -> "Asked":
        """What an entry of the bank was made for."""
        transform = index.made_of["transform"]
        size = transform["size"] if transform.get("kind") == "letterbox" else None
        grid = index.made_of["grid"]
        return cls(index.made_of["what"], Grid(**grid) if grid else None, size)


@dataclass(frozen=True)
class Head:
    """What a task does beside the network: seconds at no images and per image; and the features that it asks for."""

    fixed: float
    growing: float
    asked: frozenset[Asked]


def estimate_cells(cells: Sequence[Cell], home: Path, device: str) -> list[dict[str, Any]]:
    """A row a cell: seconds, images to push through the network, disk_mb, memory_mb. Heads are timed on one backbone.

    Splits that several cells share are counted once, as the bank will hold them.
    """
    heads: dict[str, Head] = {}
    banked: set[tuple] = set()
    probed: dict[tuple, tuple[float, int]] = {}

    def probe(name: str, backbone: Backbone, asked: Asked) -> tuple[float, int]:
        if (name, asked) not in probed:
            probed[name, asked] = _image(backbone, asked, device)
        return probed[name, asked]

    rows = []
    for cell in cells:
        task, data = find_task(cell.task), dataset_of(cell)
        backbone = load_cell_backbone(cell, device)
        try:
            task.check_backbone(backbone)
        except NotApplicable:
            continue
        per_image = partial(probe, cell.card.name, backbone)
        if cell.column not in heads:
            heads[cell.column] = _head(cell, home, device, per_image)
        head = heads[cell.column]
        sizes = {name: len(data[name]) for name in task.splits(data)}
        seconds, images, disk = head.fixed + head.growing * _counted(task, sizes), 0, 0
        for asked in sorted(head.asked, key=str):
            second, size = per_image(asked)
            for name, count in sizes.items():
                if (part := (cell.card.name, asked, cell.fingerprints[name])) not in banked:
                    banked.add(part)
                    images += count
                    seconds += count * second
                    disk += count * size
        rows.append(
            {
                "backbone": cell.card.name,
                "task": cell.task,
                "dataset": cell.dataset.name,
                "seconds": round(seconds, 1),
                "images": images,
                "disk_mb": round(disk / 2**20, 1),
                "memory_mb": round(peak_memory(device) / 2**20),
            }
        )
    return rows


def _image(backbone: Backbone, asked: Asked, device: str) -> tuple[float, int]:
    """Seconds and bytes of one image through the network, from the probe."""
    side = asked.size or backbone.input.size
    images = torch.zeros(IMAGES, 3, side, side, device=device)
    with torch.inference_mode():
        features_of(backbone, images, asked.what, asked.grid)
        started = time.perf_counter()
        found = features_of(backbone, images, asked.what, asked.grid)
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        seconds = (time.perf_counter() - started) / IMAGES
        kept = [as_kept(asked.what, rows)[0] for rows in found.values()]
    return seconds, sum(row.numel() * row.element_size() for row in kept)


def _head(cell: Cell, home: Path, device: str, per_image: Callable[[Asked], tuple[float, int]]) -> Head:
    """What a cell does beside the network, from the whole cell at two small sizes."""
    points, asked = [], set()
    for limit in (IMAGES, MORE):
        small = replace(cell, limit=limit)
        with tempfile.TemporaryDirectory(dir=home, prefix="probe-") as scratch:
            job = Job(Path(scratch), device)
            started = time.perf_counter()
            compute(small, job, Path(scratch) / "cell", lambda *_: None)
            seconds = time.perf_counter() - started
            for entry in Entry.all(Path(scratch) / "features"):
                if index := Index.read(entry.place):
                    asked.add(Asked.of(index))
                    seconds -= index.rows * per_image(Asked.of(index))[0]
        data = dataset_of(small)
        task = find_task(cell.task)
        points.append((_counted(task, {name: len(data[name]) for name in task.splits(data)}), seconds))
    (n, t), (m, u) = points
    growing = max(0.0, (u - t) / (m - n)) if m > n else 0.0
    return Head(max(0.0, t - growing * n), growing, frozenset(asked))


def _counted(task: Task, sizes: Mapping[str, int]) -> int:
    """Images that a task's time grows with: those of all its splits or, where it trains, those that it learns from."""
    return sizes["train"] if task.trains else sum(sizes.values())
