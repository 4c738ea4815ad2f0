"""The leaderboard of a suite, of all that was run, or of a published table: what the store holds, ranked."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from ..backbones import BadInput
from ..backbones.errors import unknown
from ..leaderboard import (
    Asked,
    Board,
    Difference,
    Result,
    Store,
    as_table,
    compare_all,
    headline_columns,
    stored_measure,
)
from ..leaderboard.published import published_columns
from ..leaderboard.result import Identity
from ..leaderboard.snapshot import Snapshot
from .home import home_folder, store_of
from .picture import data_of
from .suite import Entry, Suite, find_suite, list_suites

EVERYTHING = "everything run here"


class Leaderboard:
    """A ranked board with the store and the predictions behind it. Made by `leaderboard`."""

    def __init__(self, board: Board, store: Store, home: Path):
        self.board, self.store, self.home = board, store, home

    def results_of(self, name: str) -> list[Result]:
        """The records behind a backbone's row. Raises BadInput where it has none."""
        rows = {row.backbone: row for row in self.board.rows}
        if name not in rows:
            raise unknown("backbone on this board", name, rows)
        return self.store.some([id for cell in rows[name].cells.values() for id in cell.results])

    def compare(self, *names: str) -> list[Difference]:
        """Paired differences of every two of them in what both ran, from stored predictions. Raises BadInput."""
        return compare_all([self.results_of(name) for name in names], self.measure)

    @cached_property
    def measure(self) -> Callable:
        """Measures a result's predictions, kept in the home, again."""
        return stored_measure(self.home, lambda result: data_of(result, self.home))

    def place(self, name: str) -> str | None:
        """Where a backbone stands, in words; None while it has no rank."""
        row = next((row for row in self.board.rows if row.backbone == name and row.standing), None)
        if row is None or row.standing is None:
            return None
        standing, of = row.standing, sum(r.standing is not None for r in self.board.rows)
        return f"{name}: rank {standing.rank} of {of} (95 % interval {standing.rank_low} to {standing.rank_high})"

    def print(self, console, sort: str | None = None) -> None:
        """The table, on a rich console."""
        console.print(as_table(self.board, sort=sort))


def leaderboard(
    suite: str | Suite | None = None,
    *,
    family: str | None = None,
    published: str | None = None,
    keep: Callable[[Identity], bool] | None = None,
    home: Path | str | None = None,
    database: str | None = None,
) -> Leaderboard:
    """The board of a suite (name, card or Suite), of everything run so far, or of the `published` table of that name.

    `family`: of one family of tasks alone. `keep`: only backbones that it holds for take part. Raises BadInput when
    there is nothing to rank.
    """
    if suite and published:
        raise BadInput("a suite is of runs, a published table is not: give one of --suite and --published")
    folder = home_folder(home)
    store = store_of(folder, database)
    snapshot = snapshot_of(store, folder)
    suite = find_suite(suite) if isinstance(suite, str) else suite
    board = _of_source(snapshot, store, published, keep) if published else _of_suite(snapshot, suite, keep)
    if board is None:
        start = suite.name if suite else "quick"
        what = suite.name if suite else EVERYTHING
        raise BadInput(f"nothing to rank in {folder}: no result of {what} yet; start with `backbench run {start}`")
    return Leaderboard(board.only(family) if family else board, store, folder)


def boards(store: Store, home: Path) -> list[Board]:
    """Every board: of all that was run, of each packaged suite and each published table with anything in it."""
    snapshot = snapshot_of(store, home)
    suites = [_of_suite(snapshot, suite) for suite in (None, *map(find_suite, list_suites()))]
    return [board for board in (*suites, *(_of_source(snapshot, store, s.name) for s in store.sources())) if board]


def snapshot_of(store: Store, home: Path) -> Snapshot:
    """The store's results in columns, kept in the home."""
    return Snapshot.of_store(store, home / "snapshots" / store.identity)


def _of_suite(snapshot: Snapshot, suite: Suite | None, keep: Callable[[Identity], bool] | None = None) -> Board | None:
    if suite:
        asked = [_asked(key, entry) for key, entry in zip(suite.keys, suite.entries, strict=True) if not entry.pairs]
        columns = headline_columns(snapshot, asked=asked)
    else:
        # What every suite shows without ranking, as some backbones cannot have it, does not rank here either.
        entries = [entry for name in list_suites() for entry in find_suite(name).entries]
        ranked = {entry.task for entry in entries if entry.ranked}
        columns = headline_columns(snapshot, unranked={entry.task for entry in entries} - ranked)
    return Board.of(snapshot, columns, suite.name if suite else EVERYTHING, keep=keep) if columns else None


def _of_source(
    snapshot: Snapshot, store: Store, name: str, keep: Callable[[Identity], bool] | None = None
) -> Board | None:
    sources = {source.name: source for source in store.sources()}
    if name not in sources:
        raise unknown("published table", name, sources)
    columns = published_columns(snapshot, name)
    return Board.of(snapshot, columns, sources[name].title, source=name, keep=keep) if columns else None


def _asked(key: str, entry: Entry) -> Asked:
    dataset = Path(entry.dataset).stem if entry.dataset.endswith((".yaml", ".yml")) else entry.dataset
    return Asked(key, entry.task, dataset, entry.recipe, entry.ranked)
