"""What is served now: everything of one revision of the store; while a newer one is made, the old one is served."""

import asyncio
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..snapshot import Snapshot
from .bodies import Shelf
from .lanes import Lane, Stopped
from .site import Listed, Site

log = logging.getLogger(__name__)
LOOK = 1.0  # seconds between two looks at the store's revision
REST = 2.0  # the page is made again only after so many times as long as it took to make it
AGAIN = 60.0  # seconds until it is tried again where that failed
KEPT = 3  # pages, the newest among them
WRITING = 1800.0  # seconds that the page may take


@dataclass(frozen=True, eq=False)
class Present:
    """One revision: results in columns, boards, and the answers that were made of them."""

    revision: int
    snapshot: Snapshot
    boards: Sequence[Listed]
    shelf: Shelf


@dataclass(frozen=True, eq=False)
class Page:
    """The page of one revision: a folder, and its files as far as they were asked for."""

    revision: int
    folder: Path
    shelf: Shelf = field(default_factory=Shelf)


class Renewal:
    """Keeps `present` and `page` up with the store; `nudge` says that something changed."""

    def __init__(self, site: Site):
        self._site, self._lane = site, Lane(site.render, WRITING)
        self._folder = site.home / "served"
        self.present: Present | None = None
        self.pages: dict[int, Page] = {}  # by revision; the newest, and those that somebody may be looking at
        self._changed, self._looked, self._written = asyncio.Event(), True, True
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Makes what is served first; the page follows."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        await self._look()
        self._tasks = [asyncio.create_task(self._keep_looking()), asyncio.create_task(self._keep_writing())]

    async def stop(self) -> None:
        """Ends the work; nothing is lost by it."""
        await self._lane.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def page(self) -> Page | None:
        """The newest page."""
        return next(reversed(self.pages.values()), None)

    @property
    def behind(self) -> bool:
        """Whether something keeps the newest revision, or its page, from being served."""
        return not (self._looked and self._written)

    def nudge(self) -> None:
        """Look now."""
        self._changed.set()

    async def _keep_looking(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            started = time.monotonic()
            await self._look()
            await asyncio.sleep(time.monotonic() - started)  # at most half of the time goes into it

    async def _look(self) -> None:
        try:
            revision = await asyncio.to_thread(self._site.store.revision)
            if self.present is None or revision != self.present.revision:
                self.present = await asyncio.to_thread(self._made, revision)
            self._looked = True
        except Exception:  # whatever is wrong with a revision, the one before is served on
            if self._looked:
                log.exception("the newest revision cannot be served")
            self._looked = False

    def _made(self, revision: int) -> Present:
        before = self.present.shelf if self.present else None
        return Present(revision, self._site.snapshot(), self._site.boards(), Shelf(before))

    async def _keep_writing(self) -> None:
        while True:
            now = self.present.revision if self.present else -1
            if now == (self.page.revision if self.page else -1):
                await asyncio.sleep(LOOK / 4)
                continue
            started, folder = time.monotonic(), self._folder / str(now)
            try:
                await self._lane(folder)
            except Stopped:
                return
            except Exception:
                log.exception("the page of revision %s cannot be written", now)
                self._written = False
                await asyncio.sleep(AGAIN)
                continue
            self.pages[now], self._written = Page(now, folder), True
            while len(self.pages) > KEPT:
                old = self.pages.pop(next(iter(self.pages)))
                await asyncio.to_thread(shutil.rmtree, old.folder, ignore_errors=True)
            await asyncio.sleep(max(LOOK, REST * (time.monotonic() - started)))
