"""One tensor to a safetensors file, row by row, in memory for a batch only."""

import hashlib
import json
from pathlib import Path

from torch import Tensor

DTYPES = {"torch.float32": "F32", "torch.float16": "F16"}  # safetensors' own names


class Shard:
    """A safetensors file of one tensor of `rows` rows, written as they come; `like` gives their shape and dtype."""

    def __init__(self, path: Path, name: str, like: Tensor, rows: int):
        size = rows * like[0].numel() * like.element_size()
        entry = {"dtype": DTYPES[str(like.dtype)], "shape": [rows, *like.shape[1:]], "data_offsets": [0, size]}
        header = json.dumps({name: entry}).encode()
        header += b" " * (-(8 + len(header)) % 64)  # a mapped tensor then lies as aligned as one in memory
        self._left = size
        self._sha = hashlib.sha256()
        self._file = path.open("wb")
        self._put(len(header).to_bytes(8, "little") + header)

    def append(self, rows: Tensor) -> None:
        """Writes (b, …) further rows, which are on the CPU."""
        data = rows.contiguous().numpy().data.cast("B")
        self._left -= len(data)
        self._put(data)

    def close(self) -> str:
        """Ends the file; its sha256. Raises ValueError unless all rows have come."""
        self._file.close()
        if self._left:
            raise ValueError(f"{self._file.name}: {self._left} bytes of features are missing")
        return self._sha.hexdigest()

    def _put(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._sha.update(data)
