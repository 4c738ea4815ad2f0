"""Run a stored result's cell again, from the images on, and say whether it comes out the same."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..backbones import BackboneCard, BadInput, Loading
from ..leaderboard import Result
from ..leaderboard.cells import TIMED
from ..tasks import find_task
from ..tasks.datasets import DatasetCard
from .cell import Job, compute, device_name
from .home import store_of
from .origin import cards_of, strangers_cards, was_run_here
from .plan import Cell, plan
from .suite import Entry, Suite

LOOSENESS = 0.25  # of the 95 % interval's width: what another machine's arithmetic may move a score by
FLOOR = 0.0005  # of the metric's range, for scores whose interval has no width
BOUND = 1000  # a range beyond it only says that there is no end: the score itself takes its place
SEEDS = 100  # a suite has no more


@dataclass
class Verdict:
    """What a rerun found: one row a score, and the reason in words. `ran`: whether the cell could be run at all."""

    result: str
    reproduced: bool
    text: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    ran: bool = True


def rerun_result(
    result_id: str, home: Path, device: str, database: str | None = None, source: str | None = None
) -> Verdict:
    """Compute the cell of a result again with an empty feature bank; `source`: where somebody else's record is.

    Nobody's trust changes by this: a rerun by whoever ran it first shows that it is deterministic, not that it is true.
    Raises BadInput for an unknown id.
    """
    if source:
        from .records import record

        old = record(result_id, source)
        return rerun_record(old, strangers_cards(old, home), home, device)
    old = store_of(home, database).by_id(result_id)
    return rerun_record(old, cards_for(old, home), home, device)


def cards_for(old: Result, home: Path) -> tuple[BackboneCard, DatasetCard]:
    """The cards of a result in one's own store: as they were kept, or, of one that was handed in, from its record."""
    return cards_of(old, home) if was_run_here(old, home) else strangers_cards(old, home)


def rerun_record(old: Result, cards: tuple[BackboneCard, DatasetCard], home: Path, device: str) -> Verdict:
    """Compute the cell that a record describes, from `cards`, with an empty feature bank."""
    cell, changes = rebuild(old, cards, home, device)
    if changes:
        return Verdict(old.id, False, "not reproducible here: " + "; ".join(changes), ran=False)
    assert cell is not None
    with tempfile.TemporaryDirectory(dir=home, prefix="rerun-") as scratch:
        new = compute(cell, Job(Path(scratch), device), Path(scratch) / "cell", lambda *_: None)
    return judge(old, new)


def judge(old: Result, new: Result) -> Verdict:
    """Compare two results of one cell, score by score."""
    task, rows, all_fine = find_task(old.task.name), [], True
    for name, before in old.scores.items():
        after = new.scores.get(name)
        if after is None:
            all_fine = False
            rows.append({"score": f"{name} {before.unit}", "then": round(before.value, 4), "now": None,
                         "difference": None, "tolerance": None, "verdict": "OUTSIDE"})  # fmt: skip
            continue
        # The narrower interval decides, and its ends must come out again too: a record may claim any width.
        now, width = after.value, min(before.high - before.low, after.high - after.low)
        scale = after.range_high - after.range_low
        if scale > BOUND:
            scale = max(abs(before.value), abs(now))
        tolerance, ends = max(FLOOR * scale, LOOSENESS * width), ("value", "low", "high")
        if noise := task.metric(name).noise:  # what is timed: how steady it was is no more alike than the machine's day
            tolerance, ends = max(tolerance, noise * max(abs(before.value), abs(now))), ("value",)
        fine = all(abs(getattr(after, end) - getattr(before, end)) <= tolerance for end in ends)
        all_fine &= fine
        rows.append(
            {
                "score": f"{name} {before.unit}",
                "then": round(before.value, 4),
                "now": round(now, 4),
                "difference": round(now - before.value, 4),
                "tolerance": round(tolerance, 4),
                "verdict": "OUTSIDE" if not fine else "same" if now == before.value else "within",
            }
        )
    if new.scores == old.scores and new.predictions.sha256 == old.predictions.sha256:
        return Verdict(old.id, True, "reproduced, bit for bit", rows)
    differing = _differences(old, new)
    because = f" ({'; '.join(differing)})" if differing else " (same versions, same device)"
    if all_fine:
        return Verdict(old.id, True, f"reproduced within tolerance{because}", rows)
    outside = ", ".join(row["score"] for row in rows if row["verdict"] == "OUTSIDE")
    return Verdict(old.id, False, f"NOT reproduced: {outside} outside tolerance{because}", rows)


def rebuild(
    old: Result, cards: tuple[BackboneCard, DatasetCard], home: Path, device: str
) -> tuple[Cell | None, list[str]]:
    """The cell of a result as it is today, or the reasons why it is not the same cell any more: of what is timed,
    another device is one."""
    backbone, dataset = cards
    if old.seed >= SEEDS:
        raise BadInput(f"result {old.id}: seed: {old.seed}, seeds are 0 to {SEEDS - 1}")
    entry = Entry(task=old.task.name, dataset="", recipe=old.recipe)
    suite = Suite(name="rerun", description="one cell", entries=(entry,))
    loading = Loading(**old.backbone.loading)  # type: ignore[arg-type]
    how = {"limit": old.dataset.limit, "dataset": dataset, "loading": loading, "device": device}
    cells = plan(suite, [backbone], home, seeds=old.seed + 1, **how)
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
    if old.task.family == TIMED and old.cost.device != (here := device_name(device)):
        changes.append(f"it was timed on {old.cost.device}, this is {here}")
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
