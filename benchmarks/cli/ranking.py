"""Commands that rank and compare: leaderboard, compare."""

from pathlib import Path

from .output import console, pick_format, print_rows

FORMATS = ("table", "json", "csv", "markdown", "html")


def leaderboard(
    suite: str | None, family: str | None, sort: str | None, format: str, output: Path | None, home: Path | None
) -> None:
    """`backbench leaderboard`: to the terminal, or to a file."""
    from ...leaderboard import as_csv, as_json, as_markdown, write_page
    from ..board import leaderboard as build

    pick_format(format, FORMATS)
    found = build(suite, family=family, home=home)
    if format == "table" and output is None:
        found.print(console(), sort)
        return
    if format == "html":
        path = output or found.home / "leaderboard.html"
        write_page(found.board, path)
        print(f"leaderboard: {path}")
        return
    if format == "table":
        screen = console(width=160)
        with screen.capture() as captured:
            found.print(screen, sort)
        text = captured.get()
    else:
        text = {"json": as_json, "csv": as_csv, "markdown": as_markdown}[format](found.board, sort=sort)
    if output is None:
        print(text.rstrip("\n"))
    else:
        _write(output, text)
        print(f"leaderboard: {output}")


def _write(path: Path, text: str) -> None:
    from ...backbones.errors import BadInput

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--output {path}: {error.strerror}") from None


def compare(a: str, b: str, suite: str | None, format: str, home: Path | None) -> None:
    """`backbench compare`."""
    from ..board import leaderboard as build

    pick_format(format, ("table", "json"))
    with console(stderr=True).status("comparing stored predictions"):
        differences = build(suite, home=home).compare(a, b)
    rows = []
    for d in differences:
        better = {"a": a, "b": b, None: "cannot tell"}[d.better]
        row = {"task": d.task, "dataset": d.dataset, "score": f"{d.metric} {d.unit}", "a": d.a, "b": d.b}
        numbers = {"difference": d.difference, "low": d.low, "high": d.high}
        doubts = {"test": d.test, "p": d.p, "p_holm": d.p_holm}
        if format == "table":
            row |= {"a": round(d.a, 2), "b": round(d.b, 2)}
            numbers = {key: round(value, 2) for key, value in numbers.items()}
            doubts |= {"p": round(d.p, 4), "p_holm": round(d.p_holm, 4)}
        rows.append(row | numbers | doubts | {"better": better})
    print_rows(rows, format, title=f"a = {a}, b = {b}: differences a - b with 95 % intervals, p Holm-corrected")
