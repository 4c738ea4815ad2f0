"""Printing for people and for programs: tables in colour, JSON with stable keys."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ...backbones.errors import BadInput, did_you_mean


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
    """Rows with the same keys as a table, or as a JSON list of objects."""
    if pick_format(format, ("table", "json")) == "json":
        print_json(list(rows))
        return
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for key in rows[0] if rows else ():
        number = all(isinstance(row[key], int | float) or row[key] is None for row in rows)
        # Names and ids stay in one piece, to be copied; phrases may go over several lines.
        whole = not any(" " in str(row[key]) for row in rows)
        table.add_column(key, justify="right" if number else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console().print(table)


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
    return Console(stderr=stderr, width=width or (None if stream.isatty() else 160), highlight=False)


def _cell(value: Any) -> str:
    from rich.markup import escape

    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else escape(str(value))
