"""Invented results: six backbones over nine tasks, with scores that mean nothing beyond these tests."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

import numpy as np
import pytest
from backbench.leaderboard import Board, Result, headline_columns
from backbench.leaderboard.published import Figure, published_columns
from backbench.leaderboard.snapshot import Snapshot

TASKS = {  # name → family, headline metric, rough level, half-width of the interval
    "linear-probe": ("classification", "top1", 62.0, 1.6),
    "knn": ("classification", "top1", 55.0, 1.7),
    "zero-shot": ("classification", "top1", 41.0, 1.9),
    "ood-shift": ("ood", "top1", 38.0, 1.5),
    "ood-detection": ("ood", "auroc", 71.0, 2.1),
    "detection": ("detection", "ap50", 48.0, 2.4),
    "instance-segmentation": ("segmentation", "mask-ap50", 43.0, 2.6),
    "semantic-segmentation": ("segmentation", "miou", 52.0, 1.4),
    "retrieval": ("retrieval", "map", 33.0, 1.2),
}
BACKBONES = {  # name → family, pretraining method, parameters, how good it is
    "mini/cnn-supervised": ("cnn", "supervised", 583_000, 0.95),
    "mini/vit-supervised": ("vit", "supervised", 612_000, 0.70),
    "mini/vit-contrastive": ("vit", "self-supervised", 612_000, 0.80),
    "mini/vit-masked": ("vit", "self-supervised", 640_000, 0.25),
    "mini/cnn-image-text": ("cnn", "vision-language", 905_000, 0.90),
    "mini/cnn-random": ("cnn", "random", 583_000, -1.6),
}


def sha(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def content_of(backbone="mini/cnn-supervised", task="linear-probe", /, value=62.0, half=1.6, **change):
    """The content of a result; `change` replaces whole fields."""
    family, metric = TASKS.get(task, ("classification", "top1"))[:2]
    kind, method, parameters = BACKBONES.get(backbone, ("cnn", "supervised", 100_000))[:3]
    seed = change.get("seed", 0)
    score = {"unit": "%", "range_low": 0.0, "range_high": 100.0, "higher_is_better": True}
    score |= {"value": value, "low": max(0.0, value - half), "high": min(100.0, value + half)}
    card = {"source": "mini", "model": backbone.rsplit("/", 1)[-1], "family": kind, "license": "apache-2.0"}
    return {
        "cell_id": sha(f"{backbone}|{task}|{seed}|{change.get('recipe')}")[:24],
        "backbone": {
            "name": backbone,
            "card": card | {"pretraining": {"method": method, "data": "digit-scenes"}},
            "card_digest": sha(backbone),
            "weights_digest": sha(f"weights of {backbone}"),
            "parameters": parameters,
            "embed_dim": 192,
            "transform": {"kind": "centre-crop", "size": 64, "mean": (0.5, 0.5, 0.5), "decoder": "pil"},
        },
        "task": {"name": task, "family": family, "version": 1, "headline": metric},
        "dataset": {
            "name": "digit-scenes",
            "kind": "classification",
            "fingerprints": {"train": sha("train"), "test": sha("test")},
            "sizes": {"train": 6000, "test": 2000},
            "limit": None,
        },
        "recipe": {"epochs": 10},
        "seed": seed,
        "chosen": {"weight_decay": 1e-4},
        "scores": {metric: score, "loss": score | {"unit": "nats", "value": 1.0, "low": 0.5, "high": 1.5}},
        "cost": {"seconds": 12.5, "images": 8000, "peak_memory_mb": 812.0, "device": "cpu"},
        "environment": {"python": "3.11.9", "torch": "2.15.0", "platform": "linux"},
        "code_version": "0.1.0",
        "predictions": {"path": "runs/quick/predictions.parquet", "sha256": sha("rows"), "rows": 2000},
    } | change


@pytest.fixture(scope="session")
def content():
    """Makes the content of a result: see `content_of`."""
    return content_of


@pytest.fixture
def result():
    """Makes one result; keywords as those of `content_of`, and `trust` and `created`."""

    def make(*args, trust="reported", created=datetime(2026, 1, 1, tzinfo=UTC), **change):
        return Result.of(**content_of(*args, **change), trust=trust, created=created)

    return make


@pytest.fixture
def gauntlet():
    """All six backbones over all nine tasks; zero-shot only where there is a text tower."""
    rng = np.random.default_rng(7)
    found = []
    for backbone, (_, _, _, good) in BACKBONES.items():
        for task, (_, _, level, half) in TASKS.items():
            if task == "zero-shot" and "image-text" not in backbone:
                continue
            value = float(np.clip(level + 11 * good + 3 * rng.normal(), 1, 99))
            created = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=len(found))
            found.append(Result.of(**content_of(backbone, task, value, half), created=created))
    return found


@pytest.fixture
def board(gauntlet):
    """The board of the whole gauntlet; zero-shot is shown, not ranked."""
    return Board.of(gauntlet, headline_columns(gauntlet, unranked=["zero-shot"]), "quick")


@pytest.fixture
def figures():
    """Those of a published table of twelve networks on three data sets, without intervals; one is missing."""
    source = {"name": "a-table", "title": "A published table", "files": {"table.csv": "0" * 64}}
    rng = np.random.default_rng(3)
    return [
        Figure(
            backbone={"name": f"timm/net{i}.tag", "card": {"model": f"net{i}"}, "parameters": 10**6 * (i + 1)},
            source=source,
            file="table.csv",
            **{"task": "classification", "family": "classification", "dataset": dataset, "metric": "top1"},
            **{"unit": "%", "higher_is_better": True, "range_low": 0.0, "range_high": 100.0},
            value=float(rng.uniform(20, 90)),
        )
        for i in range(12)
        for dataset in ("imagenet-1k", "imagenet-v2", "sketch")
        if (i, dataset) != (11, "sketch")
    ]


@pytest.fixture
def published(figures):
    """The board of those figures."""
    found = Snapshot.of([], figures)
    return Board.of(found, published_columns(found, "a-table"), "A published table", source="a-table")
