"""A process of its own (see `tracking.py`): runs come as JSON on stdin and become offline runs of wandb."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

# Relative: wandb keeps and sends the paths of what it uploads, and where a home lies is nobody's business.
FOLDER = Path("wandb")
# What a reader of scores needs, and nothing of the machine or the person: no code, console, git, host or user names.
PRIVATE = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "save_code": False,
    "silent": True,
    "symlink": False,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


def log(run: dict[str, Any]) -> None:
    """Write one run below FOLDER, then the mark that it is whole: one that was cut short is written anew."""
    import wandb

    for cut_short in FOLDER.glob(f"offline-run-*-{run['id']}"):
        shutil.rmtree(cut_short)
    settings = wandb.Settings(mode="offline", root_dir=str(FOLDER.parent), **PRIVATE)
    what = {key: run[key] for key in ("id", "project", "group", "name", "tags", "config")}
    with wandb.init(**what, job_type=run["config"]["task"], settings=settings) as logged:
        for name, rows in run["curves"].items():
            logged.define_metric(f"{name}/*", step_metric=f"{name}/epoch", summary="none")
            for row in rows:
                logged.log({f"{name}/{key}": value for key, value in row.items()})
        logged.summary.update(run["summary"])
        result = wandb.Artifact(f"result-{run['id']}", "result")
        path = FOLDER / "results" / f"{run['id']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(run["result"], encoding="utf-8")
        result.add_file(str(path), name="result.json", policy="immutable")
        logged.log_artifact(result)
        if run["predictions"]:
            predictions = wandb.Artifact(f"predictions-{run['id']}", "predictions")
            predictions.add_file(run["predictions"], name="predictions.parquet", policy="immutable")
            logged.log_artifact(predictions)
    (FOLDER / "logged").mkdir(exist_ok=True)
    (FOLDER / "logged" / run["id"]).touch()


def why_not_sent() -> str:
    """Why runs stay here for now; nothing where wandb is online, its server answers and knows the account."""
    import wandb

    if (mode := wandb.setup().settings.mode) != "online":
        return f"WANDB_MODE is {mode}"
    try:
        wandb.login()
    except wandb.Error as error:
        return str(error).splitlines()[0]
    return ""


def main() -> None:
    """Read runs, log them, and print as JSON why they can't be sent now, if they can't."""
    for run in json.load(sys.stdin):
        log(run)
    print(json.dumps(why_not_sent()))


if __name__ == "__main__":
    main()
