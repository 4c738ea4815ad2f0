"""A SQLite file or a PostgreSQL, by path or URL; what goes wrong with it is told in one line."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, Engine, NullPool, QueuePool, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ..backbones.errors import BadInput, Unavailable, unknown
from .tables import SCHEMA, migrate, version_of

PATIENCE = 60  # seconds to wait for another process that is writing
DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg"}
EXAMPLE = "postgresql://user:password@host:5432/name"
# Codes of SQLite and PostgreSQL for tables that are not ours: no database, harmed, no such table, no such column, …
FOREIGN = {"SQLITE_ERROR", "SQLITE_NOTADB", "SQLITE_CORRUPT", "42P01", "42703", "42P07", "42701", "42804"}
# What PostgreSQL says to a mistake of the person who wrote the URL; before a connection stands there is no code for it.
MISTAKEN = re.compile(
    r"authentication failed|does not exist|no password supplied|pg_hba\.conf|permission denied|no schema has been|"
    r"invalid (connection|URI|integer|port|\w+ value)"
)


class Database:
    """Tables of the present version in a SQLite file (a path) or a database (a URL), made or brought up to it first.

    `pooled`: connections are kept for the next call, as a server wants it; else none outlives its call. `name` says
    where it is, without a password; `path` is the file of SQLite. Raises BadInput for a wrong URL or password and for
    tables of somebody else or of a newer backbench, Unavailable when the database cannot be reached.
    """

    def __init__(self, where: Path | str, *, pooled: bool = False):
        url = _url(where)
        self.path = Path(url.database or "") if url.drivername == "sqlite" else None
        self.name = str(self.path or url.set(drivername="postgresql", query={}).render_as_string(hide_password=True))
        self.engine = _engine(url, self.name, pooled)
        try:
            with self._alone() as connection:
                version = version_of(connection)
                if not isinstance(version, int) or version > SCHEMA:
                    newer = f"tables of version {version}, this one knows {SCHEMA}"
                    raise BadInput(f"{self.name}: made by a newer backbench ({newer}); upgrade this one")
                if version < SCHEMA:
                    migrate(connection)
        except Timeout:
            raise Unavailable(f"{self.name}: another process keeps its lock, {self.name}.lock") from None
        except OSError as error:
            raise BadInput(f"{self.name}: {error.strerror}; name a file in a folder you can write") from None

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A connection within a transaction: kept at the end of the block, undone by an error. Raises BadInput and
        Unavailable in place of the database's own errors, but for IntegrityError, which is the caller's business."""
        try:
            with self.engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise _told(self.name, error) from None
        except UnicodeEncodeError as error:
            raise BadInput(f"{self.name}: {error.object[:80]!r} is not text that can be kept") from None
        except PoolTimeout:
            raise Unavailable(f"{self.name}: all connections are in use") from None

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        """A transaction to look at the tables and to make them, one process at a time."""
        if self.path is None:
            with self.begin() as connection:
                if version_of(connection) < SCHEMA:  # who may only read is welcome as well
                    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('backbench'))"))
                yield connection
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Going over to the write-ahead log needs the file for itself, and SQLite does not wait for that.
        with FileLock(f"{self.path}.lock", timeout=PATIENCE), self.begin() as connection:
            if connection.exec_driver_sql("PRAGMA journal_mode").scalar() != "wal":
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            if version_of(connection) < SCHEMA:
                connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver begins none for making tables
            yield connection


def _url(where: Path | str) -> URL:
    """The URL of a database or of a SQLite file. Raises BadInput, which repeats no more of it than its first word."""
    # A mistyped URL must not become the path of a file.
    if not isinstance(where, str) or not re.match(r"[A-Za-z][A-Za-z0-9+_]+:/", where):
        return URL.create("sqlite", database=str(Path(where).expanduser()))
    shown = f"--database {where.partition(':')[0]}:…"
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        raise BadInput(f"{shown}: not the URL of a database; write it like {EXAMPLE}") from None
    kind, _, driver = url.drivername.partition("+")
    if kind not in DRIVERS:
        raise unknown("kind of database", kind, DRIVERS, where=shown)
    if driver not in ("", DRIVERS[kind]):
        raise BadInput(f"{shown}: the driver here is {DRIVERS[kind]}; write {kind}://…")
    if kind == "sqlite":
        if url.host or url.query or not url.database or url.database.startswith((":", "file:")):
            raise BadInput(f"{shown}: name a file: sqlite:///results.db, or sqlite:////home/me/results.db")
        return URL.create("sqlite", database=str(Path(url.database).expanduser()))
    if "@" in (url.host or ""):
        raise BadInput(f"{shown}: write special characters of a password as URLs do: @ is %40, / is %2F")
    return url.set(drivername="postgresql+psycopg")


def _engine(url: URL, name: str, pooled: bool) -> Engine:
    """An engine that has not connected yet. Forked processes never share a connection."""
    if pooled:
        pool = {"poolclass": QueuePool, "pool_size": 10, "pool_timeout": PATIENCE, "pool_pre_ping": True}
    else:
        pool = {"poolclass": NullPool}
    if url.drivername == "sqlite":
        engine = create_engine(url, connect_args={"timeout": PATIENCE}, hide_parameters=True, **pool)
    else:
        # A writer that vanishes with its machine must not hold off the others for good.
        limits = f"-c lock_timeout={PATIENCE}s -c idle_in_transaction_session_timeout={PATIENCE}s"
        given = {"connect_timeout": 10, "application_name": "backbench", "options": limits}
        given = {key: value for key, value in given.items() if key not in url.query}
        try:
            # Whoever waited for a change sees what it changed: `Store.change` relies on that.
            pool |= {"isolation_level": "READ COMMITTED"}
            engine = create_engine(url, connect_args=given, hide_parameters=True, **pool)
        except ImportError:
            raise Unavailable(f"{name}: PostgreSQL needs psycopg: pip install 'backbench[serve]'") from None
    if pooled and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: engine.dispose(close=False))
    return engine


def _told(name: str, error: DBAPIError) -> Exception:
    """The database's error as a person reads it."""
    said = " ".join((str(error.orig).strip() or type(error.orig).__name__).splitlines()[0].split())
    code = getattr(error.orig, "sqlite_errorname", None) or getattr(error.orig, "sqlstate", None) or ""
    if code in FOREIGN:
        return BadInput(f"{name}: not a backbench leaderboard ({said}); move it away or name another")
    if isinstance(error, DataError) or MISTAKEN.search(said):
        return BadInput(f"{name}: {said}")
    return Unavailable(f"{name}: {said}")
