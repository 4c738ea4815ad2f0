"""Whether a backbone's fast features may stand for its plain ones: seen once on a sample, before they are used."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from ..backbones import Backbone, Transform
from ..backbones.errors import BadInput
from ..backbones.loading import PLAIN
from ..backbones.reading import digest
from .datasets import Split
from .extraction import extract
from .threads import one_thread

SAMPLE = 256  # images
COSINE = 0.999  # at least, of any image's fast embedding with its plain one
POINTS = 0.1  # of accuracy at most, between the two, of a probe fitted on plain embeddings
RIDGE = 1e-3  # of that probe, as a share of the mean square of an embedding


@dataclass(frozen=True)
class Verdict:
    """The least cosine over `images`, and the accuracies in percent, where there are labels."""

    images: int
    cosine: float
    plain: float | None
    fast: float | None

    @property
    def fault(self) -> str | None:
        """What is too far off, in words."""
        if not self.cosine >= COSINE:
            return f"the least cosine is {self.cosine:.5f}, asked is {COSINE}"
        if self.plain is not None and self.fast is not None and abs(self.plain - self.fast) > POINTS:
            return f"a probe scores {self.fast:.1f} % in place of {self.plain:.1f} %, asked is {POINTS} points"
        return None


def check_fast(
    folder: Path,
    made_of: dict[str, Any],
    backbone: Backbone,
    split: Split,
    transform: Transform,
    device: str,
    progress: Callable[[str, int, int], None] | None = None,
) -> int:
    """How many images went through the network to see that fast features are near the plain ones; 0 if known before.

    `made_of`: the ingredients of the fast features; what is not of the data among them is what the verdict is kept for,
    in `folder`. Raises BadInput where they are too far off.
    """
    key = digest(
        {k: v for k, v in made_of.items() if k not in ("split", "images")} | {"asked": [SAMPLE, COSINE, POINTS]}
    )
    path, computed = folder / f"{key}.json", 0
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if (verdict := _remembered(path)) is None:
            verdict = _compare(backbone, split.take(SAMPLE), transform, device, progress)
            computed = 2 * verdict.images
            part = path.with_suffix(".part")
            part.write_text(json.dumps(asdict(verdict)), encoding="utf-8")
            os.replace(part, path)
    if verdict.fault:
        raise BadInput(
            f"{backbone.name}: fast features are not its plain ones: {verdict.fault} (over {verdict.images} images); "
            "run it without --fast"
        )
    return computed


def _remembered(path: Path) -> Verdict | None:
    try:
        return Verdict(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _compare(
    backbone: Backbone,
    split: Split,
    transform: Transform,
    device: str,
    progress: Callable[[str, int, int], None] | None,
) -> Verdict:
    from ..backbones.conformance.subject import loaded_as

    def embeddings(how: Transform, stage: str) -> Tensor:
        def tell(_: str, done: int, total: int) -> None:
            if progress:
                progress(f"{stage} features of {backbone.name}, to compare", done, total)

        found = [batch["embedding"] for batch in extract(backbone, split, "embedding", how, device, tell)]
        return torch.cat(found).double()

    fast = embeddings(transform, "fast")
    with loaded_as(backbone, PLAIN):
        plain = embeddings(replace(transform, decoder="pil"), "plain")
    cosine = torch.cosine_similarity(plain, fast, dim=1, eps=0).nan_to_num(0.0).min()
    return Verdict(len(split), float(cosine), *_probe(plain, fast, split.targets))


def _probe(plain: Tensor, fast: Tensor, targets: Any) -> tuple[float | None, float | None]:
    """Accuracy on plain and on fast rows of a least-squares probe fitted on the plain ones; None without labels."""
    if not isinstance(targets, np.ndarray) or targets.ndim != 1 or targets.dtype.kind not in "iu":
        return None, None
    classes, labels = torch.as_tensor(targets).unique(return_inverse=True)
    centre = plain.mean(dim=0)
    plain, fast = plain - centre, fast - centre
    with one_thread():
        gram = plain @ plain.T
        ridge = RIDGE * gram.diagonal().mean() + torch.finfo(torch.float64).tiny
        wanted = torch.nn.functional.one_hot(labels, len(classes)).double() - 1 / len(classes)
        dual = torch.linalg.solve(gram + ridge * torch.eye(len(gram)), wanted)
        right = [((rows @ plain.T @ dual).argmax(dim=1) == labels).double().mean() for rows in (plain, fast)]
    return 100 * float(right[0]), 100 * float(right[1])
