"""Apples to apples: which backbones of a board take part, chosen before anything is ranked."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import get_args

from ..backbones.errors import BadInput, unknown
from ..backbones.roster import size_range
from .board import Board, Row
from .listing import TRUST
from .pretraining import pretraining_images
from .result import Identity, Trust

TAGGED = ("timm", "open_clip", "torchvision")  # sources that write the name of the weights behind the architecture
AS_MANY = 2.0  # numbers of pretraining images are alike up to this factor


def architecture(who: Identity) -> str | None:
    """The network without the name of its weights: `vit_base_patch16_224` of `vit_base_patch16_224.mae`."""
    model = who.fact("model")
    return re.split(r"[.@]", model)[0] if model and who.fact("source") in TAGGED else model


FACTS: dict[str, Callable[[Row], str | None]] = {
    "architecture": lambda row: architecture(row.facts),
    "data": lambda row: row.facts.fact("data"),
    "family": lambda row: row.facts.fact("family"),
    "license": lambda row: row.facts.fact("license"),
    "method": lambda row: row.facts.fact("method"),
    "source": lambda row: row.facts.fact("source"),
    "trust": lambda row: row.trust,
}
SIZES: dict[str, Callable[[Row], int | None]] = {
    "params": lambda row: row.facts.parameters,
    "macs": lambda row: row.facts.macs,
    "images": lambda row: pretraining_images(row.facts),
}
ALIKE = ("architecture", "data", "family", "images", "method")


def narrowed(board: Board, where: Iterable[str] = (), same: str | None = None, like: str | None = None) -> Board:
    """The board of those of its backbones for which all holds, ranked anew among themselves.

    `where`: `KEY=VALUE` with a key of FACTS, or of SIZES with a range (`params=20M..90M`); of one key given several
    times one value must hold. `same`: what they have in common with the backbone named `like`, one of ALIKE; equally
    many pretraining `images` is up to a factor of two. Columns that none of them has a score in are left out. Raises
    BadInput, also where nobody is left.
    """
    conditions = list(where)
    rules = [*_stated(board, conditions), *_shared(board, same, like)]
    if not rules:
        return board
    rows = [row for row in board.rows if all(rule(row) for rule in rules)]
    if not rows:
        asked = [*conditions, *([f"the same {same} as {like}"] if same else [])]
        raise BadInput(f"none of the {len(board.rows)} backbones on this board is so: {', '.join(asked)}")
    names = {row.backbone for row in rows}
    columns = [c for c in board.columns if any(c.key in row.cells for row in rows)]
    return Board.of(board.snapshot, columns, board.title, source=board.source, keep=lambda who: who.name in names)


def _stated(board: Board, conditions: Iterable[str]) -> Iterable[Callable[[Row], bool]]:
    wanted = defaultdict(list)
    for condition in conditions:
        key, equals, value = (part.strip() for part in condition.partition("="))
        if not equals or not value:
            raise BadInput(f"--where {condition}: write KEY=VALUE, such as family=vit or params=..30M")
        if key not in FACTS and key not in SIZES:
            raise unknown("key", key, [*FACTS, *SIZES], where="--where")
        wanted[key].append(value)
    for key, values in wanted.items():
        yield _within(key, values) if key in SIZES else _one_of(board, key, values)


def _within(key: str, ranges: list[str]) -> Callable[[Row], bool]:
    ends = [size_range(text, f"--where {key}=") for text in ranges]

    def holds(row: Row) -> bool:
        size = SIZES[key](row)
        return size is not None and any(low <= size <= high for low, high in ends)

    return holds


def _one_of(board: Board, key: str, values: list[str]) -> Callable[[Row], bool]:
    known = {_plain(fact) for row in board.rows if (fact := FACTS[key](row))}
    if key == "trust":  # also one that no row has, and by the name that people are told
        known |= {*get_args(Trust)}
        values = [next((one for one, told in TRUST.items() if told == value.lower()), value) for value in values]
    for value in values:
        if _plain(value) not in known:
            raise unknown(key, value, known, where="--where")
    wanted = {_plain(value) for value in values}
    return lambda row: _plain(FACTS[key](row) or "") in wanted


def _shared(board: Board, same: str | None, like: str | None) -> Iterable[Callable[[Row], bool]]:
    if same is None and like is None:
        return
    if same is None or like is None:
        raise BadInput("--same and --as go together: --same architecture --as timm/resnet50.a1_in1k")
    if same not in ALIKE:
        raise unknown("key", same, ALIKE, where="--same")
    model = next((row for row in board.rows if row.backbone == like), None)
    if model is None:
        raise unknown("backbone on this board", like, [row.backbone for row in board.rows], where="--as")
    stated = (SIZES if same in SIZES else FACTS)[same](model)
    if stated is None:
        raise BadInput(f"--as {like}: its card does not say its {same}")
    if same in FACTS:
        yield lambda row: FACTS[same](row) == stated
    else:
        yield lambda row: (size := SIZES[same](row)) is not None and 1 / AS_MANY <= size / int(stated) <= AS_MANY


def _plain(value: str) -> str:
    """As it is compared: without capitals, and with one space around each plus."""
    return " + ".join(part.strip() for part in value.lower().split("+"))
