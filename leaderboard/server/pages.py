"""The page: `/` leads to the newest, /board/REVISION/ is a folder that never changes while somebody looks at it."""

import asyncio
import re
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi import Path as InPath
from fastapi.responses import RedirectResponse, Response

from .bodies import Body
from .present import Page, Renewal
from .problems import Refused

# A browser obeys the page's own policy, which says by digest what may run, and this one: what lies beside the page.
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ASK = {"Cache-Control": "no-cache"}  # what `/` leads to changes
WAITING = """<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="2">
<title>backbench</title><p>The board is being written, one moment.</p></html>
"""


def pages(renewal: Renewal) -> APIRouter:
    """The routes."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def newest(request: Request) -> Response:
        if renewal.page is None:
            return Response(WAITING, headers=ASK, media_type="text/html")
        # What stands behind # in the address, the state of the page, a browser takes along.
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"board/{renewal.page.revision}/{query}", 302, ASK)

    @router.get("/board/{revision}/{path:path}")
    async def file(request: Request, revision: Annotated[int, InPath(ge=0, le=2**63)], path: str) -> Response:
        if path.startswith("api/"):  # asked by someone who takes the page's address for the server's
            return RedirectResponse(f"{'../' * (path.count('/') + 2)}{path}", 302, ASK)
        page = renewal.pages.get(revision)
        if page is None and path == "":
            return RedirectResponse("../../", 302, ASK)
        if page is None:
            raise Refused(404, "the board has changed since; load the page again")
        return await _answer(request, page, path or "index.html")

    return router


async def _answer(request: Request, page: Page, path: str) -> Response:
    # Names as the page has them: no step up, nothing hidden, no other drive.
    if not re.fullmatch(r"(\w[\w.-]*/)*\w[\w.-]*", path, re.ASCII):
        raise Refused(404, "there is no such page")

    async def body() -> Body:
        return await asyncio.to_thread(_read, page, path)

    response = (await page.shelf.get((path,), body)).answer(request)
    if path.endswith(".html"):
        response.headers["Content-Security-Policy"] = POLICY
    return response


def _read(page: Page, path: str) -> Body:
    try:
        return Body.of_file(page.folder / path)
    except OSError:
        raise Refused(404, "there is no such page") from None
