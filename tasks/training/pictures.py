"""Batches of pictures for training: drawn, cropped and changed by (seed, epoch, picture), whoever decodes them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader

from ..datasets import Split
from ..threads import cores
from .processes import own_rows
from .randomness import ORDER, PICTURE, seed_all

Place = tuple[int, int]
"""An epoch and a row of the split."""


@dataclass(frozen=True)
class Augmented(torch.utils.data.Dataset):
    """By place: a picture, (3, S, S) uint8 that `pixels(images, row)` makes, and its target."""

    split: Split
    pixels: Callable[[Any, int], Tensor]
    seed: int = 0

    def __getitem__(self, place: Place) -> tuple[Tensor, Any]:
        epoch, row = place
        seed_all(self.seed, PICTURE, epoch, row)
        return self.pixels(self.split.images, row), self.split.targets[row]


def joined(one: Split, other: Split) -> Split:
    """The pictures of two labelled splits, one after the other, to be trained on."""
    images: Any = ConcatDataset([one.images, other.images])  # pyright: ignore[reportArgumentType]  # any sequences
    return Split(images, np.concatenate([one.targets, other.targets]), f"{one.fingerprint}+{other.fingerprint}")


def batches_of(pictures: Augmented, order: Iterable[list[Place]], device: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures (B, 3, S, S) uint8 and targets (B, …) of each batch; decoded beside a GPU by all cores, else in line."""
    on_gpu = torch.device(device).type != "cpu"
    loader = DataLoader(
        pictures,
        batch_sampler=order,  # pyright: ignore[reportArgumentType]  # any iterable of lists will do
        num_workers=cores() if on_gpu else 0,
        pin_memory=on_gpu,
    )
    yield from loader


def steps_of(rows: np.ndarray, batch: int) -> int:
    """Batches an epoch."""
    return -(-len(rows) // batch)


def shuffled(rows: np.ndarray, batch: int, seed: int, epochs: range, *, even: bool) -> Iterator[list[Place]]:
    """Batches of all rows, in an order of its own each epoch; sizes differ by one at most, `even` adds that one.

    Of several processes that train together each has its own rows of every batch.
    """
    for epoch in epochs:
        drawn = np.random.default_rng((seed, ORDER, epoch)).permutation(rows)
        for part in np.array_split(drawn, steps_of(rows, batch)):
            places = [(epoch, int(row)) for row in part]
            yield own_rows(places + [(epoch, int(drawn[0]))] * (even and len(places) % 2))


def part_of_each_class(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Rows of a share of every class's examples, drawn at random, at least one; sorted. Label -1 is no class."""
    rng = np.random.default_rng((seed, ORDER))
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels[labels >= 0])]
    return np.sort(np.concatenate([_share(r, fraction, rng) for r in rows] or [np.zeros(0, int)]))


def part_of_labelled(targets: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Rows of a share of the examples of which any label (n, L) is known, drawn at random, at least one; sorted."""
    return np.sort(_share(np.flatnonzero((targets >= 0).any(axis=1)), fraction, np.random.default_rng((seed, ORDER))))


def _share(rows: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(rows)[: max(1, round(fraction * len(rows)))]
