"""The feature bank: every image goes through a network once, ever; frozen tasks read memory-mapped files.

An entry is a folder `<key[:2]>/<key>` with one safetensors file a tensor and `index.json`, which holds what the key was
made of and each file's sha256. It is written beside its place and moved there whole: there is no half an entry.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..backbones import Backbone, Letterbox, Transform
from ..backbones.card import file_digest
from ..backbones.errors import BadInput, NotApplicable
from ..backbones.reading import digest
from .datasets import Split
from .extraction import batch_size, extract
from .shard import Shard

FORMAT = 1  # of the entry on disk and of how its numbers come to be; a new one leaves all old entries behind
INDEX = "index.json"
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
    """Features on disk under `folder`, shared by any number of processes."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._open: dict[str, dict[str, Tensor]] = {}  # entries of which this process has checked every byte

    def features(
        self,
        backbone: Backbone,
        split: Split,
        what: str,
        *,
        transform: Transform | Letterbox | None = None,
        device: str = "cpu",
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Found:
        """Features of a split: {"embedding": (n, D) f32}, {"projection": (n, T) f32} or {"map0": (n, C, H, W) f16, …}.

        Raises NotApplicable when the backbone has no such features, BadInput when they are not finite.
        """
        if what == "projection" and not backbone.has_text:
            raise NotApplicable(f"{backbone.name} has no text tower")
        if what == "maps" and not backbone.levels:
            raise NotApplicable(f"{backbone.name} has no feature maps")
        if len(split) == 0:
            raise BadInput(f"{backbone.name}: there is no image to take features of: the split is empty")
        transform = transform or backbone.transform
        made_of = ingredients(backbone, split, what, transform, device)
        key = digest(made_of)
        computed = 0
        if (tensors := self._read(key)) is None:
            place = self._place(key)
            place.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{place}.lock"):
                if (tensors := self._read(key)) is None:  # nobody else has made it while we waited
                    shutil.rmtree(place, ignore_errors=True)
                    self._write(place, made_of, split, extract(backbone, split, what, transform, device, progress))
                    tensors, computed = self._read(key), len(split)
                if tensors is None:
                    raise OSError(f"{place}: features read back differ from those written; is the disk sound or full?")
        wanted = [name for name in tensors if name == what or (what == "maps" and name.startswith("map"))]
        return Found({name: tensors[name] for name in wanted}, computed)

    def _place(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def _write(self, place: Path, made_of: Any, split: Split, batches: Iterable[dict[str, Tensor]]) -> None:
        part = place.with_name(f"{place.name}.part")
        shutil.rmtree(part, ignore_errors=True)  # somebody was killed here
        part.mkdir()
        shards: dict[str, Shard] = {}
        try:
            for batch in batches:
                for name, rows in batch.items():
                    if name not in shards:
                        shards[name] = Shard(part / f"{name}.safetensors", name, rows, len(split))
                    shards[name].append(rows)
            index = {"made_of": made_of, "sha256": {name: shard.close() for name, shard in shards.items()}}
            (part / INDEX).write_text(json.dumps(index, indent=1))
            os.replace(part, place)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise

    def _read(self, key: str) -> dict[str, Tensor] | None:
        """The tensors of an entry, or None when it is not there or not every byte is as it was written."""
        if key not in self._open:
            place = self._place(key)
            try:
                index = json.loads((place / INDEX).read_text())
                whole = digest(index["made_of"]) == key and all(
                    file_digest(place / f"{name}.safetensors") == sha for name, sha in index["sha256"].items()
                )
                if not whole or not index["sha256"]:
                    return None
                self._open[key] = {name: _mapped(place / f"{name}.safetensors", name) for name in index["sha256"]}
            except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
                return None
        return self._open[key]


def ingredients(
    backbone: Backbone, split: Split, what: str, transform: Transform | Letterbox, device: str
) -> dict[str, Any]:
    """Everything that decides the bits of a feature, as JSON: its digest is the key of the entry."""
    loading = backbone.loading.identity
    return ({"loading": loading} if loading else {}) | {
        "format": FORMAT,
        "weights": backbone.weights_digest,
        "card": backbone.card.identity(),
        "transform": transform.identity,
        "split": split.fingerprint,
        "images": len(split),
        "what": "maps" if what == "maps" else "vectors",  # embedding and projection come from one pass
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
