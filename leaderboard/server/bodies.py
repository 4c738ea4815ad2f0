"""Answers that are made once and given many times: bytes, their gzip, and an ETag."""

import asyncio
import gzip
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from mimetypes import guess_type
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import Response

SMALL = 600  # bytes that are not worth packing


@dataclass(frozen=True)
class Body:
    """What is sent: `raw`, or `packed` to who takes gzip; the same bytes have the same `etag`."""

    raw: bytes
    packed: bytes
    etag: str
    media: str

    @classmethod
    def of(cls, raw: bytes, media: str = "application/json") -> "Body":
        """The body of some bytes; slow for large ones."""
        # The tag is weak, as the bytes that travel differ with their encoding.
        packed = gzip.compress(raw, 6, mtime=0) if len(raw) > SMALL else b""
        return cls(raw, packed if len(packed) < len(raw) else b"", f'W/"{sha256(raw).hexdigest()[:24]}"', media)

    @classmethod
    def of_file(cls, path: Path) -> "Body":
        """The body of a file. Raises OSError."""
        media = guess_type(path.name)[0] or "application/octet-stream"
        return cls.of(path.read_bytes(), media + ("; charset=utf-8" if media.startswith("text/") else ""))

    @classmethod
    def json(cls, value: Any) -> "Body":
        """The body of a JSON value: no NaN, no Infinity."""
        return cls.of(json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode())

    def answer(self, request: Request, keep: str = "no-cache") -> Response:
        """200 with the bytes, or 304 to who has them. `keep`: how long a browser may use it without asking."""
        headers = {"ETag": self.etag, "Cache-Control": keep, "Vary": "Accept-Encoding"}
        if _matches(request.headers.get("if-none-match", ""), self.etag):
            return Response(status_code=304, headers=headers)
        if self.packed and _takes_gzip(request.headers.get("accept-encoding", "")):
            return Response(self.packed, headers=headers | {"Content-Encoding": "gzip"}, media_type=self.media)
        return Response(self.raw, headers=headers, media_type=self.media)


class Shelf:
    """Bodies by key, the most recently used kept, up to `size` bytes; asked for at once each is made once.

    `before`: the shelf of the revision before. What was on it is given until it has been made anew: nobody waits for
    what somebody else changed.
    """

    def __init__(self, before: "Shelf | None" = None, size: int = 64 * 1024**2):
        self._size, self._held = size, 0
        self._old: dict[tuple, Body] = {}
        if before:  # what nobody asked for in a whole revision is forgotten
            asked = {key: body for key, body in before._old.items() if key in before._making}
            self._old = asked | before._made
        self._made: OrderedDict[tuple, Body] = OrderedDict()
        self._making: dict[tuple, asyncio.Task[Body]] = {}

    async def get(self, key: tuple, make: Callable[[], Awaitable[Body]]) -> Body:
        """The body of `key`, by `make` if it is not there; what that raises is raised to all who wait."""
        if body := self._made.get(key):
            self._made.move_to_end(key)
            return body
        task = self._making.get(key)
        if task is None:
            task = self._making[key] = asyncio.ensure_future(make())
            task.add_done_callback(lambda done: self._keep(key, done))
        if old := self._old.get(key):
            return old
        return await asyncio.shield(task)  # who goes away does not take it from the others

    def _keep(self, key: tuple, done: "asyncio.Task[Body]") -> None:
        del self._making[key]
        self._old.pop(key, None)
        if done.cancelled() or done.exception():
            return
        self._made[key] = body = done.result()
        self._held += len(body.raw) + len(body.packed)
        while self._held > self._size and self._made:
            _, old = self._made.popitem(last=False)
            self._held -= len(old.raw) + len(old.packed)


def _matches(asked: str, etag: str) -> bool:
    """Whether an If-None-Match names the tag (RFC 9110, weak comparison)."""
    bare = etag.removeprefix("W/")
    return asked.strip() == "*" or any(tag.strip().removeprefix("W/") == bare for tag in asked.split(","))


def _takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding takes gzip: named, or `*`, and not with q=0."""
    weights = {}
    for part in accepted.lower().split(","):
        name, _, weight = part.partition(";")
        weights[name.strip()] = weight.replace(" ", "")
    weight = weights.get("gzip", weights.get("*", "q=0"))
    return not (weight.startswith("q=0") and not weight.strip("q=0."))
