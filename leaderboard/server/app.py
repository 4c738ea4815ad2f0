"""The server: the page, the API and its documentation, put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI

from . import schema
from .callers import Gate
from .docs import add_docs
from .headers import Guard
from .intake import Intake
from .lanes import Lane
from .ledger import Ledger
from .limits import RateLimit
from .maintaining import maintaining
from .pages import pages
from .present import Renewal
from .problems import Problem, only_known, problems, tell_problems
from .reading import COMPARING, reading
from .site import Site
from .submitting import submitting

ABOUT = """Results, rankings and comparisons of vision backbones, and the way to hand new ones in.

Answers carry an `ETag`: send it back as `If-None-Match`, and get 304 while nothing changed. Every problem is
`application/problem+json` with one line in `detail` and, where it is about a value, its path in `field`."""
BODY = 64 * 1024  # bytes of a request that hands nothing in


def make_app(site: Site) -> FastAPI:
    """The ASGI application. While it runs it keeps its answers up with the store, and checks what is handed in."""
    ledger, renewal, comparing = Ledger(site.store), Renewal(site), Lane(site.compare, COMPARING)
    intake = Intake(site.home / "incoming", ledger, site.receive, site.limits, renewal.nudge)
    gate = Gate(site.store, RateLimit(site.limits.changes))

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        try:
            await renewal.start()
            await intake.start()
            yield
        finally:
            await intake.stop()
            await renewal.stop()
            await comparing.close()

    app = FastAPI(
        title="backbench",
        description=ABOUT,
        version=version("backbench"),
        lifespan=running,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        max_body_size=BODY,
    )
    bundles = {"/api/v1/submissions": site.limits.upload}
    app.add_middleware(Guard, reads=RateLimit(site.limits.reads), largest=bundles, most=BODY)
    tell_problems(app, site.home)
    api = APIRouter(prefix="/api/v1", dependencies=[Depends(only_known)])
    api.include_router(reading(site, renewal, comparing))
    api.include_router(submitting(intake, ledger, gate, site.limits))
    api.include_router(maintaining(site.store, renewal, gate))
    app.include_router(api)

    @app.get(
        "/health",
        response_model=schema.Health,
        responses=problems(),
        tags=["reading"],
        dependencies=[Depends(only_known)],
    )
    async def health() -> Any:
        """Whether the server is well, and what it serves."""
        present, page = renewal.present, renewal.page
        return {
            "status": "behind" if renewal.behind else "ok",
            "version": app.version,
            "revision": present.revision if present else 0,
            "page": page.revision if page else None,
            "results": len(present.snapshot) if present else 0,
            "waiting": intake.waiting,
        }

    add_docs(app)
    app.include_router(pages(renewal))
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """Puts the shape of a problem into the OpenAPI description, and takes FastAPI's own shape of one out."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            shapes = plain()["components"]["schemas"]
            shapes["Problem"] = Problem.model_json_schema()
            for name in ("HTTPValidationError", "ValidationError"):
                shapes.pop(name, None)
        return app.openapi_schema or {}

    app.openapi = described  # type: ignore[method-assign]
