"""What our runs add to mmengine's."""

import random
from typing import Any

import numpy as np
import torch

from .gate import openmmlab

Hook = openmmlab("mmengine.hooks").Hook


class SeedEachEpoch(Hook):
    """An epoch's randomness is that of `seed` and its number, so that a resumed run goes on as an undisturbed one.

    mmengine keeps no random state in its checkpoints. Holds for epoch-based loops that load data in their own process.
    """

    priority = "VERY_HIGH"

    def __init__(self, seed: int):
        self.seed = seed

    def before_train_epoch(self, runner: Any) -> None:
        """Seeds Python, numpy and torch."""
        seed = int(np.random.SeedSequence([self.seed, runner.epoch]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 (what mmdet's and mmseg's augmentation draws from)
        torch.manual_seed(seed)
