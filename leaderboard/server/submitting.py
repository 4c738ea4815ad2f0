"""Handing in: a bundle comes in, and whoever sent it sees what becomes of it."""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi import Path as InPath

from . import schema
from .callers import Gate
from .intake import Intake
from .ledger import Ledger, State
from .limits import Limits
from .problems import Refused, problems
from .tokens import Token

MEDIA = "application/zip"
BODY = {
    "required": True,
    "description": "The zip of a bundle, as `backbench submit` writes it.",
    "content": {MEDIA: {"schema": {"type": "string", "format": "binary"}}},
}


def submitting(intake: Intake, ledger: Ledger, gate: Gate, limits: Limits) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/submissions", tags=["submitting"])
    submitter = Depends(gate.submit)

    @router.post(
        "",
        status_code=202,
        response_model=schema.SubmissionState,
        openapi_extra={"requestBody": BODY},
        responses=problems(400, 401, 403, 408, 413, 415, 503),
        max_body_size=limits.upload,
    )
    async def submit(request: Request, response: Response, token: Token = submitter) -> Any:
        """Takes a bundle in; `GET` its `Location` to see what is found."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != MEDIA:
            raise Refused(415, f"send the bundle as {MEDIA}", "header.content-type")
        submission = await intake.take(request.stream(), token.name)
        response.headers["Location"] = f"{request.scope.get('root_path', '')}/api/v1/submissions/{submission.id}"
        return asdict(submission)

    @router.get("", response_model=schema.Submissions, responses=problems(401, 403))
    async def submissions(
        state: State | None = None,
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        token: Token = submitter,
    ) -> Any:
        """What was handed in by this token; by anyone, for a maintainer. The newest first."""
        mine = None if token.allows("maintain") else token.name
        total, found = await asyncio.to_thread(ledger.page, mine, state, offset, limit)
        return {"total": total, "offset": offset, "submissions": [asdict(s) for s in found]}

    @router.get("/{id}", response_model=schema.SubmissionState, responses=problems(401, 403, 404))
    async def submission(id: Annotated[str, InPath(pattern=schema.ID)], token: Token = submitter) -> Any:
        """What has become of one."""
        found = await asyncio.to_thread(ledger.find, id)
        if found is None or not (token.allows("maintain") or found.by == token.name):
            raise Refused(404, f"there is no submission {id} of yours", "path.id")
        return asdict(found)

    return router
