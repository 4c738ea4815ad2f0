"""Printing for people and for programs: tables in colour, JSON with stable keys."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ...backbones.errors import BadInput, did_you_mean

FORMATS = ("table", "json", "csv", "markdown")
NUMBER = re.compile(r"-?[\d,.]+[KMGB]?|–")


def pick_format(given: str, known: Sequence[str]) -> str:
    """The format, if there is such a one. Raises BadInput."""
    if given not in known:
        raise BadInput(f"--format {given}: use {', '.join(known)}{did_you_mean(given, known)}")
    return given


def print_json(value: Any) -> None:
    """Strict JSON on stdout: no NaN, no Infinity."""
    json.dump(value, sys.stdout, indent=2, allow_nan=False, default=str, ensure_ascii=False)
    print()


def print_rows(rows: Sequence[Mapping[str, Any]], format: str, title: str | None = None) -> None:
    """Rows with the same keys as a table, as a JSON list of objects, as CSV, or as a Markdown table."""
    if pick_format(format, FORMATS) == "json":
        print_json(list(rows))
    elif format == "csv":
        _print_csv(rows)
    elif format == "markdown":
        _print_markdown(rows)
    else:
        _print_table(rows, title)


def _print_table(rows: Sequence[Mapping[str, Any]], title: str | None) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for index, key in enumerate(rows[0] if rows else ()):
        # Names and ids stay in one piece, to be copied; phrases may go over several lines.
        whole = not any(" " in str(row[key]) for row in rows)
        justify = "right" if _numbers(rows, key) else "left"
        table.add_column(key, justify=justify, overflow="fold", no_wrap=whole, style="" if index else "cyan")
    for row in rows:
        table.add_row(*(cell(value) for value in row.values()))
    console().print(table)


def _print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    import csv

    writer = csv.DictWriter(sys.stdout, list(rows[0]) if rows else [], lineterminator="\n")
    if rows:
        writer.writeheader()
    writer.writerows(rows)


def _print_markdown(rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "|".join("---:" if _numbers(rows, key) else "---" for key in rows[0]) + "|")
    for row in rows:
        print("| " + " | ".join("" if v is None else str(v).replace("|", "\\|") for v in row.values()) + " |")


def print_facts(facts: Mapping[str, Any], format: str) -> None:
    """One thing as `key  value` lines, or as JSON."""
    if pick_format(format, ("table", "json")) == "json":
        print_json(facts)
        return
    import yaml
    from rich.syntax import Syntax

    # Through JSON first: YAML would write tuples and enums with tags of Python's own.
    plain = json.loads(json.dumps(facts, default=str, allow_nan=False))
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100).rstrip()
    if sys.stdout.isatty():
        console().print(Syntax(text, "yaml", background_color="default", word_wrap=True))
    else:
        print(text)


def console(stderr: bool = False, width: int | None = None):
    """A rich console; where the output is not a terminal nothing is cut to 80 columns."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=width or (None if stream.isatty() else 200), highlight=False)


def _numbers(rows: Sequence[Mapping[str, Any]], key: str) -> bool:
    return all(row[key] is None or NUMBER.fullmatch(str(row[key])) for row in rows)


def cell(value: Any) -> str:
    """A value as a table shows it."""
    from rich.markup import escape

    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else escape(str(value))
