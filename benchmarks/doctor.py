"""What is installed, which devices and caches there are, and whether the model hub answers."""

import shutil
import socket
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from .home import home_folder

EXTRAS = {
    "openmmlab": ("mmengine", "mmcv-lite", "mmdet", "mmsegmentation"),
    "ray": ("ray",),
    "diffusion": ("diffusers",),
    "wandb": ("wandb",),
    "serve": ("fastapi", "uvicorn"),
}
CORE = ("torch", "torchvision", "timm", "open_clip_torch", "transformers", "datasets", "faster-coco-eval")


def examine(home: Path | None = None) -> list[dict[str, Any]]:
    """Rows of `item`, `state` (ok, absent, unreachable) and `detail`."""
    rows = [_row(name, _version(name)) for name in ("backbench", *CORE)]
    for extra, packages in EXTRAS.items():
        missing = [p for p in packages if _version(p) is None]
        detail = f'pip install "backbench[{extra}]"' if missing else ", ".join(f"{p} {_version(p)}" for p in packages)
        rows.append({"item": f"extra {extra}", "state": "absent" if missing else "ok", "detail": detail})
    return [*rows, *_devices(), *_caches(home_folder(home)), _hub()]


def _row(name: str, found: str | None) -> dict[str, Any]:
    return {"item": name, "state": "ok" if found else "absent", "detail": found or f"pip install {name}"}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> list[dict[str, Any]]:
    import psutil
    import torch

    from .cell import device_name

    memory = psutil.virtual_memory().total / 2**30
    cores = psutil.cpu_count(logical=True)
    rows = [{"item": "cpu", "state": "ok", "detail": f"{device_name('cpu')}, {cores} cores, {memory:.0f} GiB"}]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        total = torch.cuda.get_device_properties(index).total_memory / 2**30
        detail = f"{torch.cuda.get_device_name(index)}, {total:.0f} GiB"
        rows.append({"item": f"cuda:{index}", "state": "ok", "detail": detail})
    if len(rows) == 1:
        rows.append({"item": "cuda", "state": "absent", "detail": "no GPU that torch can use; cells run on the CPU"})
    return rows


def _caches(home: Path) -> list[dict[str, Any]]:
    rows = []
    for name in ("features", "runs", "leaderboard.db"):
        path = home / name
        files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
        size = sum(f.stat().st_size for f in files) / 2**20
        rows.append({"item": name, "state": "ok" if files else "absent", "detail": f"{path}, {size:,.1f} MiB"})
    free = shutil.disk_usage(home).free / 2**30
    return [*rows, {"item": "disk", "state": "ok", "detail": f"{free:,.0f} GiB free at {home}"}]


def _hub() -> dict[str, Any]:
    from huggingface_hub import constants

    host = urlparse(constants.ENDPOINT).hostname or "huggingface.co"
    if constants.HF_HUB_OFFLINE:
        return {
            "item": "model hub",
            "state": "unreachable",
            "detail": "HF_HUB_OFFLINE is set: only cached weights load",
        }
    try:
        socket.create_connection((host, 443), timeout=3).close()
    except OSError as error:
        fix = "cached, local and embedded weights work; others need a network"
        return {"item": "model hub", "state": "unreachable", "detail": f"{host}: {error}; {fix}"}
    return {"item": "model hub", "state": "ok", "detail": host}
