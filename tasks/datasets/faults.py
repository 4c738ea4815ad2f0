"""What is wrong with a split: the first fault is refused or, where the card says `strict: false`, left out and told."""

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from multiprocessing import parent_process

import numpy as np

from ...backbones.errors import BadInput
from ...backbones.reading import digest
from ..home import where_home
from .card import DatasetCard
from .dataset import Split

NAMED = 3  # faults that a line names; a file has all of them

Id = str | int
Found = tuple[str, Id]
"""What a fault is of: "image", "annotation" or "object", and its id."""


class Faults:
    """The faults of one split. A strict reading raises the first; a lenient one keeps them for `spare`.

    `whole`: for data whose images need one another, so that none can be left out.
    `seen` counts what the split has of each kind beside images.
    """

    def __init__(self, card: DatasetCard, split: str, *, whole: bool = False):
        self.card, self.split, self.whole = card, split, whole
        self.strict = card.strict or whole
        self.seen = Counter[str]()
        self.found: dict[Found, str] = {}

    @contextmanager
    def of(self, kind: str, id: Id) -> Iterator[None]:
        """Inside, a BadInput is a fault of this one alone."""
        try:
            yield
        except BadInput as error:
            self.add({(kind, id): str(error)})

    def add(self, faults: Mapping[Found, str], said: str = "") -> None:
        """Takes a line a fault. A strict reading raises BadInput: `said`, or else the first line."""
        for (kind, id), line in faults.items():
            if self.strict:
                way = f" (to leave out such {kind}s: --lenient, or `strict: false` on its card)"
                raise BadInput(_one_line(said or line) + ("" if self.whole else way))
            self.found.setdefault((kind, id), _one_line(line))

    def spoiled(self, image: Id) -> bool:
        """Whether an image is to be left out."""
        return ("image", image) in self.found

    def spare(self, split: Split) -> Split:
        """The split without images that have faults; of another fingerprint where anything at all was left out.

        That is told in one line on stderr, and named whole in a file. Raises BadInput where nothing is left.
        """
        if not self.found:
            return split
        kept = [row for row, image in enumerate(split.ids) if not self.spoiled(image)]
        lines = tuple(self.found.values())
        out = Counter(kind for kind, _ in self.found)
        total = self.seen + Counter(image=len(kept) + out["image"])
        counts = " and ".join(f"{n:,} of {total[kind]:,} {kind}s" for kind, n in sorted(out.items()))
        said = f"dataset {self.card.name}: split {self.split}: {counts} left out: {self.named(lines)}"
        if any(n >= total[kind] for kind, n in out.items()):
            raise BadInput(f"{said}; nothing would be left")
        tell(said)
        rest = split if len(kept) == len(split) else split.rows(np.array(kept), split.fingerprint)
        mark = digest([list(found) for found in self.found])[:16]
        return replace(rest, fingerprint=f"{split.fingerprint}:without-{mark}", left_out=lines, told=said)

    def named(self, lines: Sequence[str]) -> str:
        """The first few, and the file in home that names all of them."""
        some = ", ".join([*lines[:NAMED], *(["…"] if len(lines) > NAMED else [])])
        if self.strict and len(lines) <= NAMED:
            return some
        name = re.sub(r"[^\w.-]+", "-", f"{self.card.name or 'images'}-{self.split}")
        record = where_home(self.card.home) / "broken" / f"{name}.txt"
        try:
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")
        except OSError:
            return some
        return f"{some} (all are named in {record})"


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())  # an id, or the name of a file, may have several


@cache
def tell(line: str) -> None:
    """Says it once, if it is anything; a worker process says nothing: the one that planned its cells has said it."""
    if line and parent_process() is None:
        print(f"backbench: {line}", file=sys.stderr)
