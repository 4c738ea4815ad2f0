"""Predictions as parquet: kept beside every result, so that any score can be computed again."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Predictions = dict[str, np.ndarray]
"""Columns by name: (n,) numbers or strings, (n, k) numbers, or objects: lists, or dicts with equal keys."""


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Columns to a parquet file, atomically and with the same bytes for the same columns."""
    columns = {}
    for name, values in predictions.items():
        values = np.asarray(values) if not isinstance(values, np.ndarray) else values
        if values.ndim == 2:
            columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        else:
            columns[name] = pa.array(values.tolist() if values.dtype == object else values)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    pq.write_table(pa.table(columns), part, compression="zstd")
    part.replace(path)


def read_predictions(path: Path) -> Predictions:
    """The columns that `write_predictions` stored."""
    table = pq.read_table(path, memory_map=True)
    return {name: _column(table[name].combine_chunks()) for name in table.column_names}


def _column(values: pa.Array) -> np.ndarray:
    if pa.types.is_fixed_size_list(values.type):
        return values.values.to_numpy(zero_copy_only=False).reshape(len(values), values.type.list_size)
    if pa.types.is_list(values.type) or pa.types.is_struct(values.type):
        rows = np.empty(len(values), dtype=object)
        rows[:] = values.to_pylist()
        return rows
    return values.to_numpy(zero_copy_only=False)
