"""A stranger's parquet: opened only where it is plain and small, at first by a process that may die of it."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from ...backbones.errors import BadInput
from .archive import shown

pc: Any = pyarrow.compute  # which makes its functions when it is imported
COLUMNS = 64
ROWS = 5_000_000
VALUES = 200_000_000  # in all columns and lists
EXPANDED = 2 << 30  # bytes of all texts, written out
TEXT = 1 << 20  # bytes of one text: the run lengths of a large mask
NESTED = 4  # lists and structs within each other
METADATA = 16 << 20  # bytes
PNG = b"\x89PNG\r\n\x1a\n"
MEMORY = 8 << 30  # bytes of address space, and seconds of work, that reading all files of a bundle may take
SECONDS = 300


def refusals(files: Sequence[tuple[Path, str, int]]) -> Iterator[str]:
    """A line for each of `files` (path, name, rows that its record says) that is not fit to be read.

    They are read whole by another process first: what harmed metadata do to a C++ library ends that one, not this.
    """
    if not files:
        return
    asked = json.dumps([[str(path), name, rows] for path, name, rows in files])
    command = [sys.executable, "-c", f"from {__name__} import trial; trial()"]
    try:
        done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=SECONDS)
        told = done.stdout.splitlines()
    except subprocess.TimeoutExpired as error:
        told = (error.stdout or b"").decode().splitlines()
    yield from (line for line in told if line)
    if len(told) < len(files):
        yield f"{files[len(told)][1]}: file: whoever reads it dies of it; write it again"


def trial() -> None:
    """What that process does: a line for each file that is named on its standard input, empty where it is fit."""
    with suppress(ImportError):  # there are no such limits on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for path, name, rows in json.loads(sys.stdin.read()):
        said = ""
        try:
            check_parquet(Path(path), name, rows)
        except BadInput as error:
            said = " ".join(str(error).split())
        print(said, flush=True)


def check_parquet(path: Path, name: str, rows: int) -> None:
    """Raises BadInput unless a file is parquet with `rows` rows of numbers and texts that fit into memory."""
    try:
        with path.open("rb") as raw, _open(raw) as file:
            _check_shape(file, name, rows)
            texts = [
                file.schema.column(i).path
                for i in range(len(file.schema))
                if file.schema.column(i).physical_type == "BYTE_ARRAY"
            ]
        if texts:
            _check_texts(path, name, texts)
        pq.read_table(path)
    except BadInput:
        raise
    except Exception as error:  # pyarrow tells of harm by many kinds of error, of its own and of the system
        raise BadInput(f"{name}: file: not a parquet file that can be read: {shown(_first(error), 160)}") from None


def _open(file):
    return pq.ParquetFile(
        file, thrift_string_size_limit=METADATA, thrift_container_size_limit=1 << 20, arrow_extensions_enabled=False
    )


def _check_shape(file: pq.ParquetFile, name: str, rows: int) -> None:
    found = file.metadata
    if found.num_rows != rows:
        raise BadInput(f"{name}: file: {found.num_rows:,} rows, its record says {rows:,} (predictions.rows)")
    if found.num_rows > ROWS:
        raise BadInput(f"{name}: file: {found.num_rows:,} rows, at most {ROWS:,} are read")
    schema = file.schema_arrow
    if len(schema) > COLUMNS:
        raise BadInput(f"{name}: file: {len(schema)} columns, predictions have at most {COLUMNS}")
    names = [field.name for field in schema]
    for field in schema:
        if not field.name.isascii() or not field.name.isidentifier() or names.count(field.name) > 1:
            raise BadInput(f"{name}: columns.{shown(field.name)}: names are plain words, each once")
        _check_type(field.type, f"{name}: columns.{field.name}")
    groups = [found.row_group(i) for i in range(found.num_row_groups)]
    if sum(group.num_rows for group in groups) != found.num_rows or any(group.num_rows < 0 for group in groups):
        raise BadInput(f"{name}: file: its parts do not have the rows that it says")
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    if sum(max(0, chunk.num_values) for chunk in chunks) > VALUES:
        raise BadInput(f"{name}: file: it says to hold over {VALUES:,} values")
    if sum(max(0, chunk.total_uncompressed_size) for chunk in chunks) > EXPANDED:
        raise BadInput(f"{name}: file: it says to unpack to over {EXPANDED >> 20:,} MiB")


def _check_type(kind: pa.DataType, where: str, depth: int = 0) -> None:
    """Raises BadInput for what is not numbers, texts, pictures, or lists and structs of them: no code, no objects."""
    if depth > NESTED:
        raise BadInput(f"{where}: nested more than {NESTED} deep")
    if pa.types.is_struct(kind):
        for field in kind.fields:
            _check_type(field.type, f"{where}.{shown(field.name)}", depth + 1)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        _check_type(kind.value_type, where, depth + 1)
    elif not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_null(kind)
        or (pa.types.is_binary(kind) and not depth)
    ):
        raise BadInput(f"{where}: is {kind}; predictions are numbers, texts and PNGs, and lists of numbers and texts")


def _check_texts(path: Path, name: str, texts: list[str]) -> None:
    """A dictionary lets a short file stand for endless text: its entries are measured before any is written out."""
    expanded = 0
    with path.open("rb") as raw:
        file = pq.ParquetFile(
            raw,
            read_dictionary=texts,
            thrift_string_size_limit=METADATA,
            thrift_container_size_limit=1 << 20,
            arrow_extensions_enabled=False,
        )
        for batch in file.iter_batches(batch_size=1 << 14, columns=[text.partition(".")[0] for text in texts]):
            for column in batch.columns:
                for part in _dictionaries(column):
                    pictures = pa.types.is_binary(part.dictionary.type)
                    if pictures and not pc.all(pc.starts_with(part.dictionary, pattern=PNG)).as_py():
                        raise BadInput(f"{name}: columns: bytes that are no PNG; masks are kept as such, nothing else")
                    lengths = pc.fill_null(pc.binary_length(part.dictionary), 0)
                    if len(lengths) and pc.max(lengths).as_py() > TEXT:
                        raise BadInput(f"{name}: file: a text of {pc.max(lengths).as_py():,} bytes")
                    expanded += pc.sum(lengths.take(part.indices.drop_null())).as_py() or 0
            if expanded > EXPANDED:
                raise BadInput(f"{name}: file: its texts unpack to over {EXPANDED >> 20:,} MiB")


def _dictionaries(values: pa.Array) -> list[pa.DictionaryArray]:
    if isinstance(values, pa.DictionaryArray):
        return [values]
    if isinstance(values, pa.StructArray):
        return [part for index in range(values.type.num_fields) for part in _dictionaries(values.field(index))]
    if isinstance(values, (pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray)):
        return _dictionaries(values.flatten())
    return []


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
