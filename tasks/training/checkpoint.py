"""Checkpoints: tensors in safetensors, a mark that is written last; a killed process leaves the one before it whole."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from ...backbones.card import file_digest
from ..entry import sync_folder

MARK = "checkpoint.json"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Checkpoints:
    """The one checkpoint of a training in `folder`; `made_of` (JSON) decides every bit of it."""

    folder: Path
    made_of: Any

    def save(self, epoch: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Puts tensors and `state` (JSON) after an epoch in the place of the checkpoint before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"epoch-{epoch:04d}{SUFFIX}"
        part = path.with_suffix(".part")
        # Each with memory of its own: tied weights and views of one buffer cannot be stored together.
        save_file({name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}, part)
        _sync(part)
        mark = {"epoch": epoch, "file": path.name, "sha256": file_digest(part), "made_of": self.made_of, "state": state}
        os.replace(part, path)
        write_whole(self.folder / MARK, json.dumps(mark, indent=1))
        for old in self.folder.glob(f"*{SUFFIX}"):
            if old != path:
                old.unlink()

    def load(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """Epoch, tensors and state; None where there is none, or a harmed one, or one of another training."""
        try:
            mark = json.loads((self.folder / MARK).read_bytes())
            path = self.folder / mark["file"]
            if mark["made_of"] != json.loads(json.dumps(self.made_of)) or mark["sha256"] != file_digest(path):
                return None
            return mark["epoch"], load_file(path), mark["state"]
        except (OSError, ValueError, KeyError, TypeError):
            return None


def forget_checkpoints(folder: Path) -> None:
    """Removes every checkpoint below a folder: its cell is finished. Curves stay."""
    for name in (MARK, f"*{SUFFIX}", "*.part"):
        for path in folder.rglob(name):
            path.unlink()


def write_whole(path: Path, text: str) -> None:
    """Puts a text in the place of a file: at any moment there is the old one or the new one."""
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    _sync(part)
    os.replace(part, path)
    sync_folder(path.parent)


def state_of(model: nn.Module, optimizer: Optimizer | None) -> dict[str, Tensor]:
    """All that training changes, by name: trainable weights, buffers, and the optimiser's state."""
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    held = {f"model.{n}": t for n, t in model.state_dict().items() if n not in frozen and isinstance(t, Tensor)}
    for index, values in optimizer.state_dict()["state"].items() if optimizer else ():
        held |= {f"optimizer.{index}.{key}": value for key, value in values.items() if value is not None}
    return held


def put_back(tensors: dict[str, Tensor], model: nn.Module, optimizer: Optimizer) -> None:
    """What `state_of` took, into a model and an optimiser made the same way."""
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    model.load_state_dict(weights, strict=False)
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _sync(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())
