"""What goes around every answer: security headers, a limit on how often one address may ask, and on what it sends."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .limits import RateLimit
from .problems import answer

READS = ("GET", "HEAD", "OPTIONS")
SECURE = {
    # A page or the documentation says more exactly what it may load; everything else is data and loads nothing.
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """ASGI middleware: adds `SECURE` where the answer says nothing else; counts the reads of an address in `reads`.

    It turns away what is announced to be larger than `largest` bytes, by path, else `most`; what is sent without
    announcement is the routes' to count.
    """

    def __init__(self, app: ASGIApp, reads: RateLimit, largest: dict[str, int], most: int):
        self.app, self.reads, self.largest, self.most = app, reads, largest, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURE.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["method"] in READS and (seconds := self.reads.wait(address(scope))):
            after = {"Retry-After": str(max(1, round(seconds)))}
            return await answer(429, "too many requests from this address", headers=after)(scope, receive, secured)
        most, length = self.largest.get(scope["path"], self.most), Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or int(length) > most:
            told = f"the body has {length[:20]} bytes, at most {most:,} are taken here"
            return await answer(413, told, "header.content-length")(scope, receive, secured)
        await self.app(scope, receive, secured)


def address(scope: Scope) -> str:
    """Where a request comes from."""
    client = scope.get("client")
    return client[0] if client else "unknown"
