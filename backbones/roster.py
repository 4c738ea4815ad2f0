"""Who is on the roster: facts of every card, listed and filtered without importing a library.

`roster.json` holds them, measured; after a change of cards or libraries it is made again, in some minutes, by

    python -m backbench.backbones.roster
"""

import json
import re
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from .errors import BadInput, unknown

CARDS = Path(__file__).parent / "cards"
FILE = Path(__file__).parent / "roster.json"
FIELDS = ("name", "source", "family", "method", "data", "params", "macs", "input_size", "embed_dim", "text_tower")
FIELDS += ("license", "paper")

Row = dict[str, Any]  # FIELDS and their values; None where nobody knows without the weights' own config


def rows(libraries: bool = False) -> list[Row]:
    """A row a card, by name; with `libraries` also every name of weights that the libraries ship, unmeasured."""
    roster = json.loads(FILE.read_text(encoding="utf-8"))
    known = roster["cards"]
    names = set(packaged())
    if names - known.keys() or entry_points(group="backbench.backbones"):  # cards of plugins, or not measured yet
        from .registry import list_backbones

        names |= set(list_backbones())
    found = {name: _row(name, known[name]) if name in known else _unmeasured(name) for name in names}
    if libraries:
        for name, (family, method, data, size, license) in roster["libraries"].items():
            facts = {"family": family, "method": method, "data": data, "license": license, "input": {"size": size}}
            found.setdefault(name, _row(name, facts | {"source": name.partition("/")[0]}))
    return [found[name] for name in sorted(found)]


def packaged() -> list[str]:
    """Names of the cards that come with backbench: their paths."""
    return sorted(path.relative_to(CARDS).as_posix().removesuffix(".yaml") for path in CARDS.rglob("*.yaml"))


def select(every: Sequence[Row], params: str | None = None, **wanted: str | None) -> list[Row]:
    """The rows whose source, family, method and data are as `wanted`, and whose parameters lie in `params`.

    `data` is all of what a network was trained on, in order: imagenet-1k is not imagenet-21k + imagenet-1k.
    Raises BadInput for a value that no row has, with the nearest ones.
    """
    found = list(every)
    for field, value in wanted.items():
        if value is None:
            continue
        value = " + ".join(part.strip() for part in value.lower().split("+"))
        values = {str(row[field]) for row in every if row[field]}
        if value not in values:
            raise unknown(field, value, values, where=f"--{field}")
        found = [row for row in found if row[field] == value]
    if params is not None:
        low, high = size_range(params)
        found = [row for row in found if row["params"] is not None and low <= row["params"] <= high]
    return found


def size_range(text: str, where: str = "--params ") -> tuple[float, float]:
    """Both ends of `20M..90M`, `..30M` or `300M..`. Raises BadInput, naming `where` it was written."""
    number = r"(\d+(?:\.\d+)?)([kmbg]?)"
    match = re.fullmatch(rf"(?:{number})?\.\.(?:{number})?", text.strip().lower())
    if match is None or text.strip() == "..":
        raise BadInput(f"{where}{text}: write a range, such as ..30M, 20M..90M or 300M..")
    low, low_unit, high, high_unit = match.groups()
    unit = {None: 1, "": 1, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9}
    ends = float(low or 0) * unit[low_unit], float(high or "inf") * unit[high_unit]
    if ends[0] > ends[1]:
        raise BadInput(f"{where}{text}: the smaller end comes first")
    return ends


def _row(name: str, facts: Row) -> Row:
    facts = facts | {"name": name, "input_size": (facts.get("input") or {}).get("size")}
    return {field: facts.get(field) for field in FIELDS}


def _unmeasured(name: str) -> Row:
    """What a card says of itself."""
    from .registry import find_backbone

    card = find_backbone(name)
    how = card.pretraining
    facts = card.model_dump(include={"source", "family", "license", "paper", "input"})
    return _row(name, facts | {"method": how and how.method, "data": how and how.data})


if __name__ == "__main__":
    from .measuring import write

    write(FILE)
