"""Results that wait to be run again, and what is noted of them afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import select

from ..result import Result
from ..tables import checks, moment, submissions

if TYPE_CHECKING:
    from ..store import Store

Outcome = Literal["reproduced", "contested", "failed"]


@dataclass(frozen=True)
class Check:
    """A result to run again; `submitter`: the public key of who handed it in, "" where nobody did."""

    id: int
    result: Result
    submitter: str


def waiting(store: "Store") -> list[Check]:
    """All checks that nobody has taken yet, the oldest first."""
    queued = select(checks.c.id, checks.c.result_id, checks.c.submission_id).where(checks.c.state == "queued")
    with store.begin() as connection:
        rows = connection.execute(queued.order_by(checks.c.id)).all()
        details = {
            row.id: row.detail
            for row in connection.execute(
                select(submissions.c.id, submissions.c.detail).where(
                    submissions.c.id.in_([row.submission_id for row in rows])
                )
            )
        }
    found = store.some([row.result_id for row in rows])
    return [
        Check(row.id, result, _submitter(details.get(row.submission_id)))
        for row, result in zip(rows, found, strict=True)
    ]


def take(store: "Store", check: Check) -> bool:
    """Whether the check is ours now: of several who want it at once one gets it."""
    mine = (checks.c.id == check.id) & (checks.c.state == "queued")
    with store.begin() as connection:
        return connection.execute(checks.update().where(mine).values(state="running")).rowcount == 1


def put_back(store: "Store", check: Check) -> None:
    """Lets somebody else take it."""
    with store.begin() as connection:
        connection.execute(checks.update().where(checks.c.id == check.id).values(state="queued"))


def settle(
    store: "Store", check: int, result: str, outcome: Outcome, by: str, text: str, rows: Sequence[dict[str, Any]]
) -> None:
    """Notes what came of a check, with both numbers of every score in the history; marks the result, unless it failed.

    `rows`: a score each, with what it was `then` and is `now`.
    """
    detail = {"outcome": outcome, "said": text, "scores": list(rows), "check": check}
    if outcome == "failed":
        store.log(by, "rerun failed", result, detail)
    else:
        store.set_trust(result, outcome, by, detail)
    with store.begin() as connection:
        done = {"state": "done", "finished": moment(), "detail": detail | {"by": by}}
        connection.execute(checks.update().where(checks.c.id == check).values(**done))


def _submitter(detail: Any) -> str:
    receipt = detail.get("receipt") if isinstance(detail, dict) else None
    return str(receipt.get("submitter", "")) if isinstance(receipt, dict) else ""
