"""A backbone of two convolutions and a data set of coloured squares: all that a frozen task needs, in milliseconds."""

import gc
import multiprocessing
import os
import socket
from functools import partial

import numpy as np
import pytest
import torch
from backbench.backbones import Backbone, BackboneCard, Features, Input, load_backbone
from backbench.tasks import Bank, Context, Dataset, Split, load_dataset
from backbench.tasks.datasets import Objects
from backbench.tasks.training import processes
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
NARROW = {"depth": 2, "embed_dim": 48, "num_heads": 2}
KINDS = {  # every kind of network with random weights, as small as they come: side of its images in px, arguments
    "test_resnet": (64, {}),
    "test_convnext": (64, {}),
    "mobilenetv3_small_050": (64, {}),
    "swinv2_tiny_window8_256": (64, {"embed_dim": 24, "depths": [2, 1, 1, 1], "window_size": 4}),
    "hiera_tiny_224": (64, {"embed_dim": 24, "stages": [1, 1, 1, 1]}),
    "test_vit": (64, {}),
    "vit_base_patch16_clip_224": (64, NARROW),
    "vit_small_patch14_reg4_dinov2": (56, NARROW),
}


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


@pytest.fixture(params=KINDS)
def kind(request):
    """A backbone of each kind."""
    size, arguments = KINDS[request.param]
    says = {"source": "timm", "model": request.param, "pretrained": False, "model_args": arguments}
    return load_backbone(BackboneCard.model_validate(says | {"input": {"size": size}}))


def odd(count, seed, kind):
    """Dark images of odd sizes, the first of them empty, the others with a bright square of one of two classes."""
    rng = np.random.default_rng(seed)
    images, objects, masks = [], [], []
    for index in range(count):
        height, width = (int(side) for side in rng.integers(20, 50, 2) * 2 + 1)
        image = rng.integers(0, 60, (height, width, 3)).astype(np.uint8)
        mask = np.zeros((1, height, width), bool)
        x, y, label = int(rng.integers(0, width // 2)), int(rng.integers(0, height // 2)), index % 2
        mask[:, y : y + height // 2, x : x + width // 2] = True
        box = [x, y, x + width // 2, y + height // 2]
        some = np.arange(min(index, 1))
        image[mask[0] & bool(index)] = (250, 20, 20) if label else (20, 20, 250)
        images.append(image)
        objects.append(Objects(np.array([box], np.float32)[some], np.array([label])[some], mask[some]))
        masks.append((mask[0] & bool(index)) * np.uint8(1 + label))
    targets = objects if kind == "detection" else masks
    return Split(images, targets, f"odd-{kind}-{count}-{seed}", [f"{seed}-{i}" for i in range(count)])


@pytest.fixture
def odd_scenes():
    """`odd_scenes(kind)`: four, three and three images of odd sizes, for detection or segmentation."""

    def made(kind):
        classes = ("blue", "red") if kind == "detection" else ("ground", "blue", "red")
        sizes = {"train": (4, 1), "val": (3, 2), "test": (3, 3), "shift:dark": (3, 4)}
        return Dataset("odd", kind, classes, {name: partial(odd, *how, kind) for name, how in sizes.items()})

    return made


def run_in_processes(action, count=2):
    """What `action()` gives, or the error that it raises, in each of some processes that were launched together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context, told = multiprocessing.get_context("fork"), []

    def work(rank, pipe):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        os.environ.update({k: str(v) for k, v in place.items()}, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        torch.set_num_threads(1)
        gc.freeze()  # full memory has garbage collected, in which all that pytest holds need not be looked through
        try:
            if count > 1:
                processes.join()
            pipe.send(action())
        except Exception as error:
            pipe.send(error)
        pipe.recv()  # nobody leaves before all have answered

    for rank in range(count):
        ours, theirs = context.Pipe()
        told.append((context.Process(target=work, args=(rank, theirs), daemon=True), ours))
        told[-1][0].start()
    try:
        assert all(ours.poll(60) for _, ours in told), "a process waits for ever"
        return [ours.recv() for _, ours in told]
    finally:
        for process, _ in told:
            process.kill()
            process.join()


@pytest.fixture(scope="session")
def in_processes():
    """`in_processes(action, count=2)`: what it gives, or the error that it raises, in each of so many processes."""
    return run_in_processes
