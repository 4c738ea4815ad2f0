"""One cell from end to end: backbone → features → predictions → scores → a stored result."""

import os
import platform
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ..backbones import Backbone, BackboneCard, Loading, load_backbone
from ..backbones.card import file_digest
from ..leaderboard import Result
from ..tasks import Bank, Context, Dataset, estimate, find_task, read_predictions, write_predictions
from ..tasks.threads import one_thread
from ..tasks.training import processes
from ..tasks.training.checkpoint import forget_checkpoints
from .home import run_folder, store_of
from .origin import open_dataset, remember_origin
from .plan import Cell

LIBRARIES = ("torch", "torchvision", "timm", "open_clip_torch", "transformers", "numpy", "pillow", "scikit-learn")


@dataclass(frozen=True)
class Job:
    """What every cell of a run shares: where state lives, which device computes, how many bytes the bank may take, and
    the database that keeps the results where it is not the home's own."""

    home: Path
    device: str = "cpu"
    cache_size: int | None = None
    database: str | None = field(default=None, repr=False)  # may hold a password


def run_cell(cell: Cell, job: Job, progress: Callable[[str, int, int], None]) -> Result:
    """Run a cell and store its result. Raises whatever stopped it; nothing half-done is ever stored."""
    result = compute(cell, job, run_folder(job.home, cell.id), progress)
    store_of(job.home, job.database).add(result)
    forget_checkpoints(run_folder(job.home, cell.id))
    return result


def compute(cell: Cell, job: Job, folder: Path, progress: Callable[[str, int, int], None]) -> Result:
    """Run a cell: predictions and result go to `folder`, nothing to the store."""
    started = time.perf_counter()
    progress("loading", 0, 1)
    task = find_task(cell.task)
    data = dataset_of(cell)
    backbone = load_cell_backbone(cell, job.device)
    task.check_data(data)
    task.check_backbone(backbone)
    weights, macs = backbone.weights_digest, backbone.macs  # before a task may train them
    bank = Bank(job.home / "features", job.cache_size)
    context = Context(bank, folder, device=job.device, seed=cell.seed, progress=progress, other=cell.other)
    folder.mkdir(parents=True, exist_ok=True)
    if job.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(job.device)
    # On the CPU one thread computes, so that a score does not depend on how many cores there are: the cores are used by
    # running several cells, and several batches of the bank, at once.
    with one_thread() if job.device == "cpu" else nullcontext():
        outcome = task.run(backbone, data, task.recipe(cell.settings), context)
        seconds = time.perf_counter() - started
        path = folder / "predictions.parquet"
        write_predictions(outcome.predictions, path)
        progress("scoring", 0, 1)
        # Scored from the file, not from memory: whoever rescores it later starts from the same bytes.
        predictions = read_predictions(path)
        estimates = estimate(task.measure(predictions, data), seed=0)
    result = Result.of(
        cell_id=cell.id,
        backbone={
            "name": cell.card.name,
            "card": backbone.card.public(),  # with what its library says of it
            "card_digest": cell.card.digest(),
            "weights_digest": weights,
            "parameters": backbone.parameters_count,
            "macs": macs,
            "embed_dim": backbone.embed_dim,
            "transform": backbone.transform.identity,
            "loading": backbone.loading.identity,
        },
        task={"name": task.name, "family": task.family, "version": task.version, "headline": task.headline},
        dataset={
            "name": cell.dataset.name,
            "kind": task.needs.data,
            "fingerprints": cell.fingerprints,
            "sizes": {name: len(data[name]) for name in task.splits(data)},
            "limit": cell.limit,
        },
        recipe=cell.recipe,
        seed=cell.seed,
        chosen=outcome.chosen,
        scores={
            name: asdict(found)
            | {
                "unit": metric.unit,
                "range_low": metric.low,
                "range_high": metric.high,
                "higher_is_better": metric.higher_is_better,
            }
            for name, found in estimates.items()  # a score that the data leaves undefined is absent, not made up
            for metric in [task.metric(name)]
        },
        cost={
            "seconds": round(seconds, 3),
            "images": context.images,
            "peak_memory_mb": round(peak_memory(job.device) / 2**20, 1),
            "device": device_name(job.device),
        },
        environment=environment(),
        code_version=version("backbench"),
        predictions={
            "path": str(path.relative_to(job.home)) if path.is_relative_to(job.home) else path.name,
            "sha256": file_digest(path),
            "rows": len(next(iter(predictions.values()), ())),
        },
    )
    remember_origin(cell, folder)
    part = folder / f"result.{os.getpid()}.part"
    part.write_text(result.to_json(), encoding="utf-8")
    part.replace(folder / "result.json")
    return result


def dataset_of(cell: Cell) -> Dataset:
    """The cell's data set, opened once in this process."""
    return open_dataset(cell.dataset, find_task(cell.task).needs.data, cell.limit)


def load_cell_backbone(cell: Cell, device: str) -> Backbone:
    """The cell's backbone on a device; the last one loaded is kept."""
    if isinstance(cell.backbone, Backbone):
        return cell.backbone.to(device).eval()
    return _loaded(cell.backbone.model_dump_json(), str(cell.backbone.folder), device, cell.loading)


@lru_cache(maxsize=1)  # a worker runs one backbone's cells after another; two large ones need not fit
def _loaded(card: str, folder: str, device: str, loading: Loading) -> Backbone:
    found = BackboneCard.model_validate_json(card).model_copy(update={"folder": Path(folder)})
    return load_backbone(found, device, **asdict(loading))


def peak_memory(device: str) -> int:
    """Bytes: on a GPU this cell's peak, on the CPU the highest resident size of this process so far."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_name(device: str) -> str:
    """`cpu` with the processor's name, or the GPU's name, and how many compute together: times of different devices are
    not compared."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else f"cpu ({_processor()})"
    return name + (f" x {processes.count()}" if processes.count() > 1 else "")


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@cache
def environment() -> dict[str, str]:
    """Versions that a score may depend on; names of people, machines and paths stay out."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
