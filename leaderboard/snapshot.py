"""What a board needs of every result, in columns: a memory-mapped Arrow file, renewed when the store changes."""

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from ..backbones.reading import digest
from .published import Figure, Use
from .result import BackboneFacts, Identity, Result, Trust

if TYPE_CHECKING:
    from .store import Store

FORMAT = 1  # of the file; one of another format is made anew
TRUSTS = ("contested", "reported", "rescored", "reproduced", "published")  # the least checked first
assert set(TRUSTS) == set(get_args(Trust))


@dataclass(frozen=True)
class Protocol:
    """How a figure was measured: what results of one column share. `digest`: only equal ones may be compared.

    `source`: empty for runs, else the published table that the figure is from, and `use` what it is used for there.
    """

    task: str
    family: str
    dataset: str
    metric: str
    unit: str
    higher_is_better: bool
    range_low: float
    range_high: float
    digest: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    use: Use = "ranked"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Results, the oldest first, each with the headline of its scores; n of them in numpy arrays of equal length.

    `ids` (n,) S16; `names`, `networks`, `protocols` (n,) indices into the lists `named`, `network_texts` (JSON of
    `Identity` or `BackboneFacts`) and `protocol_texts`; `weights` (n,) equal where the network is; `value`, `low`,
    `high` (n,) the score and its interval, nan where it has none; `trust` (n,) indices into TRUSTS. `folder`: where it
    is kept, and what is worked out from it may be.
    """

    ids: np.ndarray
    names: np.ndarray
    networks: np.ndarray
    protocols: np.ndarray
    weights: np.ndarray
    seeds: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    trust: np.ndarray
    named: list[str]
    network_texts: list[str]
    protocol_texts: list[str]
    folder: Path | None = None

    @classmethod
    def of(cls, results: Iterable[Result], figures: Iterable[Figure] = ()) -> "Snapshot":
        """The snapshot of results and published figures; of one given twice only one counts."""
        rows = {row["id"]: row for row in (*map(_row_of_figure, figures), *map(_row_of_result, results))}
        return _decoded(_table(sorted(rows.values(), key=lambda row: (row["created"], row["id"]))))

    @classmethod
    def of_store(cls, store: "Store", folder: Path) -> "Snapshot":
        """The snapshot of all that is in a store and not withdrawn. It is kept in `folder`: read from there while
        nothing changed, else renewed, reading only the records that are new."""
        path, mark = folder / "results.arrow", f"{FORMAT} {store.identity} {store.revision()}"
        kept, kept_mark = _read(path)
        if kept is not None and kept_mark == mark:
            return _decoded(kept, folder)
        # Of another store nothing is taken over.
        known = kept if kept is not None and kept_mark.rsplit(" ", 1)[0] == mark.rsplit(" ", 1)[0] else None
        table = _renewed(store, known)
        _write(table, mark, path)
        return _decoded(table, folder)

    def __len__(self) -> int:
        return len(self.ids)

    def id(self, place: int) -> str:
        """The id of the result at a place."""
        return self.ids[place].decode()

    @cached_property
    def parsed_protocols(self) -> list[Protocol]:
        """The protocols that `protocols` points into."""
        return [Protocol(**json.loads(text)) for text in self.protocol_texts]

    def facts(self, network: int) -> Identity:
        """Which network `networks` means: BackboneFacts of runs, Identity of published figures."""
        found = self._facts.get(network)
        if found is None:
            text = self.network_texts[network]
            kind = BackboneFacts if "weights_digest" in json.loads(text) else Identity
            found = self._facts[network] = kind.model_validate_json(text)
        return found

    @cached_property
    def _facts(self) -> dict[int, Identity]:
        return {}


def _row_of_result(result: Result) -> dict[str, Any]:
    b, score = result.backbone, result.headline
    protocol = {
        "task": result.task.name,
        "family": result.task.family,
        "dataset": result.dataset.name,
        "metric": result.task.headline,
        **{key: getattr(score, key) for key in ("unit", "higher_is_better", "range_low", "range_high")},
        "digest": result.protocol,
        "recipe": result.recipe,
    }
    return {
        "id": result.id,
        "created": round(result.created.timestamp() * 1e6),
        "name": b.name,
        "network": b.model_dump_json(),
        "weights": digest([b.name, b.card_digest, b.weights_digest, digest(b.loading)]),
        "protocol": json.dumps(protocol, sort_keys=True),
        "seed": result.seed,
        **{key: getattr(score, key) for key in ("value", "low", "high")},
        "trust": TRUSTS.index(result.trust),
    }


def _row_of_figure(figure: Figure) -> dict[str, Any]:
    shared = ("task", "family", "dataset", "metric", "unit", "higher_is_better", "range_low", "range_high")
    protocol: dict[str, Any] = {key: getattr(figure, key) for key in shared}
    protocol |= {"recipe": {"metric": figure.metric}, "source": figure.source.name, "use": figure.use}
    protocol |= {"digest": digest(protocol)}
    return {
        "id": figure.id,
        "created": 0,
        "name": figure.backbone.name,
        "network": figure.backbone.model_dump_json(),
        "weights": digest([figure.source.name, figure.backbone.name]),
        "protocol": json.dumps(protocol, sort_keys=True),
        "seed": 0,
        "value": figure.value,
        "low": figure.low,
        "high": figure.high,
        "trust": TRUSTS.index("published"),
    }


def _table(rows: list[dict[str, Any]]) -> Any:
    """Rows as an Arrow table, texts as dictionaries: each is kept once."""
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.large_string())
    kinds = {
        **{"id": pa.binary(16), "created": pa.int64()},
        **{"name": text, "network": text, "weights": text, "protocol": text},
        **{"seed": pa.int64(), "value": pa.float64(), "low": pa.float64(), "high": pa.float64(), "trust": pa.int8()},
    }
    columns = []
    for key, kind in kinds.items():
        values = [row[key].encode() for row in rows] if key == "id" else [row[key] for row in rows]
        if kind == text:
            columns.append(pa.array(values, pa.large_string()).dictionary_encode())
        else:
            columns.append(pa.array(values, kind))
    return pa.table(columns, names=list(kinds))


def _decoded(table: Any, folder: Path | None = None) -> Snapshot:
    """Views into an Arrow table of one batch."""

    def numbers(key: str) -> np.ndarray:
        return _one(table[key]).to_numpy(zero_copy_only=False)

    def coded(key: str) -> tuple[np.ndarray, Any]:
        column = _one(table[key])
        return column.indices.to_numpy(zero_copy_only=False), column.dictionary

    (names, named), (networks, texts), (protocols, protocol_texts) = map(coded, ("name", "network", "protocol"))
    ids = _one(table["id"])
    return Snapshot(
        ids=np.frombuffer(ids.buffers()[1], "S16", len(table), 16 * ids.offset) if len(table) else np.empty(0, "S16"),
        names=names,
        networks=networks,
        protocols=protocols,
        weights=coded("weights")[0],
        seeds=numbers("seed"),
        **{key: numbers(key) for key in ("value", "low", "high", "trust")},
        named=named.to_pylist(),
        network_texts=texts.to_pylist(),
        protocol_texts=protocol_texts.to_pylist(),
        folder=folder,
    )


def _one(column: Any) -> Any:
    """A column of a table as one array."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _renewed(store: "Store", known: Any) -> Any:
    """The table of a store: rows that are known as they are, but for their trust, and those of records that are new."""
    import pyarrow as pa
    import pyarrow.compute

    is_in: Any = pyarrow.compute.__dict__["is_in"]  # made when the module is imported

    marks = {mark.id: mark.trust for mark in store.marks() if mark.withdrawn is None}
    figures = store.figure_ids()
    wanted = [*marks, *figures]
    old = set() if known is None else {id.decode() for id in known["id"].to_pylist()}
    fresh = [_row_of_result(r) for r in store.some([id for id in marks if id not in old])]
    fresh += map(_row_of_figure, store.figures(known=old) if not old.issuperset(figures) else ())
    table = _table(fresh)
    if known is not None:
        stays = known.filter(is_in(known["id"], pa.array([id.encode() for id in wanted], pa.binary(16))))
        table = pa.concat_tables([stays.unify_dictionaries(), table]).unify_dictionaries()
    trust = [TRUSTS.index(marks.get(id.decode(), "published")) for id in table["id"].to_pylist()]
    table = table.set_column(table.schema.get_field_index("trust"), "trust", pa.array(trust, pa.int8()))
    return table.sort_by([("created", "ascending"), ("id", "ascending")]).combine_chunks()


def _read(path: Path) -> tuple[Any, str]:
    """The table in a file and its mark; None where there is none that can be read: it will be made anew."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        return table, (table.schema.metadata or {}).get(b"mark", b"").decode()
    except (OSError, pa.ArrowInvalid):
        return None, ""


def _write(table: Any, mark: str, path: Path) -> None:
    """Whole or not at all; where nothing can be written the next reader makes it anew."""
    import pyarrow as pa

    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    table = table.replace_schema_metadata({"mark": mark})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink()
