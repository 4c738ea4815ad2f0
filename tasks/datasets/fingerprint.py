"""Fingerprints of splits that a plan can know without reading or composing anything, once they were taken."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock

from ...backbones.errors import BadInput
from ...backbones.reading import digest
from .card import ABOUT, DatasetCard
from .dataset import Dataset
from .faults import tell

MEMO = "fingerprints.json"


def fingerprints(data: Dataset, splits: Iterable[str], home: Path) -> dict[str, str]:
    """The content fingerprint of each split, by name; remembered in `home` for as long as nothing it hangs on changes.

    A data set without `stamp` (made in Python, say) is asked each time.
    """
    keys = {name: _key(data, name) for name in splits}
    known = _read(home / MEMO)
    found, fresh = {}, {}
    for name, key in keys.items():
        if not key or key not in known:
            known[key] = {"fingerprint": data[name].fingerprint, "told": data[name].told}
            fresh |= {key: known[key]} if key else {}
        tell(known[key]["told"])  # what a lenient reading left out is told each time
        found[name] = known[key]["fingerprint"]
    if fresh:
        _add(home / MEMO, fresh)
    return found


def file_stamp(card: DatasetCard, split: str) -> Any:
    """What decides a split of files: the card, and the name, size in bytes and date (ns) of every file it names."""
    spec = card.splits[split]
    own = card.splits[spec.from_] if spec.from_ else spec
    paths = dict.fromkeys((*own.files, *spec.files))
    says = card.model_dump(mode="json", exclude={"name", "prompts", "descriptions", *ABOUT})
    return {"card": says, "root": str(card.root), "files": [f for path in paths for f in _files(card, path)]}


def _files(card: DatasetCard, path: str) -> list[tuple[str, int, int]]:
    start = card.root / path
    if not start.exists():
        raise BadInput(f"dataset {card.name}: {start}: no such file or folder; {card.mend}")
    names = [start] if start.is_file() else sorted(Path(top) / f for top, _, found in os.walk(start) for f in found)
    return [(p.relative_to(start).as_posix(), (s := p.stat()).st_size, s.st_mtime_ns) for p in names if p.exists()]


def _key(data: Dataset, split: str) -> str:
    return digest([data.kind, split, data.limit, data.stamp(split)]) if data.stamp else ""


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        known = json.loads(path.read_text())
        return {key: {"fingerprint": one["fingerprint"], "told": one["told"]} for key, one in known.items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return {}


def _add(path: Path, fresh: dict[str, dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.write_text(json.dumps(_read(path) | fresh, indent=1))
        part.replace(path)
