"""What a data set needs, where that belongs, and which of it is there: looked up without opening any of it."""

import os
from pathlib import Path
from typing import Any

from .card import DatasetCard

SPREAD = {"even": "{}, evenly spread", "first": "the first {}, class by class", "groups": "{}, in whole groups"}
ONCE = ", of scenes with one caption the first"


def inventory(card: DatasetCard) -> dict[str, Any]:
    """`splits` with the sizes that their authors state, `where` the files belong, `files` there or not, `missing`."""
    splits = [
        {"split": name, "images": spec.size, "made_of": _made_of(card, name)} for name, spec in card.splits.items()
    ]
    if card.source == "digit-scenes":
        return {"splits": _composed(card), "where": None, "files": [], "missing": 0}
    if card.source == "hub":
        files = [{"file": card.hub, "there": _cached(card.hub or ""), "splits": list(card.splits)}]
        where: str | None = None
    else:
        start = card.root.parent if card.source == "combined" else card.root
        users: dict[str, list[str]] = {}
        for name in card.splits:
            for path in _files(card, name, start):
                users.setdefault(path, []).append(name)
        files = [{"file": p, "there": _there(start / p), "splits": names} for p, names in users.items()]
        where = str(start)
    missing = sum(not file["there"] for file in files)
    return {"splits": splits, "where": where, "files": files, "missing": missing}


def _files(card: DatasetCard, name: str, start: Path) -> list[str]:
    """What a split needs, relative to `start`: what it names, or the split of another card that it is."""
    spec = card.splits[name]
    if card.source != "combined" or spec.from_:
        return list(spec.files)
    from .combined import part

    other, split = part(card, name)
    source = other.splits[split].from_ if split in other.splits else None
    specs = [other.splits[n] for n in (source, split) if n in other.splits]
    return [os.path.relpath(other.root / file, start) for own in specs for file in own.files]


def _made_of(card: DatasetCard, name: str) -> str:
    spec = card.splits[name]
    if spec.from_:
        share = f"{100 * (spec.fraction or 0):g} % of {spec.from_}"
        return SPREAD[spec.take].format(share)
    parts = [*spec.files]
    if spec.card or spec.split:
        parts.append(f"split {spec.split or name}" + (f" of {spec.card}" if spec.card else ""))
    if spec.where:
        wanted = {column: (v,) if isinstance(v, str) else v for column, v in spec.where.items()}
        parts.append("where " + ", ".join(f"{column} is {' or '.join(v)}" for column, v in wanted.items()))
    if spec.per_class:
        parts.append(f"at most {spec.per_class} a class")
    return ", ".join(parts)


def _composed(card: DatasetCard) -> list[dict[str, Any]]:
    from .digit_scenes import PLANS

    return [
        {"split": name, "images": plan.count, "made_of": f"composed for {kind}" + ONCE * (kind == "pairs")}
        for kind in card.kind
        for name, plan in PLANS[kind].items()
    ]


def _there(path: Path) -> bool:
    """A file, or a folder with something in it."""
    return any(path.iterdir()) if path.is_dir() else path.is_file()


def _cached(hub: str) -> bool:
    """Whether that commit of a hub data set is in either of the two caches that its client keeps."""
    from huggingface_hub.constants import HF_HOME, HF_HUB_CACHE

    name, _, commit = hub.partition("@")
    prepared = Path(os.environ.get("HF_DATASETS_CACHE") or Path(HF_HOME) / "datasets") / name.replace("/", "___")
    downloaded = Path(HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}" / "snapshots" / commit
    return downloaded.is_dir() or any(p.is_dir() for p in prepared.glob(f"*/*/{commit}"))
