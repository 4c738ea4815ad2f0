"""How a bundle comes in: to disk in chunks, into a queue, and through a check in a process of its own."""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...backbones.errors import BadInput, NotApplicable, Unavailable
from .lanes import Broken, Lane, Stopped
from .ledger import Ledger, State, Submission
from .limits import Limits
from .problems import Refused

log = logging.getLogger(__name__)
PATIENCE = 30  # seconds to wait for the next chunk of an upload
LONGEST = 3600  # seconds that an upload may take: it holds a place in the queue
COME_BACK = 30  # seconds after which a queue that was full may have room


class Intake:
    """The queue of bundles, kept in `folder` until each is decided; a server that died goes on with it when it starts.

    `receive(archive, by, id)`: checks a bundle and keeps its results; gives its `receipt`, or `findings` against it,
    one line each. It runs elsewhere, so it is picklable. `changed` is called when results came in.
    """

    def __init__(
        self, folder: Path, ledger: Ledger, receive: Callable[..., Any], limits: Limits, changed: Callable[[], None]
    ):
        self._folder, self._ledger, self._limits, self._changed = folder, ledger, limits, changed
        self._lanes = [Lane(receive, limits.seconds) for _ in range(limits.checkers)]
        self._queue: asyncio.Queue[Submission] = asyncio.Queue()
        self._taken = 0  # in the queue, in a lane or on their way to the disk
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Takes up what is undecided, and begins to check."""
        self._folder.mkdir(parents=True, exist_ok=True)
        mine = [s for s in await asyncio.to_thread(self._ledger.undecided) if self._archive(s.id).is_file()]
        known = {self._archive(submission.id) for submission in mine}
        for path in self._folder.iterdir():
            if path not in known:  # its sender never heard that it arrived
                path.unlink()
        for submission in mine:
            self._taken += 1
            self._queue.put_nowait(submission)
        self._tasks = [asyncio.create_task(self._check(lane)) for lane in self._lanes]

    async def stop(self) -> None:
        """What is being checked is left for the next start."""
        for lane in self._lanes:
            await lane.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def waiting(self) -> int:
        """How many are not decided yet."""
        return self._taken

    async def take(self, chunks: AsyncIterator[bytes], by: str) -> Submission:
        """Puts a bundle on disk and into the queue. Raises Refused when there is no room."""
        if self._taken >= self._limits.queued:
            raise Refused(503, f"{self._taken} submissions wait to be checked, there is no room", after=COME_BACK)
        self._taken += 1
        id = secrets.token_hex(8)
        part = self._folder / f"{id}.part"
        try:
            facts = await _written(chunks, part)
            part.replace(self._archive(id))
            submission = await asyncio.to_thread(self._ledger.open, id, by, facts)
        except BaseException:
            self._taken -= 1
            part.unlink(missing_ok=True)
            self._archive(id).unlink(missing_ok=True)
            raise
        self._queue.put_nowait(submission)
        return submission

    def _archive(self, id: str) -> Path:
        return self._folder / f"{id}.zip"

    async def _check(self, lane: Lane) -> None:
        while True:
            submission = await self._queue.get()
            try:
                await self._decide(submission, lane)
            except Stopped:
                return
            except Exception:  # of the ledger: the database is away
                log.exception("submission %s", submission.id)
                asyncio.get_running_loop().call_later(COME_BACK, self._queue.put_nowait, submission)
            else:
                self._taken -= 1

    async def _decide(self, submission: Submission, lane: Lane) -> None:
        archive, id = self._archive(submission.id), submission.id
        await asyncio.to_thread(self._ledger.move, id, "checking", submission.detail)
        try:
            said = await lane(archive, submission.by, id)
            state: State = "refused" if "findings" in said else "accepted"
        except (Broken, BadInput, NotApplicable, Unavailable) as error:
            line = " ".join(str(error).replace(f"{self._folder}/", "").split())
            state, said = "failed", {"findings": [f"the check could not be finished: {line}"]}
            log.error("submission %s: %s", id, line)
        await asyncio.to_thread(self._ledger.move, id, state, submission.detail | said)
        if state == "accepted":
            self._changed()
        archive.unlink(missing_ok=True)


async def _written(chunks: AsyncIterator[bytes], path: Path) -> dict[str, Any]:
    """Writes what comes to `path`, down to the disk; its size and sha256. Raises Refused for nothing, or too slow."""
    size, digest = 0, sha256()
    with path.open("wb") as file:
        try:
            async with asyncio.timeout(LONGEST):
                while True:
                    async with asyncio.timeout(PATIENCE):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        break
                    size += len(chunk)
                    digest.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
        except TimeoutError:
            told = f"nothing came for {PATIENCE} seconds, or not all of it in {LONGEST}; send it again"
            raise Refused(408, told) from None
        await asyncio.to_thread(lambda: (file.flush(), os.fsync(file.fileno())))
    if not size:
        raise Refused(400, "the body is empty; send the zip that `backbench submit` writes", "body")
    return {"bytes": size, "sha256": digest.hexdigest()}
