"""What goes wrong, told as JSON (RFC 9457): one line, the field it is about, never a traceback."""

import logging
import re
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from ...backbones.errors import BadInput, NotApplicable, Unavailable, did_you_mean

log = logging.getLogger(__name__)
MEDIA = "application/problem+json"
MEANING = {
    400: "What was asked makes no sense.",
    401: "No token, or one that is unknown, expired or revoked.",
    403: "The token's scope does not allow it.",
    404: "There is no such thing.",
    408: "The body came too slowly.",
    409: "It has been done already.",
    413: "The body is larger than the server takes.",
    415: "The body is not of the kind that is taken here.",
    422: "The request does not have the form that is described here.",
    429: "Too many requests; `Retry-After` says when to come again.",
    503: "Too busy; `Retry-After` says when to come again.",
}


class Problem(BaseModel):
    """What went wrong. `detail`: in one line; `field`: the path of the value it is about."""

    status: int
    detail: str
    field: str | None = None


class Refused(Exception):
    """An answer that is a problem: HTTP status, one line, the field it is about; `after`: seconds to wait."""

    def __init__(self, status: int, detail: str, field: str | None = None, after: float | None = None):
        super().__init__(detail)
        self.status, self.detail, self.field, self.after = status, detail, field, after


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For `responses=` of a route: the problems it may answer with, beside those that every route has."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {s: {"description": MEANING[s], "content": {MEDIA: schema}} for s in sorted({422, 429, *statuses})}


def answer(status: int, detail: str, field: str | None = None, headers: dict[str, str] | None = None) -> JSONResponse:
    """The response that tells of a problem."""
    line = " ".join(detail.split())[:2000]
    body = Problem(status=status, detail=line, field=field).model_dump(mode="json")
    return JSONResponse(body, status, headers, MEDIA)


def only_known(request: Request) -> None:
    """Raises Refused for a parameter that the route does not have: who mistypes a filter must not get the whole."""
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            hint = did_you_mean(name, known) or f"; there are: {', '.join(sorted(known)) or 'none'}"
            raise Refused(422, f"query.{name[:100]}: there is no such parameter{hint}", f"query.{name[:100]}")


def tell_problems(app: FastAPI, home: Path) -> None:
    """Every error of `app` becomes a problem. Of `home`, where state lives, nobody outside is told."""

    def bad_input(_: Request, error: Exception) -> JSONResponse:
        if isinstance(error, Unavailable):  # the database, most likely, and where it is is nobody's business
            log.error("%s", error)
            return answer(
                503, "something that the server needs is away; its log says more", headers={"Retry-After": "10"}
            )
        option, name = re.match(r"--(\w+)", str(error)), None
        if option:  # told as for the command line
            name = f"query.{ {'as': 'like'}.get(option[1], option[1]) }"
        return answer(400, str(error).replace(str(home), "home"), name)

    def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refused)
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
        if error.after is not None:
            headers["Retry-After"] = str(max(1, round(error.after)))
        return answer(error.status, error.detail, error.field, headers)

    def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        return answer(422, f"{field}: {first['msg'].removeprefix('Value error, ')}", field)

    def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return answer(error.status_code, str(error.detail), headers=dict(error.headers or {}))

    def unexpected(_: Request, error: Exception) -> JSONResponse:
        # Starlette raises it again after this answer, so that the server's log has it whole.
        return answer(500, f"unexpected {type(error).__name__}; the server's log says more")

    for kind in (BadInput, Unavailable, NotApplicable):
        app.add_exception_handler(kind, bad_input)
    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)
