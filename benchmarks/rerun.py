"""Run a stored result's cell again, from the images on, and say whether it comes out the same."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..backbones import Loading
from ..leaderboard import Result, Store
from .cell import Job, compute
from .origin import cards_of
from .plan import Cell, plan
from .suite import Entry, Suite

LOOSENESS = 0.25  # of the 95 % interval's width: what another machine's arithmetic may move a score by
FLOOR = 0.05  # in the score's unit, for scores whose interval has no width


@dataclass
class Verdict:
    """What a rerun found: one row a score, and the reason in words."""

    result: str
    reproduced: bool
    text: str
    rows: list[dict[str, Any]] = field(default_factory=list)


def rerun_result(result_id: str, home: Path, device: str) -> Verdict:
    """Compute the cell of a result again with an empty feature bank. Raises BadInput for an unknown id."""
    old = Store(home / "leaderboard.db").by_id(result_id)
    cell, changes = rebuild(old, home)
    if changes:
        return Verdict(old.id, False, "not reproducible here: " + "; ".join(changes))
    assert cell is not None
    with tempfile.TemporaryDirectory(dir=home, prefix="rerun-") as scratch:
        new = compute(cell, Job(Path(scratch), device), Path(scratch) / "cell", lambda *_: None)
    return judge(old, new)


def judge(old: Result, new: Result) -> Verdict:
    """Compare two results of one cell, score by score."""
    rows, all_fine = [], True
    for name, before in old.scores.items():
        now = new.scores[name].value
        tolerance = max(FLOOR, LOOSENESS * (before.high - before.low))
        fine = abs(now - before.value) <= tolerance
        all_fine &= fine
        rows.append(
            {
                "score": f"{name} {before.unit}",
                "then": round(before.value, 4),
                "now": round(now, 4),
                "difference": round(now - before.value, 4),
                "tolerance": round(tolerance, 4),
                "verdict": "same" if now == before.value else "within" if fine else "OUTSIDE",
            }
        )
    same_bits = all(new.scores[n].value == s.value for n, s in old.scores.items())
    if same_bits and new.predictions.sha256 == old.predictions.sha256:
        return Verdict(old.id, True, "reproduced, bit for bit", rows)
    differing = _differences(old, new)
    because = f" ({'; '.join(differing)})" if differing else " (same versions, same device)"
    if all_fine:
        return Verdict(old.id, True, f"reproduced within tolerance{because}", rows)
    outside = ", ".join(row["score"] for row in rows if row["verdict"] == "OUTSIDE")
    return Verdict(old.id, False, f"NOT reproduced: {outside} outside tolerance{because}", rows)


def rebuild(old: Result, home: Path) -> tuple[Cell | None, list[str]]:
    """The cell of a result as it is today, or the reasons why it is not the same cell any more."""
    backbone, dataset = cards_of(old, home)
    entry = Entry(task=old.task.name, dataset="", recipe=old.recipe)
    suite = Suite(name="rerun", description="one cell", entries=(entry,))
    loading = Loading(**old.backbone.loading)  # type: ignore[arg-type]
    cells = plan(suite, [backbone], home, seeds=old.seed + 1, limit=old.dataset.limit, dataset=dataset, loading=loading)
    cell = cells[-1]
    if cell.id == old.cell_id:
        return cell, []
    changes = []
    if cell.card.digest() != old.backbone.card_digest:
        changes.append(f"the card or weights of {old.backbone.name} changed")
    for split, fingerprint in old.dataset.fingerprints.items():
        if cell.fingerprints.get(split) != fingerprint:
            changes.append(f"split {split} of {old.dataset.name} is not the same data")
    if cell.recipe != old.recipe:
        keys = sorted(k for k in cell.recipe.keys() | old.recipe.keys() if cell.recipe.get(k) != old.recipe.get(k))
        changes.append(f"the recipe's defaults changed: {', '.join(keys)}")
    return None, changes or [f"{old.task.name} is at another version than {old.task.version}, or class names changed"]


def _differences(old: Result, new: Result) -> list[str]:
    """How the two machines differ: library versions and device."""
    found = []
    for name in sorted(new.environment.keys() | old.environment.keys()):
        before, now = old.environment.get(name, "absent"), new.environment.get(name, "absent")
        if before != now:
            found.append(f"{name} {before} then, {now} now")
    if old.cost.device != new.cost.device:
        found.append(f"{old.cost.device} then, {new.cost.device} now")
    return found
