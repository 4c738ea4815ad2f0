"""Test images that one backbone gets right and the other wrong, those first of which both were surest."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...backbones.errors import BadInput
from ...leaderboard import Result
from ...tasks import find_task
from ..picture import data_of, stored_predictions
from .figures import thumbnail

SHOWN = 8


@dataclass(frozen=True)
class Example:
    """An image as a data URI, what it shows, and what each said of it with how many percent."""

    image: str
    label: str
    said: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Disagreement:
    """How many of `images` the first alone has right, and the second alone; the first examples of each kind."""

    images: int
    only: tuple[int, int]
    examples: tuple[tuple[Example, ...], tuple[Example, ...]]


def disagreement(sides: Sequence[Sequence[Result]], home: Path) -> Disagreement | None:
    """Of two sides' first seeds; None where predictions keep no probabilities, or are not of the test images."""
    data, split, said, sure, right = data_of(sides[0][0], home), None, [], [], []
    for side in sides:
        predictions = stored_predictions(side[0], home)
        measure = find_task(side[0].task.name).measure(predictions, data)
        if "probabilities" not in predictions or measure.answers is None or measure.labels is None:
            return None
        split = data["test"]
        if len(split) != len(measure.answers):
            return None
        said.append(measure.answers)
        sure.append(100 * predictions["probabilities"][:, 0].astype(float))
        right.append((measure.answers == measure.labels) & (measure.labels >= 0))
    assert split is not None
    labels = np.asarray(split.targets)
    both = sure[0] * sure[1]
    only = [np.flatnonzero(right[i] & ~right[1 - i] & (labels >= 0)) for i in (0, 1)]
    examples = [
        tuple(
            Example(
                thumbnail(split.images[int(i)]),
                data.classes[labels[i]],
                tuple((data.classes[a[i]], float(p[i])) for a, p in zip(said, sure, strict=True)),
            )
            for i in rows[np.argsort(-both[rows], kind="stable")][:SHOWN]
        )
        for rows in only
    ]
    return Disagreement(len(split), (len(only[0]), len(only[1])), (examples[0], examples[1]))


def first_disagreement(rows: Sequence[Sequence[Sequence[Result]]], home: Path) -> Disagreement | None:
    """That of the first row which has one."""
    for sides in rows:
        try:
            if found := disagreement(sides, home):
                return found
        except BadInput:
            continue
    return None
