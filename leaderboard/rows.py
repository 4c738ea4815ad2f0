"""Rows that are added within a transaction: of results, of whatever is not there yet, of the history."""

from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

from ..backbones.errors import BadInput
from .result import LARGEST, Result
from .tables import events, moment


def row_of(result: Result) -> dict[str, Any]:
    """A row of `results`. Raises BadInput for a record that nobody would read again."""
    return {
        "id": result.id,
        "cell_id": result.cell_id,
        "task": result.task.name,
        "dataset": result.dataset.name,
        "backbone": result.backbone.name,
        "seed": result.seed,
        "created": moment(result.created),
        "json": short(result.to_json(), f"result {result.id}"),
        "trust": result.trust,
    }


def short(text: str, what: str) -> str:
    """The JSON of a record. Raises BadInput where it is over the limit."""
    if (size := len(text.encode())) > LARGEST:
        raise BadInput(f"{what}: {size:,} bytes of JSON; at most {LARGEST:,} are kept")
    return text


def insert_new(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> int:
    """Adds the rows whose key is not there yet; how many."""
    if not rows:
        return 0
    insert = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[connection.dialect.name](table)
    [key] = table.primary_key
    return len(connection.scalars(insert.on_conflict_do_nothing(index_elements=[key]).returning(key), rows).all())


def note(connection: Connection, by: str, action: str, subject: str, detail: dict[str, Any]) -> None:
    """Adds to the history, with whatever else the transaction does."""
    row = {"at": moment(), "by": by, "action": action, "subject": subject, "detail": detail}
    connection.execute(events.insert().values(row))
