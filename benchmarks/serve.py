"""What the server of floor 3 is given: boards of suites, comparisons, the page, and the receiver of bundles."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..leaderboard import Board, Store
from ..leaderboard.comparison import compare_all
from ..leaderboard.server.limits import Limits
from ..leaderboard.server.site import Listed, Site
from ..leaderboard.submission import Refused, receive
from .board import boards, leaderboard, snapshot_of
from .suite import list_suites


@dataclass(frozen=True)
class House:
    """A home and its store, as the processes of a server open them."""

    home: Path
    database: str | None

    @property
    def store(self) -> Store:
        """The store, its connections kept."""
        return _store(self.home, self.database)

    def boards(self) -> list[Board]:
        """All boards there are."""
        return boards(self.store, self.home)

    def render(self, folder: Path) -> None:
        """Writes the page."""
        from ..leaderboard import write_page

        write_page(self.boards(), folder, self.store.some, self.store.sources())

    def compare(self, suite: str | None, names: Sequence[str]) -> Any:
        """A comparison as JSON values. Raises BadInput."""
        board = leaderboard(suite, home=self.home, database=self.database)
        return [asdict(d) for d in compare_all([board.results_of(name) for name in names], board.measure)]

    def receive(self, archive: Path, by: str, submission: str) -> dict[str, Any]:
        """Takes a bundle in; its receipt, or what was found against it."""
        try:
            return {
                "receipt": receive(archive, self.store, self.home, by, submission=submission).model_dump(mode="json")
            }
        except Refused as error:
            return {"findings": error.findings}


@cache
def _store(home: Path, database: str | None) -> Store:
    return Store(database or home / "leaderboard.db", pooled=True)


def site_of(home: Path, database: str | None, limits: Limits) -> Site:
    """What a server of a home and its store serves. Raises BadInput and Unavailable for the store."""
    house = House(home, database)

    def listed() -> list[Listed]:
        suites = list_suites()
        return [Listed(b.title if b.title in suites and not b.source else None, b) for b in house.boards()]

    def rank(suite: str | None, source: str | None, family: str | None) -> Board:
        return leaderboard(suite, published=source, family=family, home=home, database=database).board

    return Site(
        home=home,
        store=house.store,
        snapshot=lambda: snapshot_of(house.store, home),
        boards=listed,
        rank=rank,
        render=house.render,
        compare=house.compare,
        receive=house.receive,
        limits=limits,
    )
