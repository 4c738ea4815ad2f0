"""Commands that rank and compare: leaderboard, compare."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from ...backbones.errors import BadInput
from .exporting import BOARDS, board_as, write
from .output import console, pick_format, print_rows
from .views import RANKING, pick_view, print_view

FORMATS = ("table", *BOARDS, "html")


def leaderboard(
    suite: str | None,
    published: str | None,
    family: str | None,
    sort: str | None,
    format: str,
    output: Path | None,
    home: Path | None,
    database: str | None,
    show: str = RANKING,
    objectives: Sequence[str] = (),
    where: Sequence[str] = (),
    same: str | None = None,
    like: str | None = None,
    line: Sequence[str] = (),
    plot: Path | None = None,
) -> None:
    """`backbench leaderboard`: to the terminal, or to a file; of the backbones that are as asked for."""
    from ...leaderboard import narrowed
    from ..board import leaderboard as build

    pick_view(show, objectives)
    if show != "robustness" and (line or plot):
        raise BadInput(f"{'--line' if line else '--plot'}: goes with --show robustness")
    if pick_format(format, FORMATS) == "html":
        if where or same or like or show != RANKING:
            raise BadInput("--format html: the page filters and plots by itself; leave --where, --same and --show out")
        return _page(suite, published, family, output, home, database)
    found = build(suite, family=family, published=published, home=home, database=database)
    found.board = narrowed(found.board, where, same, like)
    if show != RANKING:
        if output is None:
            return print_view(found.board, show, objectives, format, line, plot)
        with redirect_stdout(StringIO()) as printed:
            print_view(found.board, show, objectives, format, line, plot)
        write(printed.getvalue(), output, format)
        print(f"{show}: {output}")
        return
    if format == "table" and output is None:
        found.print(console(), sort)
        return
    if format == "table":
        screen = console(width=160)
        with screen.capture() as captured:
            found.print(screen, sort)
        content = captured.get()
    else:
        content = board_as(found.board, format, sort)
    write(content, output, format)
    if output:
        print(f"leaderboard: {output}")


def _page(
    suite: str | None,
    published: str | None,
    family: str | None,
    output: Path | None,
    home: Path | None,
    database: str | None,
) -> None:
    """The page: of the board that was asked for, else of every one there is."""
    from ...leaderboard import write_page
    from ..board import boards
    from ..board import leaderboard as build
    from ..home import home_folder, store_of

    if output and output.suffix in (".html", ".htm"):
        raise BadInput(f"--output {output}: the page is a folder with files beside its index.html; name a folder")
    folder = home_folder(home)
    store = store_of(folder, database)
    shown = [] if suite or published or family else boards(store, folder)
    if not shown:  # with nothing at all in the store this says what to do
        shown = [build(suite, family=family, published=published, home=home, database=database).board]
    path = write_page(shown, output or folder / "leaderboard", store.some, store.sources())
    print(f"leaderboard: {path}")


def compare(
    backbones: Sequence[str], suite: str | None, format: str, home: Path | None, database: str | None, plot: Path | None
) -> None:
    """`backbench compare`: every two of the backbones; `plot`: where the critical-difference picture goes."""
    from ..board import leaderboard as build

    pick_format(format, ("table", "json", "csv", "markdown"))
    if twice := [name for i, name in enumerate(backbones) if name in backbones[:i]]:
        raise BadInput(f"{twice[0]} is named twice: compare it with others")
    if len(backbones) < 2:
        raise BadInput("name two backbones or more: backbench compare A B [C…]")
    found = build(suite, home=home, database=database)
    if plot:
        from ...leaderboard import critical_difference, write_difference_picture

        write_difference_picture(critical_difference(found.board, backbones), plot)
    with console(stderr=True).status("comparing stored predictions"):
        differences = found.compare(*backbones)
    several = len(backbones) > 2
    rows = []
    for d in differences:
        better = {"a": d.backbone_a, "b": d.backbone_b, None: "cannot tell"}[d.better]
        row = {"backbone_a": d.backbone_a, "backbone_b": d.backbone_b} if several or format != "table" else {}
        row |= {"task": d.task, "dataset": d.dataset, "score": f"{d.metric} {d.unit}", "a": d.a, "b": d.b}
        numbers = {"difference": d.difference, "low": d.low, "high": d.high}
        doubts = {"test": d.test, "p": d.p, "p_holm": d.p_holm}
        if format == "table":
            row |= {"a": round(d.a, 2), "b": round(d.b, 2)}
            numbers = {key: round(value, 2) for key, value in numbers.items()}
            doubts |= {key: "<0.0001" if p < 0.0001 else f"{p:.4f}" for key, p in (("p", d.p), ("p_holm", d.p_holm))}
        rows.append(row | numbers | doubts | {"better": better})
    of = "" if several else f"a = {backbones[0]}, b = {backbones[1]}: "
    print_rows(rows, format, title=f"{of}differences a - b with 95 % intervals, p Holm-corrected for all {len(rows)}")
    if plot and format == "table":
        print(f"\naverage ranks: {plot}")
