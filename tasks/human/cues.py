"""Shape against texture: what decides where the two say different things (Geirhos et al. 2019)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from ...backbones.errors import BadInput, unknown

NAMED = re.compile(r"(?P<shape>[a-z]+)\d+-(?P<texture>[a-z]+)\d+")  # cat7-bottle1: a cat with a bottle's texture


@dataclass(frozen=True, eq=False)
class Cues:
    """Of images (n,), their `shape` and who answered (O, n) by it or by texture; where both cues are of one category
    nothing is decided, and the image does not count (`conflict`)."""

    shape: np.ndarray
    conflict: np.ndarray
    by_shape: np.ndarray
    by_texture: np.ndarray

    @classmethod
    def of(cls, answers: np.ndarray, ids: Sequence[str], labels: np.ndarray, classes: Sequence[str]) -> "Cues":
        """Cues by the names of the images, as the authors gave them. Raises BadInput for other names."""
        number = {name: i for i, name in enumerate(classes)}
        texture = np.empty(len(labels), int)
        for row, image in enumerate(ids):
            found = NAMED.fullmatch(PurePosixPath(str(image)).stem)
            if not found or number.get(found["shape"]) != labels[row]:
                shape = classes[labels[row]]
                raise BadInput(f"cue-conflict: image {image!r}: its name tells no cues, as {shape}1-clock2.png does")
            if found["texture"] not in number:
                raise unknown("category", found["texture"], classes, where=f"cue-conflict: image {image!r}")
            texture[row] = number[found["texture"]]
        conflict = texture != labels
        return cls(labels, conflict, (answers == labels) & conflict, (answers == texture) & conflict)

    def bias(self, weights: np.ndarray) -> np.ndarray:
        """(O,) share of the decisions by shape among those by shape or texture; NaN where there are none."""
        shape, texture = self.by_shape @ weights, self.by_texture @ weights
        with np.errstate(divide="ignore", invalid="ignore"):
            return shape / (shape + texture)

    def accuracies(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(O,) shares of the images in conflict that are decided by shape, and by texture."""
        with np.errstate(divide="ignore", invalid="ignore"):
            every = self.conflict @ weights
            return (self.by_shape @ weights) / every, (self.by_texture @ weights) / every
