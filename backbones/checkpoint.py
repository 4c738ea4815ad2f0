"""A file of weights, read without running anything in it, into a network that must want exactly what it holds."""

import argparse
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .card import BackboneCard
from .errors import BadInput
from .fetch import fetch
from .fit import Convert, few, fit

# Where training code keeps the weights inside its file, the averaged ones first: those are what papers report.
NESTS = ("state_dict_ema", "model_ema", "ema_state_dict", "teacher", "target_encoder")
NESTS += ("state_dict", "model_state_dict", "model", "backbone", "encoder", "network", "net", "module")
DEEPEST = 8  # mappings in mappings; a pickle can hold one that holds itself, many times over


def load_checkpoint(
    card: BackboneCard, body: nn.Module, heads: Iterable[str] = (), convert: Convert | None = None
) -> None:
    """Load `card.checkpoint` into `body`, whose classifier is off; names under `heads` may be left over.

    `convert` is the library's own way from other codes' names to its own. Raises BadInput where file, digest, names,
    shapes or values don't fit, Unavailable for a file out of reach.
    """
    path = fetch(card)
    where = f"{card.name}: {path.name}"
    wanted = body.state_dict()
    fitting = fit(read_weights(path), wanted, tuple(heads), where, card.key_map, convert)
    for name, tensor in fitting.items():
        _must_be_sound(tensor, wanted[name], f"{where}: {name}")
    body.load_state_dict(fitting)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file or a `torch.save`d state dict, which may be nested. Raises BadInput."""
    with path.open("rb") as file:
        head = file.read(512)
    _must_look_like_weights(path, head)
    try:
        if head[8:9] == b"{":  # by what is in it, not by what it is called
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            # Beside the weights trainers like to keep their options, plain attributes in a Namespace.
            with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of how old the format is, which is no news to anybody
                found = torch.load(path, map_location="cpu", weights_only=True, mmap=head[:2] == b"PK")
    except Exception as error:
        reason = " ".join(str(error).split())
        if "weights_only" in reason.lower():
            raise BadInput(
                f"{path}: is a pickle that wants to run code ({_wanted(path)}), which is refused; "
                "save the bare weights: torch.save(model.state_dict(), …) or safetensors"
            ) from None
        raise BadInput(
            f"{path}: cannot be read as weights, damaged or cut short; download it again "
            f"({reason[:120] or type(error).__name__})"
        ) from None
    weights = _weights_in(found, set())
    if not weights:
        keys = f"; its keys are: {few(map(str, found))}" if isinstance(found, Mapping) else ""
        raise BadInput(
            f"{path}: holds no weights but a {type(found).__name__}{keys}; give a mapping of names to tensors"
        )
    return weights


def _weights_in(found: Any, seen: set[int], depth: int = 0) -> dict[str, Tensor]:
    """The tensors under the first of NESTS that holds any, else all there are."""
    for key in NESTS if isinstance(found, Mapping) and depth < DEEPEST else ():
        inner = found.get(key)
        if isinstance(inner, Mapping) and id(inner) not in seen:
            seen.add(id(inner))
            if weights := _weights_in(inner, seen, depth + 1):
                return weights
    return dict(_tensors(found, set()))


def _tensors(found: Any, seen: set[int], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Every tensor with its name; what lies in a mapping inside is named after that too."""
    if isinstance(found, Mapping) and id(found) not in seen and depth < DEEPEST:
        seen.add(id(found))
        for key, value in found.items():
            if isinstance(value, Tensor):
                yield f"{prefix}{key}", value
            else:
                yield from _tensors(value, seen, f"{prefix}{key}.", depth + 1)


def _must_look_like_weights(path: Path, head: bytes) -> None:
    """Tell the mistakes that everybody makes from a file's first bytes."""
    start = head.lstrip().lower()
    if not head:
        raise BadInput(f"{path}: is empty; download it again")
    if head.startswith(b"version https://git-lfs"):
        raise BadInput(f"{path}: is a git-lfs pointer, not the weights it stands for; run `git lfs pull`")
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise BadInput(f"{path}: is a web page, not weights; download the file itself, not the page that shows it")
    if path.suffix == ".safetensors" and head[8:9] != b"{":
        raise BadInput(f"{path}: is called .safetensors and holds something else; give what save_file wrote")
    if head[:2] == b"PK" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
            raise BadInput(
                f"{path}: is a TorchScript archive, which carries code; none is run here. Where you trust it, save "
                "its bare weights: torch.save(torch.jit.load(file).state_dict(), 'weights.pth')"
            )
        if any(name.endswith(".npy") for name in names):
            raise BadInput(f"{path}: is an archive of numpy arrays; save them as tensors: safetensors or torch.save")
    elif head[:1] != b"\x80" and head[8:9] != b"{" and head[:2] != b"PK":
        raise BadInput(f"{path}: is not a file of weights; give safetensors or what torch.save wrote")


def _must_be_sound(tensor: Tensor, wanted: Tensor, where: str) -> None:
    if wanted.is_floating_point() and not tensor.is_floating_point():
        raise BadInput(
            f"{where} is {str(tensor.dtype).removeprefix('torch.')}, the network wants floats: a quantised file? "
            "give its float weights"
        )
    # A mask may hold infinities by design; then the network's own holds them too.
    if tensor.is_floating_point() and not tensor.float().isfinite().all() and wanted.isfinite().all():
        wrong = int((~tensor.float().isfinite()).sum())
        raise BadInput(
            f"{where} has {wrong} of {tensor.numel()} values that are NaN or infinite: "
            "training diverged or the file is damaged; give another checkpoint"
        )


def _wanted(path: Path) -> str:
    try:
        return few(torch.serialization.get_unsafe_globals_in_checkpoint(str(path))) or "an object of its own"
    except Exception:
        return "an object of its own"
