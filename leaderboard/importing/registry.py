"""Which formats there are, and files read as one of them."""

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from ...backbones.errors import BadInput, unknown
from ..published import Figure
from .collecting import About, Given
from .reading import read_table
from .table import Layout

FORMATS = {"timm": "timm", "open-clip": "open_clip", "clip-benchmark": "clip_benchmark", "csv": "table"}  # → module


def read_files(format: str, files: Sequence[Path], about: About, layout: Layout | None = None) -> list[Given]:
    """The figures of all files; `layout` is for `csv`. Raises BadInput, also where two files contradict each other.

    What two files of a source both have is given once, by the first.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS, where="backbench import")
    if layout not in (None, Layout()) and format != "csv":
        raise BadInput(f"backbench import {format}: knows its tables; how to read one is for `backbench import csv`")
    names = [path.name for path in files]
    if again := [name for name in names if names.count(name) > 1]:
        raise BadInput(f"two files are named {again[0]}: a figure says by the name which one it is from; rename one")
    module = import_module(f".{FORMATS[format]}", __package__)
    tables = [read_table(path) for path in files]
    extra = (layout or Layout(),) if format == "csv" else ()
    return _agreeing(module.read(tables, about, *extra))


def _agreeing(given: Sequence[Given]) -> list[Given]:
    seen: dict[tuple, Figure] = {}
    agreed = []
    for one in given:
        figures = []
        for figure in one.figures:
            key = figure.source.name, figure.backbone.name, *figure.column
            first = seen.setdefault(key, figure)
            if first is figure:
                figures.append(figure)
            elif first.value != figure.value:
                raise BadInput(
                    f"{figure.backbone.name} has {first.value:g} on {figure.dataset} in {first.file} and "
                    f"{figure.value:g} in {figure.file}; leave one out, or give it a --source of its own"
                )
        again = len(one.figures) - len(figures)
        note = (f"{again:,} figures are the same as in a file before",) if again else ()
        agreed.append(replace(one, figures=figures, notes=(*one.notes, *note)))
    return agreed
