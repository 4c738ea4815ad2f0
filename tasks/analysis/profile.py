"""Figures of each image and each part of a network (a block, a head): stored as rows, read back as a table."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...backbones.errors import BadInput
from ..classification.accuracy import names
from ..classification.layer_probe import DEPTHS
from ..datasets import Dataset, Split
from ..predictions import Predictions


@dataclass(frozen=True)
class Profile:
    """Of U parts and n images: `parts` (U,) by column, `values` (U, n) or (U, n, k); `groups` (n,) or None."""

    parts: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    groups: np.ndarray | None = None

    @property
    def images(self) -> int:
        """n."""
        return next(iter(self.values.values())).shape[1]

    def rows(self, split: Split, positions: np.ndarray) -> Predictions:
        """Columns of predictions, part by part, of the images at these positions of a split."""
        images, parts = len(positions), len(next(iter(self.parts.values())))
        return (
            {"id": np.tile(names(split)[positions], parts)}
            | {name: np.repeat(column, images) for name, column in self.parts.items()}
            | {name: values.reshape(parts * images, *values.shape[2:]) for name, values in self.values.items()}
        )

    @classmethod
    def of(cls, predictions: Predictions, data: Dataset, parts: tuple[str, ...]) -> "Profile":
        """The table of stored rows. Raises BadInput where rows are missing, or of no test image."""
        ids = predictions["id"]
        again = np.flatnonzero(ids[1:] == ids[0])
        images = int(again[0]) + 1 if len(again) else len(ids)
        if len(ids) % images or not np.array_equal(ids, np.tile(ids[:images], len(ids) // images)):
            raise BadInput("predictions: rows are missing: each part of the network has one for each image")
        place = {name: i for i, name in enumerate(names(data["test"]))}
        if (stranger := next((name for name in ids[:images] if name not in place), None)) is not None:
            raise BadInput(f"predictions: image {stranger!r} is none of the test images of {data.name}")
        groups = data["test"].groups
        return cls(
            {name: predictions[name][::images] for name in parts},
            {
                name: values.reshape(-1, images, *values.shape[1:])
                for name, values in predictions.items()
                if name not in ("id", *parts)
            },
            None if groups is None else groups[[place[name] for name in ids[:images]]],
        )


def by_depth(depth: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """{"depth_25": …} of values (U,) of parts at a `depth` (U,): their mean in the block that lies so deep."""
    blocks = np.unique(depth)
    at = {share: blocks[max(1, round(share * len(blocks) / 100)) - 1] for share in DEPTHS}
    return {f"depth_{share}": float(values[depth == block].mean()) for share, block in at.items()}


def gathered(batches: list[Mapping[tuple, np.ndarray]], names: tuple[str, ...], value: str) -> Profile:
    """The table of values {part: (n,) or (n, k)} of each minibatch, a part being a tuple of columns called `names`."""
    parts = list(batches[0])
    columns = {name: np.array(column) for name, column in zip(names, zip(*parts, strict=True), strict=True)}
    values = np.stack([np.concatenate([batch[part] for batch in batches]) for part in parts])
    kept = {name: column.astype(object) if column.dtype.kind == "U" else column for name, column in columns.items()}
    return Profile(kept, {value: values})
