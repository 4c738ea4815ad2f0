"""The feature bank: no features are ever computed twice; frozen tasks read memory-mapped files.

An entry is a folder `<key[:2]>/<key>` with one safetensors file a tensor and an index, which holds what the key was
made of and the sha256 of each shard of rows. It grows beside its place, a durable shard at a time, and is moved there
once whole; whoever finds it unfinished goes on at the last durable shard.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..backbones import Backbone
from ..backbones.errors import BadInput, NotApplicable
from ..backbones.reading import digest
from ..backbones.transform import Preprocessing
from .datasets import Split
from .entry import PART, Entry, Index, prune, sync_folder
from .extraction import Grid, batch_size, extract
from .fast import check_fast
from .shard import TensorFile

FORMAT = 2  # of the entry on disk and of how its numbers come to be; a new one leaves all old entries behind
SHARD = 32  # batches: what a kill may cost
LIBRARIES = {  # besides torch and pillow, what can change a feature of a source
    "timm": ("timm",),
    "mini": ("timm",),
    "open_clip": ("open_clip_torch", "timm"),
    "transformers": ("transformers",),
    "torchvision": ("torchvision",),
    "diffusers": ("diffusers", "transformers"),
    "python": ("torchvision", "timm", "transformers"),
}


@dataclass(frozen=True)
class Found:
    """Features by name, memory-mapped, rows in the split's order; `computed`: images that went through the network."""

    tensors: dict[str, Tensor]
    computed: int


class Bank:
    """Features on disk under `folder`, shared by any number of processes.

    `limit`: bytes; after each write what was least recently used goes until the rest fits, but nothing that is in use.
    """

    def __init__(self, folder: Path, limit: int | None = None):
        self.folder, self.limit = Path(folder), limit
        # Entries of which this process has checked every byte, each with the file that marks it as in use.
        self._open: dict[str, tuple[dict[str, Tensor], IO[bytes]]] = {}

    def features(
        self,
        backbone: Backbone,
        split: Split,
        what: str,
        *,
        transform: Preprocessing | None = None,
        grid: Grid | None = None,
        device: str = "cpu",
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Found:
        """Features of a split, by name: {"embedding": (n, D) f32}, {"projection": (n, T) f32}, {"map0": (n, C, H, W)
        f16, …}, the pooled "layers" {"block.mean": (n, C) f32, …} or "tokens" {"block": (n, C, grid, grid) f16, …}.

        Raises NotApplicable when the backbone has no such features, BadInput when they are not finite, or when it was
        loaded with the fast decoder and its features are then not near enough to the plain ones.
        """
        if what == "projection" and not backbone.has_text:
            raise NotApplicable(f"{backbone.name} has no text tower")
        if what == "maps" and not backbone.levels:
            raise NotApplicable(f"{backbone.name} has no feature maps")
        if len(split) == 0:
            raise BadInput(f"{backbone.name}: there is no image to take features of: the split is empty")
        own = backbone.transform
        transform = transform or own
        made_of = ingredients(backbone, split, what, transform, device, grid)
        entry, computed = self._entry(digest(made_of)), 0
        if (tensors := self._read(entry)) is None:
            entry.place.parent.mkdir(parents=True, exist_ok=True)
            with entry.lock:
                if (tensors := self._read(entry)) is None:  # nobody else has made it while we waited
                    if own.decoder == "fast":
                        alike = ingredients(backbone, split, "embedding", own, device)
                        computed += check_fast(self.folder / "fast", alike, backbone, split, own, device, progress)
                    shutil.rmtree(entry.place, ignore_errors=True)
                    step = SHARD * batch_size(transform.size, device)
                    about = {"backbone": backbone.name, "split": split.name, "what": what}

                    def batches(start: int):
                        return extract(backbone, split, what, transform, device, progress, grid=grid, start=start)

                    computed += _make(entry, Index(made_of, about, len(split), step), batches)
                    tensors = self._read(entry)
                if tensors is None:
                    place = entry.place
                    raise OSError(f"{place}: features read back differ from those written; is the disk sound or full?")
            if self.limit is not None:
                prune(self.folder, to=self.limit)
        if what in ("embedding", "projection"):
            tensors = {what: tensors[what]}
        return Found(tensors, computed)

    def _entry(self, key: str) -> Entry:
        return Entry(self.folder / key[:2] / key)

    def _read(self, entry: Entry) -> dict[str, Tensor] | None:
        """The tensors of an entry, or None when it is not there or not every byte is as it was written."""
        if entry.key not in self._open:
            try:
                held = entry.hold()
                index = Index.read(entry.place)
                if index is None or digest(index.made_of) != entry.key or not index.whole(entry.place):
                    held.close()
                    return None
                tensors = {name: _mapped(entry.place / f"{name}.safetensors", name) for name in index.files}
                self._open[entry.key] = tensors, held
            except (OSError, SafetensorError):
                return None
        return self._open[entry.key][0]


def _make(entry: Entry, index: Index, batches: Callable[[int], Any]) -> int:
    """Writes what is missing of an entry and moves it into its place; how many rows that were. Holds the lock."""
    part = entry.place.with_name(f"{entry.place.name}{PART}")
    before = Index.read(part)
    sound = 0
    if before and (digest(before.made_of), before.rows, before.step) == (entry.key, index.rows, index.step):
        index.files, sound = before.files, before.sound(part)
    for file in index.files.values():
        del file.sha256[sound:]
    if not sound:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        index.files = {}
    start = done = min(sound * index.step, index.rows)
    files: dict[str, TensorFile] = {}
    try:
        for batch in batches(start) if start < index.rows else ():
            for name, rows in batch.items():
                if name not in files:
                    path = part / f"{name}.safetensors"
                    files[name] = TensorFile(path, name, rows, index.rows, index.files.get(name), start)
                files[name].append(rows)
            done = min(done + len(rows), index.rows)
            if done % index.step == 0 or done == index.rows:
                for file in files.values():
                    file.end_shard()
                index.files = {name: file.file for name, file in files.items()}
                index.write(part)
    except BadInput:  # the same again next time: nothing to go on from
        shutil.rmtree(part, ignore_errors=True)
        raise
    finally:
        for file in files.values():
            file.close()
    os.replace(part, entry.place)
    sync_folder(entry.place.parent)
    return done - start


def ingredients(
    backbone: Backbone,
    split: Split,
    what: str,
    transform: Preprocessing,
    device: str,
    grid: Grid | None = None,
) -> dict[str, Any]:
    """Everything that decides the bits of a feature, as JSON: its digest is the key of the entry."""
    return {
        "format": FORMAT,
        "weights": backbone.weights_digest,
        "card": backbone.card.identity(),
        "loading": backbone.loading.identity,
        "transform": transform.identity,
        "split": split.fingerprint,
        "images": len(split),
        "what": "vectors" if what in ("embedding", "projection") else what,  # those two come from one pass
        "grid": asdict(grid) if grid else None,
        "precision": str(next((p.dtype for p in backbone.parameters()), torch.float32)),
        "device": _device(device),
        "batch": batch_size(transform.size, device),
        "libraries": {name: _version(name) for name in ("torch", "pillow", *LIBRARIES[backbone.card.source])},
    }


def _mapped(path: Path, name: str) -> Tensor:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)


def _device(device: str) -> str:
    """Kinds of processors differ in the last bits."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.device(device).type} {torch.backends.cpu.get_cpu_capability()}"


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
