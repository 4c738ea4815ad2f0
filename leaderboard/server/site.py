"""What a server is given by the house above it: where results are, how boards are made, how a bundle is received."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..board import Board
from ..snapshot import Snapshot
from ..store import Store
from .limits import Limits


class Listed(NamedTuple):
    """A board, and the suite it is of; None for all runs and for published tables."""

    suite: str | None
    board: Board


class Ranks(Protocol):
    """Makes one board: of a suite, of a published table, or of everything run; raises BadInput for an unknown one."""

    def __call__(self, suite: str | None, source: str | None, family: str | None) -> Board: ...


@dataclass(frozen=True)
class Site:
    """`boards`: all there are; `rank`: one of them, of a family of tasks alone. Both are quick.

    Work that is not runs in processes of its own, so these are picklable: `render(folder)` writes the page; `compare(
    suite, names)` gives the JSON of a comparison; `receive(archive, by, id)` takes a bundle in and gives its
    `receipt`, or `findings` against it, one line each.
    """

    home: Path
    store: Store
    snapshot: Callable[[], Snapshot]
    boards: Callable[[], Sequence[Listed]]
    rank: Ranks
    render: Callable[[Path], None]
    compare: Callable[[str | None, Sequence[str]], Any]
    receive: Callable[[Path, str, str], dict[str, Any]]
    limits: Limits = field(default_factory=Limits)
