"""Results as runs of Weights & Biases: a copy for people who look there, never a source of truth.

Other processes do it: one writes offline runs under home/wandb, `wandb sync` sends them where there is an account. So
neither a missing network nor a fault of wandb can hold up a cell or change how a run ends.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..backbones import Unavailable
from ..backbones.reading import digest
from ..tasks.training.curve import read_curves
from .result import Result
from .submission.files import predictions_file

PROJECT = "backbench"  # where $WANDB_PROJECT names none
TAG = 64  # characters, the most that wandb takes
PATIENCE = 600  # seconds for writing, and again for sending; what was not sent stays, and is sent the next time


def require_wandb() -> None:
    """Raises Unavailable where wandb is not installed."""
    if find_spec("wandb") is None:
        raise Unavailable("--wandb needs a package that is not here: pip install 'backbench[wandb]'")


def track(results: Iterable[Result], suite: str, home: Path) -> str:
    """Log results, each once, as runs of the group `suite`; one line that says what became of it.

    Whatever wandb does, this raises nothing. It stays offline where WANDB_MODE says so or no account is known.
    """
    folder = home.absolute() / "wandb"
    try:
        runs = [as_run(result, suite, home) for result in results]
        runs = [run for run in runs if not (folder / "logged" / run["id"]).exists()]
        if not runs and not _unsent(folder):
            return "wandb: all was logged and sent before"
        said = _wandb("backbench.leaderboard.wandb_runs", folder, json.dumps(runs))
        stays = json.loads(said.splitlines()[-1])
    except (OSError, RuntimeError) as error:
        return f"warning: wandb: not logged ({error}); results are safe, the same command tries again"
    try:
        if not stays:
            _wandb("wandb", folder, "", "sync", folder.name)
    except (OSError, RuntimeError) as error:
        stays = str(error)
    if unsent := len(_unsent(folder)):
        sending = (
            f"{unsent} not sent ({stays or 'its logs say why'}): `cd {folder.parent} && wandb sync wandb` sends them"
        )
    return f"wandb: {len(runs)} cells logged, {sending if unsent else 'all sent'}"


def as_run(result: Result, suite: str, home: Path) -> dict[str, Any]:
    """What wandb is told of a result, as JSON. The `id` says which result, in which project and group."""
    project = os.environ.get("WANDB_PROJECT") or PROJECT
    backbone, task, data = result.backbone, result.task, result.dataset
    labels = {"backbone": backbone.name, "task": task.name, "dataset": data.name, "family": task.family}
    settings = backbone.model_dump(mode="json", exclude={"name"}) | {"dataset_facts": data.model_dump(mode="json")}
    said_elsewhere = {"backbone", "task", "dataset", "scores", "cost", "predictions", "trust"}
    settings |= result.model_dump(mode="json", exclude=said_elsewhere)
    settings |= labels | {"task_version": task.version, "device": result.cost.device}
    predictions = predictions_file(home, result)
    return {
        "id": f"{result.id}-{digest([project, suite])[:8]}",
        "project": project,
        "group": suite,
        "name": " · ".join([backbone.name, task.name, data.name, f"seed {result.seed}"]),
        "tags": [label[:TAG] for label in labels.values()],
        "config": settings,
        "summary": _scores(result) | {f"cost/{k}": v for k, v in result.cost.model_dump(exclude={"device"}).items()},
        "curves": read_curves((home / result.predictions.path).parent),
        "result": result.to_json(),
        "predictions": predictions and predictions.relative_to(home).as_posix(),
    }


def _scores(result: Result) -> dict[str, float]:
    """Every score with the ends of its interval; those of single labels are in the record alone."""
    ends = {"": "value", "/low": "low", "/high": "high"}
    shown = {name: score for name, score in result.scores.items() if ":" not in name}
    return {name + end: getattr(score, field) for name, score in shown.items() for end, field in ends.items()}


def _wandb(module: str, folder: Path, told: str, *words: str) -> str:
    """What a module says on stdout, run in a process whose wandb keeps its files in `folder`. Raises RuntimeError."""
    env = os.environ | {
        "WANDB_DIR": str(folder.parent),
        "WANDB_CACHE_DIR": str(folder / "cache"),
        "WANDB_DATA_DIR": str(folder / "data"),
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_HOST": "",  # else wandb tells this machine's name
    }
    command = [sys.executable, "-P", "-m", module, *words]
    try:
        done = subprocess.run(
            command, input=told, env=env, cwd=folder.parent, capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"no end after {PATIENCE} s") from None
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
    return done.stdout


def _unsent(folder: Path) -> list[Path]:
    """Runs that `wandb sync` has not marked as sent."""
    return [path for path in sorted(folder.glob("*/*.wandb")) if not path.with_suffix(".wandb.synced").exists()]
