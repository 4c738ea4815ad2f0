"""What a data set needs, where that belongs, and which of it is there: looked up without opening any of it."""

import os
from pathlib import Path
from typing import Any

from .card import DatasetCard

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
        users: dict[str, list[str]] = {}
        for name, spec in card.splits.items():
            for path in spec.files:
                users.setdefault(path, []).append(name)
        files = [{"file": p, "there": _there(card.root / p), "splits": names} for p, names in users.items()]
        where = str(card.root)
    missing = sum(not file["there"] for file in files)
    return {"splits": splits, "where": where, "files": files, "missing": missing}


def _made_of(card: DatasetCard, name: str) -> str:
    spec = card.splits[name]
    if spec.from_:
        share = f"{100 * (spec.fraction or 0):g} % of {spec.from_}"
        return f"the first {share}, class by class" if spec.take == "first" else f"{share}, evenly spread"
    parts = [*spec.files, *([f"split {spec.split}"] if spec.split else [])]
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
