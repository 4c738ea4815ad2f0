"""What becomes of every bundle that was handed in: rows of the table `submissions`, one state after another."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import func, select

from ..store import Store
from ..tables import moment, submissions

Decided = Literal["accepted", "refused", "failed"]
State = Literal["queued", "checking", "accepted", "refused", "failed"]


@dataclass(frozen=True)
class Submission:
    """A bundle that was handed in. `detail`: its size and digest, then the receipt or what was found wrong with it."""

    id: str
    received: str
    by: str
    backbone: str
    suite: str
    state: State
    detail: dict[str, Any]


class Ledger:
    """Submissions in a store. Whoever receives a bundle notes in its row what it is of."""

    def __init__(self, store: Store):
        self._store = store

    def open(self, id: str, by: str, detail: dict[str, Any]) -> Submission:
        """Notes a bundle that lies on disk and waits to be checked."""
        row = {"id": id, "received": moment(), "by": by, "backbone": "", "suite": "", "state": "queued"}
        with self._store.begin() as connection:
            connection.execute(submissions.insert().values(**row, detail=detail))
        self._store.log(by, "uploaded", id, detail)
        return Submission(**row, detail=detail)  # type: ignore[arg-type]

    def move(self, id: str, state: State, detail: dict[str, Any]) -> None:
        """Notes what has become of one that is not decided."""
        open_one = submissions.c.id == id, submissions.c.state.not_in(get_args(Decided))
        with self._store.begin() as connection:
            connection.execute(submissions.update().where(*open_one).values(state=state, detail=detail))

    def find(self, id: str) -> Submission | None:
        """The one of this id."""
        found = self._read(submissions.c.id == id)
        return found[0] if found else None

    def undecided(self) -> list[Submission]:
        """Those that wait, or were being checked when a server went down; the oldest first."""
        return self._read(submissions.c.state.not_in(get_args(Decided)))[::-1]

    def page(self, by: str | None, state: State | None, offset: int, limit: int) -> tuple[int, list[Submission]]:
        """How many there are, and some of them, the newest first; `by`: of one token alone."""
        where = [] if by is None else [submissions.c.by == by]
        if state == "checking":  # and what a receiver calls its own steps
            where.append(submissions.c.state.not_in(("queued", *get_args(Decided))))
        elif state:
            where.append(submissions.c.state == state)
        with self._store.begin() as connection:
            total = connection.scalar(select(func.count()).select_from(submissions).where(*where)) or 0
        return total, self._read(*where, offset=offset, limit=limit)

    def _read(self, *where: Any, offset: int = 0, limit: int | None = None) -> list[Submission]:
        newest = select(submissions).where(*where).order_by(submissions.c.received.desc(), submissions.c.id)
        with self._store.begin() as connection:
            return [_submission(row) for row in connection.execute(newest.offset(offset).limit(limit))]


def _submission(row: Any) -> Submission:
    state = row.state if row.state in get_args(State) else "checking"
    return Submission(row.id, row.received, row.by, row.backbone, row.suite, state, row.detail)
