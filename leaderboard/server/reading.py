"""What everybody may read: boards, results, rankings and comparisons, each answer made once a revision."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from fastapi.responses import Response
from pydantic import BaseModel

from ...backbones.errors import BadInput
from ..export.data import as_data
from ..filters import narrowed
from ..result import Trust
from ..snapshot import TRUSTS
from . import schema
from .bodies import Body
from .lanes import Broken, Lane
from .present import Present, Renewal
from .problems import Refused, problems
from .site import Site

Conditions = Annotated[list[Annotated[str, Query(max_length=200, pattern="^[a-z]+=.+$")]] | None, Query(max_length=20)]
MOST = 500  # results on a page
COMPARED = 4  # backbones at once
WAITING = 8  # comparisons that are made or wait to be made
COMPARING = 120.0  # seconds that one may take
Text = Annotated[str | None, Query(max_length=200)]
Word = Annotated[str | None, Query(max_length=100, pattern=r"^[a-z0-9-]+$")]  # no path: it is read from no file
Source = Annotated[str | None, Query(max_length=60, pattern=r"^[a-z0-9][a-z0-9.-]*$")]


def reading(site: Site, renewal: Renewal, lane: Lane) -> APIRouter:
    """The routes; `lane` compares."""
    router = APIRouter(tags=["reading"])

    async def made(request: Request, make: Callable[[Present], Any], *key: Any) -> Response:
        """The answer for what `make` gives of what is present; quick work, in a thread."""
        present = now(renewal)

        async def body() -> Body:
            return await asyncio.to_thread(lambda: Body.json(make(present)))

        return (await present.shelf.get((request.url.path, *key), body)).answer(request)

    @router.get("/boards", **answers(schema.Boards))
    async def boards(request: Request) -> Response:
        """Every board there is: of all runs, of each suite, of each published table."""
        return await made(request, _boards)

    @router.get("/results", **answers(schema.Results))
    async def results(
        request: Request,
        backbone: Text = None,
        task: Text = None,
        dataset: Text = None,
        trust: Trust | None = None,
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST)] = 100,
    ) -> Response:
        """Runs, the newest first, each with its headline score; those that were withdrawn are not among them."""
        asked = {"backbone": backbone, "task": task, "dataset": dataset, "trust": trust}
        return await made(request, lambda p: _results(p, asked, offset, limit), *asked.values(), offset, limit)

    @router.get("/results/{id}", **answers(schema.WholeResult, 404))
    async def result(request: Request, id: Annotated[str, InPath(pattern=schema.START)]) -> Response:
        """One result, whole, withdrawn or not, with everything that was done to it; the beginning of its id will do."""
        # Not of the revision that is present: who has just changed it reads the change.
        return (await asyncio.to_thread(lambda: Body.json(_result(site, id)))).answer(request)

    @router.get("/ranking", **answers(schema.Ranking, 400))
    async def ranking(
        request: Request,
        suite: Word = None,
        source: Source = None,
        family: Word = None,
        where: Conditions = None,
        same: Word = None,
        like: Text = None,
    ) -> Response:
        """The board of a suite, of a published table (`source`), or of all runs; of one `family` of tasks.

        Of some backbones alone, ranked among themselves: those for which all of `where` holds (`family=vit`,
        `params=20M..90M`), and that have the `same` architecture, data, family, images or method as the one named
        `like`.
        """
        if suite and source:
            raise Refused(400, "give a suite or a source, not both", "query.source")

        def make(present: Present) -> Any:
            board = narrowed(site.rank(suite, source, family), where or (), same, like)
            return {"revision": present.revision, "board": as_data(board)}

        return await made(request, make, suite, source, family, tuple(where or ()), same, like)

    @router.get("/compare", **answers(schema.Comparison, 400, 503))
    async def compare(
        request: Request,
        backbone: Annotated[list[Annotated[str, Query(max_length=200)]], Query(min_length=2, max_length=COMPARED)],
        suite: Word = None,
    ) -> Response:
        """Backbones in pairs, over the same test examples; give `backbone` twice or more often."""
        if len(set(backbone)) < len(backbone):
            raise Refused(400, "a backbone is named twice", "query.backbone")
        present = now(renewal)

        async def body() -> Body:
            if lane.callers >= WAITING:
                raise Refused(503, f"{lane.callers} comparisons are being made, come again", after=COMPARING / 4)
            try:
                found = await lane(suite, backbone)
            except Broken as error:
                raise Refused(503, f"the comparison could not be made: {error}", after=COMPARING) from None
            return Body.json({"revision": present.revision, "comparison": found})

        return (await present.shelf.get((request.url.path, suite, *backbone), body)).answer(request)

    return router


def now(renewal: Renewal) -> Present:
    """What is served. Raises Refused while there is nothing yet."""
    if renewal.present is None:
        raise Refused(503, "the board is being made", after=5)
    return renewal.present


def answers(model: type[BaseModel], *statuses: int) -> Any:
    """What a route that gives bytes says of itself: their shape, and which problems it knows."""
    return {"responses": {200: {"model": model}, 304: {"description": "You have it."}, **problems(503, *statuses)}}


def _boards(present: Present) -> Any:
    listing = [
        {
            "suite": suite,
            "source": board.source or None,
            "title": board.title,
            "rows": len(board.rows),
            "ranked": sum(row.standing is not None for row in board.rows),
            "families": list(board.families),
            "columns": [column.key for column in board.columns],
        }
        for suite, board in present.boards
    ]
    return {"revision": present.revision, "boards": listing}


def _results(present: Present, asked: dict[str, str | None], offset: int, limit: int) -> Any:
    s, protocols = present.snapshot, present.snapshot.parsed_protocols
    fits = s.trust != TRUSTS.index("published")
    if (name := asked["backbone"]) is not None:
        fits &= np.isin(s.names, [i for i, known in enumerate(s.named) if known == name])
    for key in ("task", "dataset"):
        if (value := asked[key]) is not None:
            fits &= np.isin(s.protocols, [i for i, p in enumerate(protocols) if getattr(p, key) == value])
    if (trust := asked["trust"]) is not None:
        fits &= s.trust == TRUSTS.index(trust)
    places = np.flatnonzero(fits)[::-1]  # the oldest stand first
    page = []
    shown = places[offset : offset + limit]
    for i, id in zip(shown.tolist(), s.ids[shown].astype(str).tolist(), strict=True):
        p = protocols[s.protocols[i]]
        page.append(
            {
                "id": id,
                "backbone": s.named[s.names[i]],
                **{key: getattr(p, key) for key in ("task", "family", "dataset", "metric", "unit")},
                **{key: float(getattr(s, key)[i]) for key in ("value", "low", "high")},
                "seed": int(s.seeds[i]),
                "trust": TRUSTS[s.trust[i]],
            }
        )
    return {"revision": present.revision, "total": len(places), "offset": offset, "results": page}


def _result(site: Site, id: str) -> Any:
    try:
        found = site.store.by_id(id)
    except BadInput as error:
        raise Refused(404, str(error), "path.id") from None
    history = site.store.history(found.id)
    last = next((event for event in reversed(history) if event.action in ("withdraw", "restore")), None)
    return {
        "result": found.model_dump(mode="json"),
        "withdrawn": last.detail["reason"] if last and last.action == "withdraw" else None,
        "history": [event._asdict() for event in history],
    }
