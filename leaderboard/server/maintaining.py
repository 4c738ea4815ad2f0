"""What maintainers do: set results aside and take them back, judge reruns, read the log."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi import Path as InPath
from sqlalchemy import func, select

from ...backbones.errors import BadInput
from ..store import Store
from ..submission.queue import settle
from ..tables import checks, events
from . import schema
from .callers import Gate
from .present import Renewal
from .problems import Refused, problems
from .tokens import Token

Id = Annotated[str, InPath(pattern=schema.ID)]
Number = Annotated[int, InPath(ge=1, lt=2**31)]
Offset = Annotated[int, Query(ge=0, le=10**9)]
Limit = Annotated[int, Query(ge=1, le=500)]


def maintaining(store: Store, renewal: Renewal, gate: Gate) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["maintaining"])
    maintainer = Depends(gate.maintain)
    known = problems(400, 401, 403, 404, 409)

    async def changed(change: Any, id: str, *args: Any) -> None:
        """Makes a change of the store. Raises Refused: 404 for an unknown result, 409 for what is so already."""
        try:
            await asyncio.to_thread(store.some, [id])
        except BadInput:
            raise Refused(404, f"there is no result {id}", "path.id") from None
        try:
            await asyncio.to_thread(change, id, *args)
        except BadInput as error:
            raise Refused(409, str(error)) from None
        renewal.nudge()

    @router.post("/results/{id}/withdraw", status_code=204, responses=known)
    async def withdraw(id: Id, body: schema.Reason, token: Token = maintainer) -> None:
        """Sets a result aside: it leaves every board, and stays readable with the reason."""
        await changed(store.withdraw, id, body.reason, token.name)

    @router.post("/results/{id}/restore", status_code=204, responses=known)
    async def restore(id: Id, body: schema.Reason, token: Token = maintainer) -> None:
        """Takes a withdrawn result back in."""
        await changed(lambda id, reason, by: store.restore(id, by), id, body.reason, token.name)

    @router.get("/checks", response_model=schema.Checks, responses=problems(401, 403))
    async def listed(
        state: Literal["queued", "running", "done"] | None = None,
        offset: Offset = 0,
        limit: Limit = 100,
        token: Token = maintainer,
    ) -> Any:
        """Results that were drawn to be run again, the oldest first; `backbench verify --rerun` runs one."""
        return await asyncio.to_thread(_checks, store, state, offset, limit)

    @router.post("/checks/{id}", status_code=204, responses=known)
    async def judged(id: Number, body: schema.Outcome, token: Token = maintainer) -> None:
        """Notes what came of a rerun: the result is reproduced or contested from now on, both numbers in its log."""
        await asyncio.to_thread(_settled, store, id, body, token.name)
        renewal.nudge()

    @router.get("/log", response_model=schema.Log, responses=problems(401, 403))
    async def log(offset: Offset = 0, limit: Limit = 100, token: Token = maintainer) -> Any:
        """Every change that was made: when, by whom, what; the newest first."""
        return await asyncio.to_thread(_log, store, offset, limit)

    return router


def _checks(store: Store, state: str | None, offset: int, limit: int) -> Any:
    where = [] if state is None else [checks.c.state == state]
    with store.begin() as connection:
        total = connection.scalar(select(func.count()).select_from(checks).where(*where))
        rows = connection.execute(select(checks).where(*where).order_by(checks.c.id).offset(offset).limit(limit)).all()
    return {"total": total, "offset": offset, "checks": [row._asdict() for row in rows]}


def _settled(store: Store, id: int, said: schema.Outcome, by: str) -> None:
    """Raises Refused: 404 for an unknown check, 409 for one that is done."""
    with store.begin() as connection:
        found = connection.execute(select(checks.c.result_id, checks.c.state).where(checks.c.id == id)).first()
    if found is None:
        raise Refused(404, f"there is no check {id}", "path.id")
    if found.state == "done":
        raise Refused(409, f"check {id} was done already", "path.id")
    settle(store, id, found.result_id, said.outcome, by, said.text, said.rows)


def _log(store: Store, offset: int, limit: int) -> Any:
    with store.begin() as connection:
        total = connection.scalar(select(func.count()).select_from(events))
        newest = select(events).order_by(events.c.id.desc()).offset(offset).limit(limit)
        rows = [
            {key: value for key, value in row._asdict().items() if key != "id"} for row in connection.execute(newest)
        ]
    return {"total": total, "offset": offset, "events": rows}
