"""Where results and published figures are kept: a SQLite file or a PostgreSQL that many processes write at once."""

import json
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any, NamedTuple, get_args

from sqlalchemy import ColumnElement, Connection, func, select

from ..backbones.errors import BadInput, did_you_mean, unknown
from ..backbones.reading import validate
from .database import Database
from .published import Figure, Source
from .result import Result, Trust
from .rows import insert_new, note, row_of, short
from .tables import events, figures, results, schema, sources

AT_ONCE = 10_000  # ids in one question; databases allow some 32,000
LIVE = results.c.withdrawn.is_(None)


class Mark(NamedTuple):
    """What may change of a result: who has checked it, and the reason if it was withdrawn."""

    id: str
    trust: Trust
    withdrawn: str | None


class Event(NamedTuple):
    """Something that was done: when (ISO 8601, UTC), by whom, what, to what, and what there is to say about it."""

    at: str
    by: str
    action: str
    subject: str
    detail: dict[str, Any]


class Store(Database):
    """The results in a SQLite file (a path) or a database (a URL): see `Database`. Records never change or go;
    who has checked them and whether they were withdrawn stands beside them. Raises Unavailable where a database fails.
    """

    def add(self, result: Result) -> None:
        """Keeps a result; adding one that is there already changes nothing."""
        self.add_all([result])

    def add_all(self, found: Iterable[Result]) -> int:
        """Keeps results, all or none; how many were not there yet. Raises BadInput for one over the limit."""
        rows = [row_of(result) for result in found]
        with self.change() as connection:
            if not (added := insert_new(connection, results, rows)):
                connection.rollback()
        return added

    def by_id(self, prefix: str) -> Result:
        """The one result whose id starts with `prefix`, withdrawn or not. Raises BadInput for none, or several."""
        return self._read(results.c.id == self._full_id(prefix))[0]

    def by_cell(self, cell_id: str) -> Result | None:
        """The newest result of a cell that was not withdrawn, or None when there is none."""
        found = self._read(results.c.cell_id == cell_id, LIVE)
        return found[-1] if found else None

    def cells(self) -> set[str]:
        """Ids of all cells with a result that was not withdrawn."""
        with self.begin() as connection:
            return set(connection.scalars(select(results.c.cell_id).where(LIVE).distinct()))

    def all(self) -> list[Result]:
        """Every result that was not withdrawn, the oldest first."""
        return self._read(LIVE)

    def some(self, ids: Sequence[str]) -> list[Result]:
        """The results of these ids, in this order, withdrawn or not. Raises BadInput for an id that is not there."""
        found = {}
        for batch in _batches(ids):
            found |= {r.id: r for r in self._read(results.c.id.in_(batch))}
        if missing := next((id for id in ids if id not in found), None):
            raise BadInput(f"{self.name}: there is no result {missing!r}")
        return [found[id] for id in ids]

    def marks(self) -> list[Mark]:
        """Of every result, the oldest first, what may change."""
        query = select(results.c.id, results.c.trust, results.c.withdrawn).order_by(results.c.created, results.c.id)
        with self.begin() as connection:
            return [Mark(*row) for row in connection.execute(query)]

    def revision(self) -> int:
        """Grows with every change of results and figures. Who asks first and reads then misses nothing that was there
        at that revision: changes come one after the other, each with its revision."""
        with self.begin() as connection:
            return connection.scalar(select(schema.c.revision)) or 0

    @cached_property
    def identity(self) -> str:
        """32 hex digits that no other store has."""
        with self.begin() as connection:
            return connection.scalar(select(schema.c.identity)) or ""

    def set_trust(self, id: str, trust: Trust, by: str, detail: dict[str, Any]) -> None:
        """Notes who has checked a result by now. Raises BadInput for an unknown id or trust."""
        if trust not in get_args(Trust):
            raise unknown("trust", trust, get_args(Trust))
        with self.change() as connection:
            before = _mark(connection, id).trust
            connection.execute(results.update().where(results.c.id == id).values(trust=trust))
            note(connection, by, "trust", id, {"from": before, "to": trust} | detail)

    def withdraw(self, id: str, reason: str, by: str) -> None:
        """Sets a result aside; it stays readable by its id. Raises BadInput if it is unknown or withdrawn already."""
        if not reason.strip():
            raise BadInput(f"result {id}: say why it is withdrawn")
        with self.change() as connection:
            if (before := _mark(connection, id).withdrawn) is not None:
                raise BadInput(f"result {id} was withdrawn already: {before}")
            connection.execute(results.update().where(results.c.id == id).values(withdrawn=reason))
            note(connection, by, "withdraw", id, {"reason": reason})

    def restore(self, id: str, by: str) -> None:
        """Takes a withdrawn result back in. Raises BadInput if it is unknown or was not withdrawn."""
        with self.change() as connection:
            if (before := _mark(connection, id).withdrawn) is None:
                raise BadInput(f"result {id} was not withdrawn")
            connection.execute(results.update().where(results.c.id == id).values(withdrawn=None))
            note(connection, by, "restore", id, {"reason": before})

    def log(self, by: str, action: str, subject: str, detail: dict[str, Any]) -> None:
        """Adds to the history."""
        with self.begin() as connection:
            note(connection, by, action, subject, detail)

    def history(self, subject: str | None = None) -> list[Event]:
        """What was done to a result or another subject, or to all, the oldest first."""
        query = select(*(events.c[key] for key in Event._fields)).order_by(events.c.id)
        with self.begin() as connection:
            rows = connection.execute(query if subject is None else query.where(events.c.subject == subject))
            return [Event(*row) for row in rows]

    def put_figures(self, found: Sequence[Figure]) -> tuple[int, int]:
        """Makes these, of one source, all of its figures, or changes nothing; how many came and how many went."""
        source = found[0].source
        if any(figure.source != source for figure in found):
            raise BadInput(f"figures of {source.name} and of another source: each is kept on its own")
        own = figures.c.source == source.name
        texts = {f.id: short(f.model_dump_json(exclude={"source"}), f"figure {f.id}") for f in found}
        with self.change() as connection:
            there = set(connection.scalars(select(figures.c.id).where(own)))
            gone = sorted(there - texts.keys())
            fresh = [{"id": id, "source": source.name, "json": texts[id]} for id in sorted(texts.keys() - there)]
            known = connection.scalar(select(sources.c.json).where(sources.c.name == source.name))
            if not gone and not fresh and known == source.model_dump_json():
                connection.rollback()
                return 0, 0
            for batch in _batches(gone):
                connection.execute(figures.delete().where(figures.c.id.in_(batch)))
            connection.execute(sources.delete().where(sources.c.name == source.name))
            connection.execute(sources.insert().values(name=source.name, json=source.model_dump_json()))
            return insert_new(connection, figures, fresh), len(gone)

    def figure_ids(self) -> list[str]:
        """Ids of all published figures."""
        with self.begin() as connection:
            return list(connection.scalars(select(figures.c.id).order_by(figures.c.id)))

    def figures(self, source: str | None = None, known: Container[str] = ()) -> list[Figure]:
        """Published figures, of one source or of all, but for those whose ids are `known`."""
        given = cache(Source.model_validate_json)
        query = select(figures.c.id, figures.c.json, sources.c.json).join(sources, sources.c.name == figures.c.source)
        query = query if source is None else query.where(figures.c.source == source)
        with self.begin() as connection:
            rows = connection.execute(query.order_by(figures.c.id)).all()
        return [
            validate(json.loads(text) | {"source": given(whose)}, Figure, f"{self.name}: figure {id}")
            for id, text, whose in rows
            if id not in known
        ]

    def sources(self) -> list[Source]:
        """Where figures come from, by name."""
        with self.begin() as connection:
            found = connection.scalars(select(sources.c.json)).all()
        return sorted(map(Source.model_validate_json, found), key=lambda source: source.name)

    def remove_figures(self, source: str) -> int:
        """Forgets a source and its figures; how many there were. Raises BadInput for an unknown source."""
        with self.change() as connection:
            if not connection.execute(sources.delete().where(sources.c.name == source)).rowcount:
                raise unknown("published table", source, connection.scalars(select(sources.c.name)))
            return connection.execute(figures.delete().where(figures.c.source == source)).rowcount

    @contextmanager
    def change(self) -> Iterator[Connection]:
        """A transaction in which results or figures change: one at a time, in the order of their revisions. Undone by
        an error, and by `rollback` when there was nothing to change. Within it use the connection, not the store."""
        with self.begin() as connection:
            # Before anything else: whoever comes second waits here, and whoever reads this number can read the rest.
            connection.execute(schema.update().values(revision=schema.c.revision + 1))
            yield connection

    def _full_id(self, prefix: str) -> str:
        start, id = prefix.lower(), results.c.id
        found, near = [], []
        if re.fullmatch("[0-9a-f]*", start):  # nothing else begins an id
            with self.begin() as connection:
                found = connection.scalars(select(id).where(*_begins(start)).order_by(id).limit(6)).all()
                if len(found) > 1:
                    count = connection.scalar(select(func.count(id)).where(*_begins(start)))
                    listing = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
                    raise BadInput(f"{count} results start with {prefix!r}: {listing}; type more of the id")
                if not found:
                    near = connection.scalars(select(id).where(*_begins(start[:2]))).all()
        if not found:
            hint = did_you_mean(start, near) or "; `backbench leaderboard --format json` lists them"
            raise BadInput(f"there is no result {prefix[:80]!r}{hint}")
        return found[0]

    def _read(self, *conditions: ColumnElement[bool]) -> list[Result]:
        query = select(results.c.id, results.c.trust, results.c.json).where(*conditions)
        with self.begin() as connection:
            rows = connection.execute(query.order_by(results.c.created, results.c.id)).all()
        return [
            Result.from_json(text, where=f"{self.name}: result {id}").model_copy(update={"trust": trust})
            for id, trust, text in rows
        ]


def _mark(connection: Connection, id: str) -> Mark:
    query = select(results.c.id, results.c.trust, results.c.withdrawn).where(results.c.id == id)
    if (row := connection.execute(query).first()) is None:
        raise BadInput(f"there is no result {id!r}")
    return Mark(*row)


def _begins(prefix: str) -> tuple[ColumnElement[bool], ...]:
    """An id begins so: a range, which an index answers where LIKE reads every row; g comes after every hex digit."""
    return results.c.id >= prefix, results.c.id < prefix + "g"


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE))
