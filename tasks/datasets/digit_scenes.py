"""The embedded data set: real handwritten digits on textured canvases, composed when asked for."""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ...backbones.errors import BadInput
from ...backbones.mini import grounds, scenes
from ...backbones.mini.scenes import SHIFTS, Scenes, compose, digit_pool
from ..task import Kind
from .card import DatasetCard
from .dataset import Dataset, Objects, Split

MOST = 4  # digits in a scene of a dense task
EPISODES, ASKED = 20, 2  # episodes of ten digits, shown once each; queries of each, in two other hands


@dataclass(frozen=True)
class Plan:
    """How the scenes of one split are composed.

    `shown` fixes whose handwriting: that many samples, in turn; `role`, the support or the queries of episodes, too.
    """

    pool: str
    count: int
    seed: int
    size: int = 64
    digits: tuple[int, int] = (1, 1)
    shift: str | None = None
    glyph: str = "digit"
    shown: int | None = None
    role: str | None = None

    def scenes(self) -> Scenes:
        """The scenes themselves."""
        pool = digit_pool(self.pool)
        samples = None
        if self.shown:
            # The same samples for query and gallery, so the choice hangs on the pool alone.
            chosen = np.random.default_rng(len(pool.ids)).permutation(len(pool.ids))[: self.shown]
            samples = np.repeat(chosen, self.count // self.shown)
        if self.role:
            samples = _episodes(pool.labels)[self.role]
        return compose(
            pool,
            self.count,
            seed=self.seed,
            size=self.size,
            digits=self.digits,
            shift=self.shift,
            glyph=self.glyph,
            samples=samples,
        )


def _episodes(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Places of handwritten samples: (EPISODES * 10,) `support`, and ASKED times as many `query` by other hands."""
    rng = np.random.default_rng(EPISODES)
    drawn = [
        rng.permutation(np.flatnonzero(labels == digit))[: 1 + ASKED] for _ in range(EPISODES) for digit in range(10)
    ]
    return {"support": np.array([d[0] for d in drawn]), "query": np.concatenate([d[1:] for d in drawn])}


DENSE = {
    "train": Plan("train", 600, seed=20, size=96, digits=(1, MOST)),
    "val": Plan("val", 100, seed=21, size=96, digits=(1, MOST)),
    "test": Plan("test", 300, seed=22, size=96, digits=(1, MOST)),
}
# Twins of test scenes (same seed): what differs between two scores is the shift, not the sample.
TWINS = {f"shift:{name}": replace(DENSE["test"], shift=name) for name in SHIFTS}
PLANS: dict[str, dict[str, Plan]] = {
    "classification": {
        "train": Plan("train", 3000, seed=10),
        "val": Plan("val", 500, seed=11),
        "test": Plan("test", 1000, seed=12),
        **{f"shift:{name}": Plan("test", 500, seed=12, shift=name) for name in SHIFTS},
        "unknown:scribbles": Plan("test", 500, seed=13, glyph="scribble"),
        "unknown:textures": Plan("test", 500, seed=14, digits=(0, 0)),
        # Domains of different hands, so that nothing of one that is held out was seen in another.
        "domain:plain": Plan("train", 600, seed=60),
        "domain:texture": Plan("val", 600, seed=61, shift="texture"),
        "domain:inversion": Plan("test", 600, seed=62, shift="inversion"),
    },
    "multilabel": DENSE,  # the same scenes: their embeddings are banked once
    "detection": DENSE | TWINS,
    "segmentation": DENSE | TWINS,
    "pairs": {
        "train": Plan("train", 3000, seed=10),
        "val": Plan("val", 500, seed=40),
        "test": Plan("test", 600, seed=41),
    },
    "episodes": {
        "support": Plan("test", EPISODES * 10, seed=50, role="support"),
        "query": Plan("test", EPISODES * 10 * ASKED, seed=51, role="query"),
    },
    "retrieval": {
        "query": Plan("test", 300, seed=30, shown=300),
        "gallery": Plan("test", 900, seed=31, shown=300),
    },
}


def open_digit_scenes(card: DatasetCard, kind: Kind) -> Dataset:
    """The data set for one kind of task. Raises BadInput when the card names splits: they are fixed."""
    if card.splits:
        raise BadInput(f"dataset {card.name}: splits: the splits of digit-scenes are fixed; leave the key out")
    classes = ("background", *card.classes) if kind == "segmentation" else card.classes
    builders: dict[str, Callable[[], Split]] = {
        name: partial(_split, kind, name, plan) for name, plan in PLANS[kind].items()
    }
    return Dataset(card.name, kind, classes, builders, stamp=partial(stamp, kind))


def stamp(kind: Kind, split: str) -> Any:
    """What decides a split, without composing it: its plan, and the programs and libraries that make it."""
    return {"plan": repr(PLANS[kind][split]), "made_by": _made_by()}


@cache
def _made_by() -> dict[str, str]:
    sha = hashlib.sha256()
    for module in (scenes, grounds, sys.modules[__name__]):
        sha.update(Path(str(module.__file__)).read_bytes())
    return {"source": sha.hexdigest()} | {name: version(name) for name in ("numpy", "pillow", "scikit-learn")}


@cache  # many tasks ask for the same scenes: all plans together are about 200 MB
def _compose(plan: Plan) -> tuple[Scenes, str]:
    made = plan.scenes()
    sha = hashlib.sha256()
    for array in (made.images, made.instances, made.labels, made.samples, made.boxes):
        sha.update(f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
    return made, sha.hexdigest()


def _split(kind: Kind, name: str, plan: Plan) -> Split:
    made, fingerprint = _compose(plan)
    ids = [f"{name}-{i:05d}" for i in range(plan.count)]
    # Two scenes of one handwritten sample are not independent; one of several digits goes with its twins alone.
    groups = made.samples[:, 0] if plan.digits == (1, 1) and plan.glyph == "digit" else None
    if kind in ("detection", "segmentation"):
        groups = np.arange(plan.count)
    if plan.role:
        groups = np.repeat([f"episode-{i:02d}" for i in range(EPISODES)], plan.count // EPISODES)
    split = Split(made.images, _targets(kind, made), fingerprint, ids, groups)
    if kind != "pairs":
        return split
    # No two scenes have one caption: which of them it asks for could not be told.
    rows = np.array(sorted({caption: i for i, caption in reversed(list(enumerate(made.captions)))}.values()))
    told = hashlib.sha256("\n".join(made.captions).encode()).hexdigest()[:16]
    return split.rows(rows, f"{fingerprint}:captions-{told}")


def _targets(kind: Kind, made: Scenes) -> Any:
    if kind == "detection":
        return [_objects(made, i) for i in range(len(made.images))]
    if kind == "segmentation":
        # 0 is the ground, digit d has class d + 1; the k-th object is marked k + 1 among the instances.
        classes = np.concatenate([np.zeros((len(made.labels), 1), int), made.labels + 1], axis=1)
        return np.stack([c[i] for c, i in zip(classes, made.instances, strict=True)]).astype(np.uint8)
    if kind == "pairs":
        return [[caption] for caption in made.captions]
    if kind == "multilabel":
        shown = [np.unique(_objects(made, i).labels) for i in range(len(made.images))]
        return np.stack([np.isin(np.arange(10), digits) for digits in shown]).astype(np.int8)
    if made.labels.shape[1] == 0:  # bare canvases
        return np.full(len(made.images), -1)
    return made.samples[:, 0] if kind == "retrieval" else made.labels[:, 0]


def _objects(made: Scenes, i: int) -> Objects:
    # A digit that others hide altogether has no box: it is not there.
    seen = [k for k in range(made.labels.shape[1]) if (made.instances[i] == k + 1).any()]
    masks = np.stack([made.instances[i] == k + 1 for k in seen])
    return Objects(made.boxes[i, seen], made.labels[i, seen], masks, np.zeros(len(seen), bool))
