"""Random numbers that hang on the place in a training where they are drawn, and on nothing that ran before."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

ORDER, PICTURE, STEP = range(3)  # what a number is drawn for: the order of an epoch, a picture's augmentation, a step


@contextmanager
def own_randomness() -> Iterator[None]:
    """Inside, anyone may seed torch, numpy and Python; afterwards all three go on as before."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def seed_all(*place: int) -> None:
    """Seeds torch, numpy and Python from whole numbers ≥ 0, such as (seed, STEP, step)."""
    drawn = int(np.random.SeedSequence(place).generate_state(1)[0])
    random.seed(drawn)
    np.random.seed(drawn)  # noqa: NPY002 - timm draws from numpy's common generator
    torch.default_generator.manual_seed(drawn)
    if torch.cuda.is_initialized():  # before, torch would remember every number that it was ever given
        torch.cuda.manual_seed_all(drawn)
