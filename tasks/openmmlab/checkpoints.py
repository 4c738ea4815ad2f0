"""Resuming mmengine's runs from their own checkpoints, without letting any other file bring more than tensors.

mmengine 0.10 writes its log's numbers as objects (numpy arrays in `HistoryBuffer`, and with each the functions that
sum it up, pickled as calls of `getattr`), which torch reads no longer unless told that it may.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct, scalar
from torch.serialization import get_safe_globals, safe_globals

from .gate import openmmlab


class History:
    """Takes the place of mmengine's `HistoryBuffer` while one is read: takes its numbers, leaves its functions."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update((key, state[key]) for key in ("max_length", "_log_history", "_count_history"))
        self.__class__ = openmmlab("mmengine.logging").HistoryBuffer


def no_function(*_: Any) -> None:
    """Takes the place of `getattr` while a checkpoint is read."""


READABLE: list[Any] = [
    (History, "mmengine.logging.history_buffer.HistoryBuffer"),
    (no_function, "builtins.getattr"),
    (_reconstruct, "numpy._core.multiarray._reconstruct"),
    (scalar, "numpy._core.multiarray.scalar"),
    np.ndarray,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
]


@contextmanager
def own_checkpoints(folder: Path) -> Iterator[None]:
    """While open, mmengine may resume from files below `folder`, a run's own; of any other it reads tensors only.

    Even a file in the folder brings no code: all that it may name are arrays and numbers.
    """
    loaders = openmmlab("mmengine.runner.checkpoint").CheckpointLoader
    local, folder = loaders._schemes[""], folder.resolve()

    def load(filename: str, map_location: Any = None) -> Any:
        file = Path(filename).expanduser()
        readable = READABLE if file.resolve().is_relative_to(folder) else []
        # Leaving this context takes all it was given off torch's list: so give it only what is not on it already.
        with safe_globals([known for known in readable if known not in get_safe_globals()]):
            return torch.load(file, map_location=map_location, weights_only=True)

    loaders.register_scheme("", load, force=True)
    try:
        yield
    finally:
        loaders.register_scheme("", local, force=True)
