"""The leaderboard of a suite, or of all that was run: what the store holds, ranked by what the suite says."""

from pathlib import Path

from ..backbones import BadInput
from ..backbones.errors import unknown
from ..leaderboard import Asked, Board, Difference, Result, Store, as_table, compare, headline_columns, stored_measure
from ..tasks import Dataset, find_task
from .home import home_folder
from .origin import cards_of, open_dataset
from .suite import Entry, Suite, find_suite, list_suites


class Leaderboard:
    """A ranked board with the predictions behind it. Made by `leaderboard`."""

    def __init__(self, board: Board, home: Path):
        self.board, self.home = board, home

    def compare(self, a: str, b: str) -> list[Difference]:
        """Paired differences a - b of every task that both ran, from stored predictions. Raises BadInput."""
        rows = {row.backbone: row for row in self.board.rows}
        for name in (a, b):
            if name not in rows:
                raise unknown("backbone on this board", name, rows)
        shown = {name: {id for cell in rows[name].cells.values() for id in cell.results} for name in (a, b)}
        of_a, of_b = ([r for r in self.board.results if r.id in shown[name]] for name in (a, b))
        return compare(of_a, of_b, stored_measure(self.home, self._data))

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

    def _data(self, result: Result) -> Dataset:
        _, card = cards_of(result, self.home)
        return open_dataset(card, find_task(result.task.name).needs.data, result.dataset.limit)


def leaderboard(
    suite: str | Suite | None = None, *, family: str | None = None, home: Path | str | None = None
) -> Leaderboard:
    """The board of a suite (name, card or Suite), or of everything run so far. Raises BadInput when nothing was."""
    folder = home_folder(home)
    results = Store(folder / "leaderboard.db").all()
    if isinstance(suite, str):
        suite = find_suite(suite)
    if suite:
        asked = [_asked(key, entry) for key, entry in zip(suite.keys, suite.entries, strict=True)]
        results = [r for r in results if any(one.takes(r) for one in asked)]
        columns = headline_columns(results, asked=asked)
    else:
        # What every suite shows without ranking, as some backbones cannot have it, does not rank here either.
        entries = [entry for name in list_suites() for entry in find_suite(name).entries]
        ranked = {entry.task for entry in entries if entry.ranked}
        columns = headline_columns(results, unranked={entry.task for entry in entries} - ranked)
    title = suite.name if suite else "everything run here"
    if not results:
        start = suite.name if suite else "quick"
        raise BadInput(f"nothing to rank in {folder}: no result of {title} yet; start with `backbench run {start}`")
    board = Board.of(results, columns, title)
    return Leaderboard(board.only(family) if family else board, folder)


def _asked(key: str, entry: Entry) -> Asked:
    dataset = Path(entry.dataset).stem if entry.dataset.endswith((".yaml", ".yml")) else entry.dataset
    return Asked(key, entry.task, dataset, entry.recipe, entry.ranked)
