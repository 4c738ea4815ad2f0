"""Every promise can be broken, and `check` says by what."""

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput, Features, Level, load_backbone
from backbench.backbones.card import BackboneCard
from backbench.backbones.check import PROMISES, check
from backbench.backbones.sources.python import PythonBackbone
from torch import nn

INPUT = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
TINY = BackboneCard(name="tiny", source="timm", model="test_resnet", pretrained=False, input={"size": 64})


def wrap(network, levels=()):
    """A module as a python backbone, without a file."""
    torch.manual_seed(0)
    card = BackboneCard(name="x", source="python", model="net.py:make", input=INPUT, levels=levels)
    return PythonBackbone(card, card.input.over({}), network)


def broken(points):
    return {point.name: point.detail for point in points if not point.passed}


@pytest.mark.parametrize(
    "card",
    [
        TINY,
        TINY.model_copy(update={"model": "test_vit"}),
        BackboneCard(name="cnn", source="mini", model="cnn-random", pretrained=False),
        BackboneCard(name="dual", source="mini", model="cnn-image-text", pretrained=False),
        BackboneCard(name="sq", source="torchvision", model="squeezenet1_0", pretrained=False, input={"size": 96}),
    ],
    ids=lambda card: f"{card.source}-{card.model}",
)
def test_good_backbones_keep_every_promise(card):
    points = check(card)
    assert broken(points) == {}
    assert len(points) == len(PROMISES) + 3
    assert len({point.name for point in points}) == len(points)


class Good(nn.Module):
    """A small network to break in one way after another."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.BatchNorm2d(8)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        return self.norm(self.conv(x)).relu().mean((2, 3))


class Constant(Good):
    def forward(self, x):
        return super().forward(x * 0)


class Infinite(Good):
    def forward(self, x):
        return super().forward(x) / 0


class Logits(Good):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 1000)

    def forward(self, x):
        return self.fc(super().forward(x))


class Probabilities(Good):
    def forward(self, x):
        return super().forward(x).softmax(1)


class BatchStatistics(Good):
    def forward(self, x):
        self.norm.train()
        return super().forward(x)


class Contrast(Good):
    def forward(self, x):
        return super().forward(x) - super().forward(x).mean(0)


class Dropout(Good):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5, training=True)


class Counting(Good):
    def forward(self, x):
        self.passes += 1
        return super().forward(x)


class Detached(Good):
    def forward(self, x):
        return super().forward(x).detach()


class Fixed(Good):
    def forward(self, x):
        assert x.shape[-1] == 32, "32 pixels only"
        return super().forward(x)


class Nameless(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 3))

    def forward(self, x):
        return nn.functional.linear(x.mean((2, 3)), self.weight)


@pytest.mark.parametrize(
    ("network", "promise", "said"),
    [
        (Constant, "embedding tells images apart", "are the same"),
        (Infinite, "embedding is a vector", "not finite"),
        (Logits, "embedding is not logits", "output of 'fc'"),
        (Probabilities, "embedding is not logits", "sum to 1"),
        (BatchStatistics, "batch size does not matter", "batch statistics"),
        (Contrast, "batch size does not matter", "in a batch differ"),
        (Dropout, "same image same embedding", "dropout"),
        (Dropout, "forward changes nothing", "torch's random state"),
        (Counting, "forward changes nothing", "passes"),
        (Detached, "gradient reaches the body", "cut off"),
        (Fixed, "maps at another size", "32 pixels only"),
        (Nameless, "layers can be named", "no layer has a name"),
    ],
)
def test_a_broken_network_breaks_its_promise(network, promise, said):
    found = broken(check(wrap(network(), ["conv"] if network is Fixed else [])))
    assert said in found[promise]


def test_a_good_network_breaks_none():
    assert broken(check(wrap(Good(), ["conv"]))) == {}


@pytest.mark.parametrize(
    ("change", "promise", "said"),
    [
        ({"levels": (Level(9, 4),)}, "maps are as declared", "says 9 channels"),
        ({"levels": (Level(8, 8),)}, "maps are as declared", "says stride 8"),
        ({"levels": (Level(8, 4), Level(8, 8))}, "maps are as declared", "1 maps, 2 levels"),
        ({"embed_dim": 9}, "embedding is a vector", "embed_dim says 9"),
    ],
)
def test_false_declarations(change, promise, said):
    backbone = wrap(Good(), ["conv"])
    for key, value in change.items():
        backbone.__dict__[key] = value  # where cached properties keep what they measured
    assert said in broken(check(backbone))[promise]


def test_statistics_for_0_to_255():
    found = broken(
        check(TINY.model_copy(update={"input": TINY.input.model_copy(update={"mean": (123.7, 116.3, 103.5)})}))
    )
    assert "divide by 255" in found["normalisation is declared"]


def test_text_in_another_space():
    backbone = load_backbone(BackboneCard(name="dual", source="mini", model="cnn-image-text", pretrained=False))
    backbone.encode_text = lambda texts: torch.zeros(len(texts), 7)
    assert "not in one space" in broken(check(backbone))["text meets image"]
    backbone.encode_text = lambda texts: torch.zeros(len(texts), backbone.body.image_proj.out_features)
    assert "same embedding" in broken(check(backbone))["text meets image"]


def write(folder, body):
    (folder / "net.py").write_text(f"import numpy, random, torch\nfrom torch import nn\n\ndef make():\n{body}")
    return BackboneCard(name="x", source="python", model="net.py:make", input=INPUT, folder=folder)


def test_loading_that_fails(tmp_path):
    (point,) = check(write(tmp_path, "    return nn.Linear(3)\n"))
    assert (point.name, point.passed) == ("loads", False)
    assert "net.py:5: TypeError" in point.detail


def test_weights_of_another_seed_each_time(tmp_path):
    seeded = "    import time\n    torch.manual_seed(time.perf_counter_ns())\n"
    card = write(tmp_path, seeded + "    return nn.Sequential(nn.Conv2d(3, 4, 4))\n")
    assert "same weights when loaded again" in broken(check(card))


def test_a_random_state_that_is_touched(monkeypatch):
    def careless(card, device):
        np.random.seed(1)  # noqa: NPY002
        return load_backbone(card, device)

    monkeypatch.setattr("backbench.backbones.check.load_backbone", careless)
    assert broken(check(TINY)) == {"random state untouched": "changed: numpy"}


def test_an_embedding_that_is_no_vector():
    class Shapeless(PythonBackbone):
        def extract(self, images, **_):
            return Features(embedding=torch.zeros(len(images), 2, 2))

    good = wrap(Good())
    found = broken(check(Shapeless(good.card, good.input, good.body)))
    assert "not floats (3, D)" in found["embedding is a vector"]


def test_a_name_that_is_not_there():
    with pytest.raises(BadInput):
        check("mini/none")
