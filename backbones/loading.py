"""How a network computes: options of loading it, never of a task."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from .errors import BadInput, Unavailable, unknown

Precision = Literal["float32", "bfloat16", "float16"]
Decoder = Literal["pil", "fast"]


@dataclass(frozen=True)
class Loading:
    """`precision` of matrix products (by autocast: weights, norms and features stay float32), images `channels_last`
    in memory, `compile` by torch, `decoder` of image files (see `decoding`). Raises BadInput for one there is not."""

    precision: Precision = "float32"
    channels_last: bool = False
    compile: bool = False
    decoder: Decoder = "pil"

    def __post_init__(self):
        for name, known in (("precision", get_args(Precision)), ("decoder", get_args(Decoder))):
            if (given := getattr(self, name)) not in known:
                raise unknown(name, str(given), known)

    @classmethod
    def fast(cls, device: str, compile: bool = False) -> "Loading":
        """The quickest that is near enough to the plain way: half precision only where the processor has units for it.

        Features taken so are first held against plain ones (`tasks/fast.py`).
        """
        return cls(half_precision(device) or "float32", channels_last=True, compile=compile, decoder="fast")

    @property
    def identity(self) -> dict[str, Any]:
        """The options that are not the usual ones, as JSON: each can change the last bits of a feature."""
        return {f.name: asdict(self)[f.name] for f in fields(self) if asdict(self)[f.name] != f.default}


PLAIN = Loading()


def half_precision(device: str) -> Precision | None:
    """The half precision that a device multiplies fast, or None where it would only pretend to."""
    import torch

    if torch.device(device).type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    has = torch.cpu.get_capabilities()
    return "bfloat16" if has.get("avx512_bf16") or has.get("amx_bf16") else None


@contextmanager
def told_why_not_compiled(name: str) -> Iterator[None]:
    """Around a first pass of a compiled network: Unavailable, one line, where torch cannot compile it here."""
    from torch._dynamo.exc import BackendCompilerFailed, TorchDynamoException
    from torch._inductor.exc import InductorError

    try:
        yield
    except (BackendCompilerFailed, TorchDynamoException, InductorError) as error:
        reason = " ".join(str(error).split())[:120]
        raise Unavailable(f"{name}: torch cannot compile it here ({reason}); load it without compile") from None


def pick_device(device: str = "auto") -> str:
    """`auto` is the first GPU where there is one, else the CPU; of processes launched together each has its own GPU.

    Raises BadInput for a device that is not here.
    """
    import torch

    if device == "auto":
        number, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count() * torch.cuda.is_available()
        if there and number >= there:
            raise BadInput(f"{number + 1} or more processes were launched here for {there} GPUs; launch one for each")
        return f"cuda:{number}" if there else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise BadInput(f"device {device!r}: not a device; use auto, cpu or cuda:0") from None
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        raise BadInput(f"device {device!r}: not available here; use cpu (see `backbench doctor`)")
    return device
