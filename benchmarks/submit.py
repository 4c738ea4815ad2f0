"""A bundle to hand in: card, results and predictions of one backbone on one suite, each with its digest."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from ..backbones import Backbone, BackboneCard, BadInput
from ..backbones.card import file_digest
from ..leaderboard import Result
from ..tasks import estimate, find_task, read_predictions
from .cell import dataset_of
from .suite import Suite

MANIFEST = "manifest.json"


def destination(to: str | None, home: Path, name: str) -> Path:
    """The folder a bundle will take, checked before anything runs. Raises BadInput."""
    if to and re.match(r"^[a-z][a-z0-9+.-]*://", to):
        raise BadInput(f"--to {to}: a bundle goes to a directory; send that directory to the board's maintainers")
    folder = Path(to).expanduser() if to else home / "submissions"
    target = folder / re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"--to {to}: is a file; name a directory")
    return target


def bundle(card: BackboneCard | Backbone, suite: Suite, report: Any, home: Path, target: Path) -> Path:
    """Write the bundle of a finished run to `target`, whole or not at all. Raises BadInput if it does not hold up."""
    card = card.card if isinstance(card, Backbone) else card
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        (part / "backbone.yaml").write_text(yaml.safe_dump(card.public(), sort_keys=False), encoding="utf-8")
        for result in report.results.values():
            stem = f"{result.task.name}-{result.dataset.name}-{result.seed}-{result.id}"
            (part / f"{stem}.json").write_text(result.to_json(), encoding="utf-8")
            shutil.copyfile(home / result.predictions.path, part / f"{stem}.parquet")
        files = {f.name: file_digest(f) for f in sorted(part.iterdir())}
        manifest = {"format": 1, "suite": suite.name, "backbone": card.name, "sha256": files}
        (part / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        verify(part, report.cells)
        if target.exists():
            shutil.rmtree(target)
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def verify(folder: Path, cells: Any) -> int:
    """Read a bundle back as a receiver would; the number of results whose scores follow from their predictions.

    Raises BadInput naming the file: a digest that differs, a record that is not valid, a score that does not follow.
    """
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for name, expected in manifest["sha256"].items():
        if file_digest(folder / name) != expected:
            raise BadInput(f"{folder / name}: its sha256 is not the one in {MANIFEST}; the file was changed")
    by_id = {cell.id: cell for cell in cells}
    count = 0
    for path in sorted(folder.glob("*.json")):
        if path.name == MANIFEST:
            continue
        result = Result.from_json(path.read_text(encoding="utf-8"), where=str(path))
        stored = path.with_suffix(".parquet")
        if file_digest(stored) != result.predictions.sha256:
            raise BadInput(f"{stored}: not the predictions that {path.name} was scored from")
        task = find_task(result.task.name)
        measure = task.measure(read_predictions(stored), dataset_of(by_id[result.cell_id]))
        for name, score in estimate(measure, seed=0).items():
            if name in result.scores and abs(score.value - result.scores[name].value) > 1e-9:
                raise BadInput(f"{path}: scores.{name}: {result.scores[name].value} does not follow from {stored.name}")
        count += 1
    return count
