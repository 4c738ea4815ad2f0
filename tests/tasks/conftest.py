"""A backbone of two convolutions and a data set of coloured squares: all that a frozen task needs, in milliseconds."""

from functools import partial

import numpy as np
import pytest
import torch
from backbench.backbones import Backbone, BackboneCard, Features, Input
from backbench.tasks import Bank, Context, Dataset, Split, load_dataset
from torch import nn

CLASSES = ("red", "green", "blue", "grey")
MOBILENET = """\
source: timm
model: mobilenetv2_100
model_args: {{pad_type: same}}
checkpoint: {root}/weights/mobilenetv2_100_imagenet/mobilenetv2_100_224_fp16.pth
input: {{size: 224, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}}
pretraining: {{method: supervised, data: imagenet-1k}}
license: apache-2.0
"""


class Tiny(Backbone):
    """Random weights of a seed; maps at strides 2 and 4; with `text`, words are placed by their colour."""

    def __init__(self, seed=0, text=False, size=16, broken=False):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1))
        card = BackboneCard(source="timm", model="tiny", name="tiny", pretrained=False, init_seed=seed)
        super().__init__(card, Input(size=size, mean=(0.5,) * 3, std=(0.5,) * 3), body)
        self.has_text, self.broken = text, broken

    def extract(self, images, *, embedding, maps, projection):
        fine = self.body[0](images)
        coarse = self.body[2](self.body[1](fine))
        if self.broken:
            coarse = coarse / (images.amax(dim=(1, 2, 3), keepdim=True) < 0.9)
        return Features(
            embedding=torch.cat([coarse.mean(dim=(2, 3)), images.mean(dim=(2, 3))], dim=1) if embedding else None,
            maps=[fine, coarse] if maps else [],
            projection=images.mean(dim=(2, 3)) if projection else None,
        )

    def encode_text(self, texts):
        colours = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}
        found = [next((c for w, c in colours.items() if w in text), (0.5, 0.5, 0.5)) for text in texts]
        return torch.tensor(found, dtype=torch.float32) - 0.5


def squares(count, seed, noise=60, labels=None, size=16):
    """Coloured noise: `count` images of class i % 4, or of `labels`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES) if labels is None else np.asarray(labels)
    base = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [110, 110, 110], [250, 250, 10]])[labels]
    images = np.clip(base[:, None, None] + rng.normal(0, noise, (count, size, size, 3)), 0, 255)
    shades = rng.normal(0, noise / 2, (count, 1, 1, 3))
    images = np.clip(images + shades, 0, 255).astype(np.uint8)
    known = np.where(labels < len(CLASSES), labels, -1)
    return Split(images, known, f"squares-{count}-{seed}-{noise}", [f"{seed}-{i}" for i in range(count)])


def dataset(kind="classification"):
    """Squares with every split that a frozen task asks for."""
    if kind == "retrieval":
        splits = {"query": partial(squares, 20, 1), "gallery": partial(squares, 60, 2)}
    else:
        splits = {
            "train": partial(squares, 80, 3),
            "val": partial(squares, 30, 4),
            "test": partial(squares, 50, 5),
            "shift:noise": partial(squares, 40, 6, noise=150),
            "shift:loud": partial(squares, 24, 7, noise=300),
            "unknown:yellow": partial(squares, 33, 8, labels=[4] * 33),
            "unknown:noise": partial(squares, 21, 9, noise=500),
        }
    return Dataset("squares", kind, CLASSES, splits, prompts=("a {} square", "{}"))


@pytest.fixture(autouse=True)
def home_of_its_own(home):
    """What is remembered of image files is not remembered in the home of who runs the tests."""


@pytest.fixture
def make_backbone():
    return Tiny


@pytest.fixture
def make_split():
    return squares


@pytest.fixture
def squares_data():
    return dataset


@pytest.fixture
def context(tmp_path):
    return Context(Bank(tmp_path / "features"), tmp_path)


@pytest.fixture(scope="session")
def digits():
    """The first few hundred scenes of each split."""
    whole, sizes = load_dataset("digit-scenes", "classification"), {"train": 600, "val": 150, "test": 250}

    def part(name, count):
        split = whole[name]
        images = [split.images[i] for i in range(count)]
        return Split(images, np.asarray(split.targets)[:count], f"{name}-{count}", split.ids[:count])

    return Dataset("digits", "classification", whole.classes, {n: partial(part, n, k) for n, k in sizes.items()})


@pytest.fixture
def mobilenet(real_data, tmp_path):
    """Path of a card of MobileNetV2 with its real ImageNet weights."""
    path = tmp_path / "mobilenetv2.yaml"
    path.write_text(MOBILENET.format(root=real_data))
    return path
