"""A data set in memory: splits of images and targets, built when first asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from ...backbones.errors import BadInput, unknown

IGNORE = 255  # the label of semantic masks that is never scored


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of one image: boxes (k, 4) xyxy pixels, labels (k,), masks (k, H, W) bool or None, crowd (k,) bool.

    `areas` (k,) pixels, where the data set tells them (else of the mask, else of the box); `size`: the image's (H, W).
    """

    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None
    crowd: np.ndarray | None = None
    areas: np.ndarray | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Judgement:
    """What a query of instance retrieval asks for: ids of the gallery's right answers, and of its images that are
    `junk` for this query, taken out of the ranking before it is scored."""

    positive: tuple[str, ...]
    junk: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their targets, both indexed 0…n-1 and decoded when asked for.

    targets by kind of data set. classification, retrieval, episodes: (n,) int64 labels (-1: none of the classes);
    multilabel: (n, C) int8, 1 present, 0 absent, -1 not known; detection: `Objects` an image; segmentation: (H, W)
    uint8 classes, 255 ignored; pairs: a list of captions an image.
    `fingerprint`: sha256 of the content. `ids`: what the data set calls each image, for messages and predictions.
    `groups`: (n,) names of what several images may show (one handwritten sample): they are not independent. For
    episodes, the episode.
    `accepted`: an image's right classes where several are (ImageNet ReaL); one without any is not counted.
    `among`: of a shifted split that has only some of the classes, which: answers are among these.
    `trials`: what each observer, by name, answered to the images: (n,) classes, -1 no answer, -2 not asked.
    `judgements`: of the queries of a retrieval data set that names answers one by one, instead of by equal labels.
    `left_out`: a line for each image or annotation that a lenient reading left out; `told`: what was said of them.
    """

    images: Sequence[Image.Image | np.ndarray] | np.ndarray
    targets: Any
    fingerprint: str
    ids: Sequence[str | int] = field(default=())
    groups: np.ndarray | None = None
    accepted: Sequence[Sequence[int]] | None = None
    among: tuple[int, ...] | None = None
    trials: Mapping[str, np.ndarray] | None = None
    judgements: Sequence[Judgement] | None = None
    left_out: Sequence[str] = ()
    told: str = ""
    name: str = ""  # data set and split, for people

    def __len__(self) -> int:
        return len(self.images)

    def take(self, limit: int | None) -> "Split":
        """At most `limit` examples, spread evenly over the split (which is often sorted by class)."""
        if limit is None or limit >= len(self):
            return self
        return self.rows(np.linspace(0, len(self) - 1, limit).round().astype(int), f"{self.fingerprint}:{limit}")

    def rows(self, rows: np.ndarray, fingerprint: str) -> "Split":
        """The examples at these positions, in this order, as a split of its own."""
        return replace(
            self,
            images=Rows(self.images, rows),
            targets=self.targets[rows] if isinstance(self.targets, np.ndarray) else Rows(self.targets, rows),
            fingerprint=fingerprint,
            ids=[self.ids[i] for i in rows] if len(self.ids) else (),
            groups=None if self.groups is None else self.groups[rows],
            accepted=None if self.accepted is None else [self.accepted[i] for i in rows],
            trials=None if self.trials is None else {name: answers[rows] for name, answers in self.trials.items()},
            judgements=None if self.judgements is None else [self.judgements[i] for i in rows],
        )


@dataclass(frozen=True)
class Rows(Sequence):
    """Some rows of a sequence, read through it."""

    of: Sequence | np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):
        return self.of[int(self.rows[index])]


class Dataset:
    """A named set of splits of one kind. `data["train"]` builds a split once; names are known without building."""

    def __init__(
        self,
        name: str,
        kind: str,
        classes: Sequence[str],
        splits: Mapping[str, Callable[[], Split]],
        *,
        prompts: Sequence[str] = ("a photo of a {}.",),
        descriptions: Mapping[str, Sequence[str]] | None = None,
        limit: int | None = None,
        category_ids: Sequence[int] | None = None,
        stamp: Callable[[str], Any] | None = None,
    ):
        """`stamp(split)`: JSON that changes whenever the split's content may have, found without reading it.

        `prompts` have a place {} for a class's name; `descriptions` say by class name what it looks like.
        `category_ids`: the number by which the data set's own files call each class, 1…C unless they say.
        """
        self.name, self.kind, self.classes, self.prompts, self.limit = name, kind, tuple(classes), tuple(prompts), limit
        self.stamp = stamp
        self.category_ids = tuple(range(1, len(self.classes) + 1) if category_ids is None else category_ids)
        self.descriptions = {name: list(said) for name, said in (descriptions or {}).items()}
        self._build, self._built = dict(splits), dict[str, Split]()

    @property
    def split_names(self) -> list[str]:
        """Names of the splits: train, val, test, and extras such as `shift:blur`, `unknown:textures`."""
        return list(self._build)

    def __getitem__(self, name: str) -> Split:
        if name not in self._build:
            raise unknown("split", name, self._build, where=f"dataset {self.name}")
        if name not in self._built:
            split = self._build[name]().take(self.limit)
            if not len(split):
                raise BadInput(f"dataset {self.name}: split {name} is empty; correct what its card says of it")
            self._built[name] = replace(split, name=f"{self.name}/{name}")
        return self._built[name]

    def limited(self, limit: int | None) -> "Dataset":
        """The same data set with at most `limit` examples a split."""
        return Dataset(
            self.name,
            self.kind,
            self.classes,
            self._build,
            prompts=self.prompts,
            descriptions=self.descriptions,
            limit=limit,
            category_ids=self.category_ids,
            stamp=self.stamp,
        )
