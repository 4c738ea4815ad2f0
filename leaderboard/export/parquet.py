"""The board as a Parquet file: a row a backbone, typed columns, the board's own description in the metadata."""

import json
from dataclasses import asdict
from io import BytesIO

from ..board import Board
from .flat import flat


def as_parquet(board: Board, sort: str | None = None) -> bytes:
    """The bytes of the file; see `flat`. Metadata: `title`, `source`, `columns` (JSON). Raises BadInput."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"whole": pa.int64(), "number": pa.float64(), "text": pa.string()}
    columns = json.dumps([asdict(c) for c in board.columns], allow_nan=False)
    about = {"title": board.title, "source": board.source, "columns": columns}
    table = flat(board, sort)
    schema = pa.schema([(series.name, kinds[series.kind]) for series in table], metadata=about)
    arrays = [pa.array(series.values, kinds[series.kind]) for series in table]
    out = BytesIO()
    parquet.write_table(pa.Table.from_arrays(arrays, schema=schema), out)
    return out.getvalue()
