"""The API's documentation at /docs: Swagger UI out of the package, nothing from elsewhere."""

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response

from .bodies import Body
from .problems import Refused

FOLDER = Path(__file__).parent / "swagger"  # the files of the npm package swagger-ui-dist, and ours that start it
POLICY = (  # Swagger UI sets styles of its own and has its pictures as data
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_docs(app: FastAPI) -> None:
    """The page at /docs, and below it what it loads."""
    files = {path.name: Body.of_file(path) for path in sorted(FOLDER.iterdir())}

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        response = files["index.html"].answer(request)
        response.headers["Content-Security-Policy"] = POLICY
        return response

    @app.get("/docs/{name}", include_in_schema=False)
    async def file(name: str, request: Request) -> Response:
        if name not in files:
            raise Refused(404, f"the documentation has no file {name!r}")
        return files[name].answer(request, keep="public, max-age=86400")
