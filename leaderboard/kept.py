"""Intervals of rankings, kept beside the snapshot: of all that a board needs, drawing them is what takes long."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from .ranking import DRAWS, Ranking, rank

VERSION = 1  # of how intervals are drawn: a change of method is not read from what was kept before it
MOST = 200  # rankings kept; of more the ones that were not asked for the longest go
DRAWN = ("rank_low", "rank_high", "overall_low", "overall_high")


def ranked(
    scores: np.ndarray, low: np.ndarray, high: np.ndarray, families: Sequence[str], seed: int, folder: Path | None
) -> Ranking:
    """`rank` of (n, m) scores; what was drawn for the very same table is read from `folder`, or is kept there."""
    if folder is None:
        return rank(scores, low, high, families, seed=seed)
    path = folder / f"{_name(scores, low, high, families, seed)}.npy"
    found = _read(path, len(scores))
    if found is not None:
        ties = [tuple(marks.split()) for marks in found["ties"].tolist()]
        return replace(rank(scores, None, None, families), ties=ties, **{key: found[key] for key in DRAWN})
    fresh = rank(scores, low, high, families, seed=seed)
    _write(path, fresh)
    return fresh


def _name(scores: np.ndarray, low: np.ndarray, high: np.ndarray, families: Sequence[str], seed: int) -> str:
    said = f"{VERSION} {DRAWS} {seed} {scores.shape} {list(families)}"
    whole = hashlib.sha256(said.encode())
    for table in (scores, low, high):
        whole.update(np.ascontiguousarray(table).data)
    return whole.hexdigest()[:32]


def _read(path: Path, rows: int) -> np.ndarray | None:
    """What was kept; None where nothing is, or where the file is harmed: it will be drawn anew."""
    try:
        found = np.load(path, allow_pickle=False)
        os.utime(path)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.dtype.names == (*DRAWN, "ties") and found.shape == (rows,) else None


def _write(path: Path, ranking: Ranking) -> None:
    """Whole or not at all; where nothing can be written it is drawn anew next time."""
    columns = {key: getattr(ranking, key) for key in DRAWN}
    columns["ties"] = np.array([" ".join(marks) for marks in ranking.ties], str)
    table = np.empty(len(ranking.ties), [(key, values.dtype) for key, values in columns.items()])
    for key, values in columns.items():
        table[key] = values
    part = path.with_name(f".{path.stem}.{os.getpid()}.npy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(part, table, allow_pickle=False)
        part.replace(path)
        kept = sorted(path.parent.glob("*.npy"), key=lambda p: p.stat().st_mtime)
        for old in kept[:-MOST]:
            old.unlink(missing_ok=True)
    except OSError:
        with suppress(OSError):
            part.unlink()
