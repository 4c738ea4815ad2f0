"""Figures into a store: what a newer file brings takes the place of what an older one brought."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ...backbones.errors import BadInput
from ...backbones.reading import validate
from ..published import Source
from ..store import Store
from .collecting import Given


@dataclass(frozen=True)
class Change:
    """What an import did to a source: figures that came, that went, and that are there now."""

    source: Source
    added: int
    removed: int
    total: int


def keep(given: Sequence[Given], store: Store, dry: bool = False) -> list[Change]:
    """Keeps what files gave; the same again changes nothing. `dry`: only says what it would do.

    A column (task, data set, metric) of a source is of one import: bringing it anew replaces it whole. What an older
    version of a file, by its name, had brought goes as well, also the columns that the newer one lacks. Raises BadInput
    for files without a figure, and for a source of too many files.
    """
    by_source: dict[str, list[Given]] = defaultdict(list)
    for one in given:
        by_source[one.source.name].append(one)
    if empty := [several[0] for several in by_source.values() if not any(one.figures for one in several)]:
        raise BadInput(f"{empty[0].file}: no figures in it, so nothing would be left of {empty[0].source.name}")
    return [_keep(several, store, dry) for several in by_source.values()]


def _keep(given: list[Given], store: Store, dry: bool) -> Change:
    fresh = [figure for one in given for figure in one.figures]
    files = {name: sha256 for one in given for name, sha256 in one.source.files.items()}
    columns = {figure.column for figure in fresh}
    there = store.figures(given[0].source.name)
    old_files = there[0].source.files if there else {}
    stay = [f for f in there if f.column not in columns and files.get(f.file, old_files[f.file]) == old_files[f.file]]
    used = {figure.file for figure in (*stay, *fresh)}
    known = {name: sha256 for name, sha256 in (old_files | files).items() if name in used}
    newest = given[-1].source
    source = validate(newest.model_dump() | {"files": known}, Source, where=f"source {newest.name}")
    figures = [figure.model_copy(update={"source": source}) for figure in (*stay, *fresh)]
    if dry:
        now, before = {figure.id for figure in figures}, {figure.id for figure in there}
        return Change(source, len(now - before), len(before - now), len(figures))
    added, removed = store.put_figures(figures)
    return Change(source, added, removed, len(figures))
