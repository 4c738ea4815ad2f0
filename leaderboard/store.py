"""Where results are kept: one SQLite file that several processes may write at once."""

from pathlib import Path

from filelock import FileLock
from sqlalchemy import Column, Engine, Integer, MetaData, NullPool, String, Table, Text, create_engine, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DatabaseError
from sqlalchemy.schema import CreateIndex, CreateTable

from ..backbones.errors import BadInput, did_you_mean
from .result import Result

SCHEMA = 1  # version of the tables; kept in the file, so that an older program refuses a newer file
PATIENCE = 60  # seconds to wait for another process that is writing

tables = MetaData()
schema = Table("schema", tables, Column("version", Integer, primary_key=True))
results = Table(
    "results",
    tables,
    Column("id", String(16), primary_key=True),
    Column("cell_id", String(64), nullable=False, index=True),
    Column("task", String, nullable=False, index=True),
    Column("dataset", String, nullable=False),
    Column("backbone", String, nullable=False, index=True),
    Column("seed", Integer, nullable=False),
    Column("created", String, nullable=False),
    Column("json", Text, nullable=False),
)
oldest_first = (results.c.created, results.c.id)


class Store:
    """The results of a home folder, in the file `path`; made if not there. Raises BadInput for another kind."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # No pool: a connection that outlives its call would be shared with forked workers.
        self._engine = create_engine(f"sqlite:///{self.path}", poolclass=NullPool, connect_args={"timeout": PATIENCE})
        try:
            with FileLock(f"{self.path}.lock", timeout=PATIENCE):
                version = _prepare(self._engine)
        except DatabaseError as error:
            raise BadInput(
                f"{self.path}: not a backbench leaderboard ({error.orig}); move it away or name another"
            ) from None
        if version != SCHEMA:
            raise BadInput(
                f"{self.path}: made by another backbench (tables of version {version}, this one reads {SCHEMA})"
            )

    def add(self, result: Result) -> None:
        """Keeps a result; adding one that is there already changes nothing."""
        row = {
            "id": result.id,
            "cell_id": result.cell_id,
            "task": result.task.name,
            "dataset": result.dataset.name,
            "backbone": result.backbone.name,
            "seed": result.seed,
            "created": result.created.isoformat(),
            "json": result.to_json(),
        }
        with self._engine.begin() as connection:
            connection.execute(insert(results).values(row).on_conflict_do_nothing())

    def by_id(self, prefix: str) -> Result:
        """The one result whose id starts with `prefix`. Raises BadInput when there is none, or more than one."""
        found = self._ids(results.c.id.startswith(prefix.lower(), autoescape=True))
        if len(found) > 1:
            listing = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
            raise BadInput(f"{len(found)} results start with {prefix!r}: {listing}; type more of the id")
        if not found:
            hint = did_you_mean(prefix, self._ids()) or "; `backbench leaderboard --format json` lists them"
            raise BadInput(f"there is no result {prefix!r}{hint}")
        return self._read(results.c.id == found[0])[0]

    def by_cell(self, cell_id: str) -> Result | None:
        """The newest result of a cell, or None when the cell has not been run."""
        found = self._read(results.c.cell_id == cell_id)
        return found[-1] if found else None

    def cells(self) -> set[str]:
        """Ids of all cells that have been run."""
        with self._engine.connect() as connection:
            return set(connection.scalars(select(results.c.cell_id).distinct()))

    def all(self) -> list[Result]:
        """Every result, the oldest first."""
        return self._read()

    def _ids(self, *conditions) -> list[str]:
        with self._engine.connect() as connection:
            return list(connection.scalars(select(results.c.id).where(*conditions).order_by(results.c.id)))

    def _read(self, *conditions) -> list[Result]:
        query = select(results.c.id, results.c.json).where(*conditions).order_by(*oldest_first)
        with self._engine.connect() as connection:
            return [Result.from_json(text, where=f"{self.path}: result {id}") for id, text in connection.execute(query)]


def _prepare(engine: Engine) -> int:
    """Makes what is missing of the tables, and gives the version of the file. Call it under the lock: going over to
    the write-ahead log needs the file for itself, and SQLite does not wait for that."""
    with engine.connect() as connection:
        if connection.exec_driver_sql("PRAGMA journal_mode").scalar() != "wal":
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    with engine.begin() as connection:
        connection.execute(CreateTable(schema, if_not_exists=True))
        version = connection.scalar(select(schema.c.version))
        if version is None:
            connection.execute(CreateTable(results, if_not_exists=True))
            for index in sorted(results.indexes, key=lambda i: str(i.name)):
                connection.execute(CreateIndex(index, if_not_exists=True))
            connection.execute(insert(schema).values(version=SCHEMA))
    return version or SCHEMA
