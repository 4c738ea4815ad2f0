"""Omniglot's one-shot runs: twenty characters seen once, twenty images to be matched (Lake et al. 2015)."""

from functools import partial
from pathlib import Path

import numpy as np

from ...backbones.errors import BadInput
from ..task import Kind
from .card import DatasetCard
from .dataset import Dataset, Split
from .faults import Faults
from .integrity import content_digest
from .pictures import SUFFIXES, Pictures

KEY = "class_labels.txt"


def open_omniglot(card: DatasetCard, kind: Kind) -> Dataset:
    """Episodes `runNN/` of `training/` and `test/` images and `class_labels.txt`; splits `support` and `query`."""
    if strange := [name for name in card.splits if name not in ("support", "query")]:
        raise BadInput(f"dataset {card.name}: splits.{strange[0]}: the splits of one-shot runs are support and query")
    if not card.splits:
        raise BadInput(f"dataset {card.name}: splits: give `support` and `query`, the folder of the runs")
    shown = max(len(_support(run)) for run in _runs(card, next(iter(card.splits))))
    classes = card.classes or tuple(f"character {i + 1}" for i in range(shown))
    return Dataset(card.name, kind, classes, {name: partial(_split, card, name) for name in card.splits})


def _runs(card: DatasetCard, name: str) -> list[Path]:
    folder = card.images(name)
    runs = sorted(p.parent for p in folder.glob(f"*/{KEY}"))
    if not runs:
        raise BadInput(f"dataset {card.name}: {folder} has no run*/{KEY}; unpack all_runs.zip there")
    return runs


def _support(run: Path) -> list[Path]:
    return sorted(p for p in (run / "training").glob("*") if p.suffix.lower() in SUFFIXES)


def _split(card: DatasetCard, name: str) -> Split:
    folder, paths, labels, episodes = card.images(name), [], [], []
    for run in _runs(card, name):
        support = _support(run)
        found = [(path, i) for i, path in enumerate(support)] if name == "support" else _queries(folder, run, support)
        paths += [path for path, _ in found]
        labels += [label for _, label in found]
        episodes += [run.name] * len(found)
    ids = [path.relative_to(folder).as_posix() for path in paths]
    digest = content_digest(Faults(card, name, whole=True), ids, paths, [ids, labels, episodes])
    return Split(Pictures(paths), np.array(labels, np.int64), digest, ids, np.array(episodes))


def _queries(folder: Path, run: Path, support: list[Path]) -> list[tuple[Path, int]]:
    """Each test image and the place of its match, as lines `run01/test/item01.png run01/training/class08.png` say."""
    places = {path: i for i, path in enumerate(support)}
    found = []
    for number, line in enumerate((run / KEY).read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or folder / words[1] not in places or ".." in Path(words[0]).parts:
            raise BadInput(f"{run / KEY}:{number}: a line is a test image and one of {run / 'training'}, got {line!r}")
        found.append((folder / words[0], places[folder / words[1]]))
    return found
