"""The board in a terminal of any width: what does not fit beside goes below, nothing is cut."""

from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from .board import Board, Row
from .listing import Field, shown, sorted_rows

ALWAYS = ("rank", "ties", "backbone")  # the columns that every block begins with


@dataclass(frozen=True)
class BoardTable:
    """A board to print with rich."""

    board: Board
    sort: str | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = sorted_rows(self.board, self.sort)
        if not rows:
            yield Text("no results yet: `backbench run quick` makes some")
            return
        known = shown(self.board, self.sort)
        head = [f for f in known if f.key in ALWAYS]
        rest = [f for f in known if f.key not in ALWAYS]
        widest = [max(rows, key=lambda row: cell_len(f.text(row))) for f in known]  # all that decides what fits
        while rest:
            block = [rest.pop(0)]
            while rest and self._fits([*head, *block, rest[0]], widest, console, options):
                block.append(rest.pop(0))
            yield self._block([*head, *block], rows, options)
            yield ""
        yield from self._footer(rows)

    def _block(self, columns: list[Field], rows: list[Row], options: ConsoleOptions) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
        for f in columns:
            header = Text(f.label.replace("-", "-\n").replace(" ", "\n"))
            if f.words:
                # Only a name may be folded, and only where it would take more than half of the terminal.
                table.add_column(header, overflow="fold", max_width=max(20, options.max_width // 2))
            else:
                table.add_column(header, justify="right", no_wrap=True)
        best = {f.key: f.best_rows(rows) for f in columns}
        for row, following in zip(rows, [*rows[1:], None], strict=True):
            last_ranked = row.standing is not None and following is not None and following.standing is None
            style = "" if row.standing else "dim"
            cells = [Text(f.text(row), style="bold" if row.backbone in best[f.key] else style) for f in columns]
            table.add_row(*cells, end_section=last_ranked)
        return table

    def _fits(self, columns: list[Field], rows: list[Row], console: Console, options: ConsoleOptions) -> bool:
        unlimited = options.update(width=100_000)
        return Measurement.get(console, unlimited, self._block(columns, rows, options)).maximum <= options.max_width

    def _footer(self, rows: list[Row]) -> RenderResult:
        for row in rows:
            if row.missing and self.board.families:
                yield Text(f"{row.backbone} is not ranked: no {', '.join(row.missing)}", style="dim")
        for row in rows:
            if twins := [name for name in self.board.twins(row) if name > row.backbone]:
                yield Text(f"{row.backbone} and {', '.join(twins)} hold the same weights", style="dim")
            if how := row.loading:
                yield Text(f"{row.backbone} ran with {', '.join(f'{k} {v}' for k, v in how.items())}", style="dim")
        notes = "z over ranked rows, mean per family, then over families"
        if any(cell.half is not None for row in rows for cell in row.cells.values()):
            notes = f"± half a 95 % interval · {notes}"
        if any(r.standing and r.standing.ties for r in rows):
            notes += " · rows sharing a tie letter cannot be told apart"
        if unranked := [c.key for c in self.board.columns if not c.ranked]:
            notes += f" · shown, not ranked: {', '.join(unranked)}"
        if self.board.source:
            notes += f" · figures as {self.board.source} has them, not run here"
        if "reported" in (trusts := {row.trust for row in rows}) and len(trusts) > 1:
            notes += " · unverified: nobody but who ran it has computed the scores"
        if self.board.left_out:
            notes += f" · {len(self.board.left_out)} results left out as not comparable"
        yield Text(notes, style="dim")


def as_table(board: Board, sort: str | None = None, family: str | None = None) -> BoardTable:
    """The board to `rich.print`; `family` keeps, and ranks by, one task family. Raises BadInput for unknown names."""
    board = board.only(family) if family else board
    sorted_rows(board, sort)  # an unknown column is said here, not in the middle of printing
    return BoardTable(board, sort)
