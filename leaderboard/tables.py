"""The tables of a store, and the steps that bring a store made by an older backbench to them."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    select,
    text,
)


class Json(TypeDecorator):
    """A JSON-able value as strict JSON text (no NaN): the same bytes in every database."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        return None if value is None else json.dumps(value, allow_nan=False)

    def process_result_value(self, value: str | None, dialect: Any) -> Any:
        return None if value is None else json.loads(value)


tables = MetaData()
# One row: the version of the tables, how often results or figures changed, and a name that no other store has.
schema = Table(
    "schema",
    tables,
    Column("version", Integer, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("identity", String(32), nullable=False),
)
results = Table(
    "results",
    tables,
    Column("id", String(16), primary_key=True),
    Column("cell_id", String(64), nullable=False, index=True),
    Column("task", String, nullable=False, index=True),
    Column("dataset", String, nullable=False),
    Column("backbone", String, nullable=False, index=True),
    Column("seed", BigInteger, nullable=False),
    Column("created", String, nullable=False),
    Column("json", Text, nullable=False),  # as it came; `trust` beside it is who has checked it by now
    Column("trust", String(20), nullable=False),
    Column("withdrawn", Text),  # the reason
)
sources = Table("sources", tables, Column("name", String(60), primary_key=True), Column("json", Text, nullable=False))
figures = Table(
    "figures",
    tables,
    Column("id", String(16), primary_key=True),
    Column("source", String(60), nullable=False, index=True),
    Column("json", Text, nullable=False),  # all of a figure but its source
)
# What was done to whom by whom: the history of a result, and the audit log of a server. Rows are only ever added.
events = Table(
    "events",
    tables,
    Column("id", Integer, primary_key=True),
    Column("at", String(32), nullable=False),
    Column("by", String, nullable=False, quote=True),
    Column("action", String(40), nullable=False),
    Column("subject", String, nullable=False, index=True),
    Column("detail", Json, nullable=False),
)
# Who may use a server; the token itself is nowhere. `scopes`: words with a space between.
tokens = Table(
    "tokens",
    tables,
    Column("name", String(100), primary_key=True),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("scopes", String(200), nullable=False),
    Column("created", String(32), nullable=False),
    Column("expires", String(32)),
    Column("revoked", String(32)),
)
# Bundles that were handed in. `digest`: no two rows have the same, so that nothing is taken twice; null claims nothing.
submissions = Table(
    "submissions",
    tables,
    Column("id", String(32), primary_key=True),
    Column("received", String(32), nullable=False, index=True),
    Column("by", String, nullable=False, quote=True),
    Column("backbone", String, nullable=False),
    Column("suite", String, nullable=False),
    Column("state", String(20), nullable=False),
    Column("detail", Json, nullable=False),
    Column("digest", String(64), unique=True),
)
# Cells to run again.
checks = Table(
    "checks",
    tables,
    Column("id", Integer, primary_key=True),
    Column("result_id", String(16), nullable=False, index=True),
    Column("submission_id", String(32), index=True),
    Column("state", String(20), nullable=False, index=True),
    Column("queued", String(32), nullable=False),
    Column("finished", String(32)),
    Column("detail", Json, nullable=False),
)

# Step n makes tables of version n + 1 from those of version n; a step that was released is never changed.
# {serial}: an integer key that counts itself; {whole}: an integer of 64 bits.
MIGRATIONS = (
    """
    CREATE TABLE IF NOT EXISTS schema (version INTEGER NOT NULL PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS results (
        id VARCHAR(16) NOT NULL PRIMARY KEY, cell_id VARCHAR(64) NOT NULL, task VARCHAR NOT NULL,
        dataset VARCHAR NOT NULL, backbone VARCHAR NOT NULL, seed {whole} NOT NULL, created VARCHAR NOT NULL,
        json TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS ix_results_backbone ON results (backbone);
    CREATE INDEX IF NOT EXISTS ix_results_cell_id ON results (cell_id);
    CREATE INDEX IF NOT EXISTS ix_results_task ON results (task)
    """,
    """
    ALTER TABLE schema ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
    ALTER TABLE schema ADD COLUMN identity VARCHAR(32) NOT NULL DEFAULT '';
    ALTER TABLE results ADD COLUMN trust VARCHAR(20) NOT NULL DEFAULT 'reported';
    ALTER TABLE results ADD COLUMN withdrawn TEXT;
    CREATE TABLE sources (name VARCHAR(60) NOT NULL PRIMARY KEY, json TEXT NOT NULL);
    CREATE TABLE figures (
        id VARCHAR(16) NOT NULL PRIMARY KEY, source VARCHAR(60) NOT NULL, json TEXT NOT NULL);
    CREATE INDEX ix_figures_source ON figures (source);
    CREATE TABLE events (
        id {serial} PRIMARY KEY, at VARCHAR(32) NOT NULL, "by" VARCHAR NOT NULL, action VARCHAR(40) NOT NULL,
        subject VARCHAR NOT NULL, detail TEXT NOT NULL);
    CREATE INDEX ix_events_subject ON events (subject);
    CREATE TABLE tokens (
        name VARCHAR(100) NOT NULL PRIMARY KEY, sha256 VARCHAR(64) NOT NULL UNIQUE, scopes VARCHAR(200) NOT NULL,
        created VARCHAR(32) NOT NULL, expires VARCHAR(32), revoked VARCHAR(32));
    CREATE TABLE submissions (
        id VARCHAR(32) NOT NULL PRIMARY KEY, received VARCHAR(32) NOT NULL, "by" VARCHAR NOT NULL,
        backbone VARCHAR NOT NULL, suite VARCHAR NOT NULL, state VARCHAR(20) NOT NULL, detail TEXT NOT NULL,
        digest VARCHAR(64) UNIQUE);
    CREATE INDEX ix_submissions_received ON submissions (received);
    CREATE TABLE checks (
        id {serial} PRIMARY KEY, result_id VARCHAR(16) NOT NULL, submission_id VARCHAR(32), state VARCHAR(20) NOT NULL,
        queued VARCHAR(32) NOT NULL, finished VARCHAR(32), detail TEXT NOT NULL);
    CREATE INDEX ix_checks_result_id ON checks (result_id);
    CREATE INDEX ix_checks_submission_id ON checks (submission_id);
    CREATE INDEX ix_checks_state ON checks (state)
    """,
)
TYPES = {
    "sqlite": {"serial": "INTEGER NOT NULL", "whole": "INTEGER"},
    "postgresql": {"serial": "INTEGER GENERATED BY DEFAULT AS IDENTITY", "whole": "BIGINT"},
}
SCHEMA = len(MIGRATIONS)  # version of the tables above


def version_of(connection: Connection) -> int:
    """The version of the tables that a database has; 0 where there are none."""
    if not connection.dialect.has_table(connection, schema.name):
        return 0
    return connection.scalar(select(schema.c.version)) or 0


def migrate(connection: Connection) -> None:
    """Bring the tables to version SCHEMA, none of whose steps are half done. The caller holds off everybody else."""
    dialect, found = connection.dialect.name, version_of(connection)
    for step in MIGRATIONS[found:]:
        for statement in step.format_map(TYPES[dialect]).split(";"):
            connection.execute(text(statement))
    if found == 1 and dialect == "sqlite":  # the only kind there was: trust stood in the record alone
        known = "json_valid(json) AND json_extract(json, '$.trust') IN ('rescored', 'reproduced', 'contested')"
        connection.exec_driver_sql(
            f"UPDATE results SET trust = CASE WHEN {known} THEN json_extract(json, '$.trust') ELSE 'reported' END"
        )
    if not found:
        connection.exec_driver_sql(f"INSERT INTO schema (version) VALUES ({SCHEMA})")
    connection.execute(schema.update().values(version=SCHEMA))
    connection.execute(schema.update().where(schema.c.identity == "").values(identity=uuid.uuid4().hex))


def moment(at: datetime | None = None) -> str:
    """A time, else now, as tables keep it: UTC in ISO 8601, as long as any other, so that text sorts as time does."""
    return (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="microseconds")
