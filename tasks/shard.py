"""One tensor to a safetensors file, shard by shard of rows, in memory for a batch only."""

import hashlib
import json
import os
from pathlib import Path

from torch import Tensor

from .entry import File

DTYPES = {"torch.float32": "F32", "torch.float16": "F16"}  # safetensors' own names


class TensorFile:
    """A safetensors file of one tensor of `rows` rows; `like` gives their shape and dtype.

    `done`: rows that are durable already, as `file` tells; what follows them is cut off.
    """

    def __init__(self, path: Path, name: str, like: Tensor, rows: int, file: File | None = None, done: int = 0):
        row = like[0].numel() * like.element_size()
        entry = {
            "dtype": DTYPES[str(like.dtype)],
            "shape": [rows, *like.shape[1:]],
            "data_offsets": [0, rows * row],
        }
        header = json.dumps({name: entry}).encode()
        header += b" " * (-(8 + len(header)) % 64)  # a mapped tensor then lies as aligned as one in memory
        self.file = file or File(head=8 + len(header), row=row)
        self._sha = hashlib.sha256()
        self._out = path.open("r+b" if done else "wb")
        if done:
            self._out.truncate(self.file.size(done))
            self._out.seek(0, os.SEEK_END)
        else:
            self._put(len(header).to_bytes(8, "little") + header)

    def append(self, rows: Tensor) -> None:
        """Writes (b, …) further rows, which are on the CPU."""
        self._put(rows.contiguous().numpy().data.cast("B"))

    def end_shard(self) -> None:
        """Makes the rows so far durable; their digest joins those of `file`."""
        self._out.flush()
        os.fsync(self._out.fileno())
        self.file.sha256.append(self._sha.hexdigest())
        self._sha = hashlib.sha256()

    def close(self) -> None:
        """Ends the file."""
        self._out.close()

    def _put(self, data: bytes | memoryview) -> None:
        self._out.write(data)
        self._sha.update(data)
