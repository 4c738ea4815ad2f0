"""Every promise can be broken, and `check` says by what; and it tells what is broken from what does not apply."""

import time

import numpy as np
import pytest
import torch
from backbench.backbones import Backbone, BackboneCard, BadInput, Features, Level, load_backbone
from backbench.backbones.catching import catch
from backbench.backbones.check import PROMISES, check
from torch import nn
from torch.nn.functional import dropout, interpolate, linear

INPUT = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
TINY = BackboneCard(name="tiny", source="timm", model="test_resnet", pretrained=False, input={"size": 64})
DUAL = BackboneCard(name="dual", source="mini", model="cnn-image-text", pretrained=False)
NAMES = {promise.__name__.replace("_", " ") for promise in PROMISES}


class Wrapped(Backbone):
    """The plainest backbone: its body gives the embedding, and the modules in `levels` the maps."""

    def extract(self, images, *, embedding, maps, projection):
        caught = {}
        with catch(self.body, self.card.levels if maps else (), caught):
            output = self.body(images)
        return Features(embedding=output, maps=list(caught.values()))


def wrap(network, levels=(), kind=Wrapped):
    """A module as a backbone, without a file."""
    torch.manual_seed(0)
    card = BackboneCard(name="x", source="python", model="net.py:make", input=INPUT, levels=levels)
    return kind(card, card.input.over({}), network)


def states(points, state):
    return {point.name: point.detail for point in points if point.state == state}


def broken(points):
    return states(points, "fail")


@pytest.mark.parametrize(
    ("card", "facts"),
    [
        (TINY, {"loads strictly", "text meets image"}),
        (TINY.model_copy(update={"model": "test_vit"}), {"loads strictly", "text meets image"}),
        (BackboneCard(name="cnn", source="mini", model="cnn-random"), {"text meets image"}),
        (DUAL.model_copy(update={"pretrained": True}), set()),
        (
            BackboneCard(name="sq", source="torchvision", model="squeezenet1_0", pretrained=False, input={"size": 96}),
            {"loads strictly", "text meets image"},
        ),
    ],
    ids=lambda value: getattr(value, "model", ""),
)
def test_good_backbones_keep_every_promise_that_is_theirs(card, facts):
    seen = []
    points = check(card, watch=seen.append)
    assert broken(points) == {}
    assert set(states(points, "n/a")) == facts
    assert {point.name for point in points} == NAMES
    assert seen == points
    assert all(point.detail for point in points)


def test_about_twenty_points():
    assert len(NAMES) == len(PROMISES) >= 20


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


class InPlace(Good):
    """torchvision's MobileNetV3 without its last layer: what is left of `classifier` gives features."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Sequential(nn.Linear(8, 12), nn.Hardswish(inplace=True), nn.Dropout(0.2), nn.Identity())

    def forward(self, x):
        return self.classifier(super().forward(x))


class Faint(Good):
    def forward(self, x):
        return super().forward(x) * 1e-25


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
        return dropout(super().forward(x), 0.5, training=True)


class Counting(Good):
    def forward(self, x):
        self.passes += 1
        return super().forward(x)


class Detached(Good):
    def forward(self, x):
        return super().forward(x).detach()


class Shrinking(Good):
    def forward(self, x):  # images of any size are made 32 px, so that its maps have 8 cells whatever comes
        return super().forward(interpolate(x, (32, 32)))


class Nameless(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 3))

    def forward(self, x):
        return linear(x.mean((2, 3)), self.weight)


class Cancelling(Good):
    def forward(self, x):  # small differences of large numbers, which bfloat16 has not the digits for
        return (self.conv(x) * 1e4).to(torch.get_autocast_dtype("cpu") if self.half else x.dtype).sin().mean((2, 3))

    half = property(lambda self: torch.is_autocast_enabled("cpu"))


class Layout(Good):
    def forward(self, x):  # reads memory as if it were never anything but channels first
        return super().forward(x.as_strided(x.shape, torch.empty(x.shape).stride()))


class Hoarding(Good):
    def __init__(self):
        super().__init__()
        self.kept = []

    def forward(self, x):
        self.kept.append(self.conv(x))
        return super().forward(x)


class Few(Good):
    def forward(self, x):
        assert len(x) < 8, "seven at most"
        return super().forward(x)


class Looking(nn.Module):
    """Statistics of colours without a single product of matrices."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Module()
        self.gain.value = nn.Parameter(torch.ones(3))
        self.eye = nn.Identity()

    def forward(self, x):
        return self.eye(x).mean((2, 3)) * self.gain.value


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
        (Shrinking, "takes another size", "its level says stride 4"),
        (Nameless, "layers can be named", "no layer has a name"),
        (Cancelling, "half precision is close", "cosine similarity"),
        (Layout, "channels last is the same", "differ by"),
        (Looking, "macs are counted", "no convolution"),
        (Hoarding, "peak memory is measured", "every pass keeps"),
        (Few, "throughput is measured", "seven at most"),
    ],
)
def test_a_broken_network_breaks_its_promise(network, promise, said):
    found = broken(check(wrap(network(), ["conv"] if network is Shrinking else [])))
    assert said in found[promise]


@pytest.mark.parametrize("network", [Good, InPlace, Faint])
def test_a_good_network_breaks_none(network):
    points = check(wrap(network(), ["conv"]))
    assert broken(points) == {}
    # Of an object it is not known how it was loaded.
    loading = {"loads strictly", "same weights when loaded again", "random state untouched"}
    assert set(states(points, "n/a")) == loading | {"text meets image"}


class OneSize(Good):
    def forward(self, x):
        assert x.shape[-1] == 32, "32 pixels only"
        return super().forward(x)


class Adding(Good):
    def forward(self, x):  # into a sum that is float32, whatever comes
        places = self.conv(x).flatten(2).permute(2, 0, 1)
        return torch.zeros(1, *places.shape[1:]).index_add(0, torch.zeros(len(places), dtype=torch.int), places)[0]


class Viewing(Good):
    def forward(self, x):  # a view that no memory order but channels first allows
        return super().forward(x.view(len(x), -1).view(x.shape))


@pytest.mark.parametrize(
    ("network", "point", "said"),
    [
        (OneSize, "takes another size", "takes images of 32 px"),
        (Adding, "half precision is close", "BFloat16"),
        (Viewing, "channels last is the same", "view size"),
        (Good, "maps are as declared", "no feature maps"),
        (Good, "text meets image", "no text tower"),
    ],
)
def test_what_does_not_apply_is_no_failure(network, point, said):
    points = check(wrap(network()))
    assert said in states(points, "n/a")[point]
    assert broken(points) == {}


@pytest.mark.parametrize(
    ("change", "promise", "said"),
    [
        ({"levels": (Level(9, 4),)}, "maps are as declared", "says 9 channels"),
        ({"levels": (Level(8, 8),)}, "maps are as declared", "says stride 8"),
        ({"levels": (Level(8, 4), Level(8, 8))}, "maps are as declared", "1 maps, 2 levels"),
        ({"embed_dim": 9}, "embedding is a vector", "embed_dim says 9"),
        ({"parameters_count": 1000}, "parameters are counted", "says 1,000, the weights hold 408"),
    ],
)
def test_false_declarations(change, promise, said):
    backbone = wrap(Good(), ["conv"])
    for key, value in change.items():
        backbone.__dict__[key] = value  # where cached properties keep what they measured
    assert said in broken(check(backbone))[promise]


def test_check_refuses_statistics_of_0_to_255():
    wrong = TINY.input.model_copy(update={"mean": (123.7, 116.3, 103.5)})
    found = broken(check(TINY.model_copy(update={"input": wrong})))
    assert "divide by 255" in found["normalisation is declared"]


def test_check_refuses_imagenets_statistics_for_weights_trained_with_others():
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    card = BackboneCard(name="x", source="mini", model="cnn-image-text", input=imagenet)
    assert "these weights want (0.5, 0.5, 0.5)" in broken(check(card))["normalisation is declared"]


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (lambda t: lambda image: t(image)[:, :16], "becomes (3, 16, 32)"),
        (lambda t: t.pixels, "uint8"),
        (lambda t: lambda image: t(image) / 2, "with the declared mean and std"),
    ],
    ids=["size", "type", "statistics"],
)
def test_a_transform_that_does_not_fit(transform, said):
    backbone = wrap(Good())
    right = backbone.transform
    wrong = transform(right)

    class Wrong:
        normalise = staticmethod(right.normalise)
        __call__ = staticmethod(wrong)

    backbone.transform = Wrong()
    assert said in broken(check(backbone))["transform gives what forward takes"]


def test_text_in_another_space():
    backbone = load_backbone(DUAL)
    backbone.encode_text = lambda texts: torch.zeros(len(texts), 7)
    assert "not in one space" in broken(check(backbone))["text meets image"]
    backbone.encode_text = lambda texts: torch.zeros(len(texts), backbone.body.image_proj.out_features)
    assert "same embedding" in broken(check(backbone))["text meets image"]


def test_an_embedding_that_is_no_vector():
    class Shapeless(Wrapped):
        def extract(self, images, **_):
            return Features(embedding=torch.zeros(len(images), 2, 2))

    assert "not floats (3, D)" in broken(check(wrap(Good(), kind=Shapeless)))["embedding is a vector"]


def test_passes_that_overwrite_each_other():
    class Shared(Wrapped):
        def extract(self, images, **_):
            self.kept = self.body.conv(images)
            time.sleep(0.02)  # long enough for the other thread to come by
            return Features(embedding=self.kept.mean((2, 3)))

    assert set(broken(check(wrap(Good(), kind=Shared)))) == {"threads do not mix"}


def test_figures_are_those_of_the_network():
    points = {point.name: point for point in check(wrap(Good()))}
    parameters, macs = 8 * 3 * 4 * 4 + 8 + 2 * 8, 8 * 8 * 8 * 3 * 4 * 4
    assert (points["parameters are counted"].value, points["parameters are counted"].unit) == (parameters / 1e6, "M")
    assert points["macs are counted"].value == macs / 1e9
    # The convolution's output and its norm's stand beside each other: 8 images of 8 channels on 8 x 8 places.
    held = points["peak memory is measured"]
    assert held.unit == "MiB"
    assert 2 * 8 * 8 * 64 * 4 / 2**20 <= held.value < 4 * 8 * 8 * 64 * 4 / 2**20
    assert points["throughput is measured"].value > 0
    assert {p.name for p in points.values() if p.value is None} == NAMES - {
        "parameters are counted",
        "macs are counted",
        "peak memory is measured",
        "throughput is measured",
    }


# -- loading: cards of own files ---------------------------------------------------------------------------------------


def write(folder, body, **keys):
    (folder / "net.py").write_text(f"import numpy, random, torch\nfrom torch import nn\n\ndef make():\n{body}")
    return BackboneCard(name="x", source="python", model="net.py:make", input=INPUT, folder=folder, **keys)


TRUNK = "nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())"
PARTLY = f"""    trunk = {TRUNK}
    trunk.load_state_dict(torch.load("{{file}}", weights_only=True), strict=False)
    return nn.Sequential(trunk, {{rest}})
"""


@pytest.fixture
def trunk(tmp_path):
    """A file with the weights of TRUNK."""
    torch.manual_seed(1)
    torch.save({"0.weight": torch.randn(8, 3, 4, 4), "0.bias": torch.randn(8)}, tmp_path / "trunk.pth")
    return tmp_path / "trunk.pth"


def test_check_refuses_a_random_projection(tmp_path, trunk):
    """VICReg in arXiv 2310.19909's retrieval: a Linear after the trunk that its checkpoint does not hold."""
    card = write(tmp_path, PARTLY.format(file=trunk, rest="nn.Linear(8, 16)"))
    found = broken(check(card))
    assert set(found) == {"loads strictly", "embedding is not logits"}
    assert "1.bias, 1.weight; 2 of 4 tensors" in found["loads strictly"]
    assert "'1', which no checkpoint filled: a random projection" in found["embedding is not logits"]


def test_check_refuses_logits_as_embedding(tmp_path):
    """MiDaS in arXiv 2310.19909's retrieval: a classifier's thousand scores ranked as features."""
    card = write(tmp_path, f"    return nn.Sequential({TRUNK}, nn.Linear(8, 1000))\n")
    assert "looks like the classifier" in broken(check(card))["embedding is not logits"]
    assert "embedding is not logits" not in broken(check(card.model_copy(update={"head": "1"})))


def test_weights_that_are_the_checkpoints(tmp_path, trunk):
    card = write(tmp_path, PARTLY.format(file=trunk, rest="nn.Identity()"))
    points = {point.name: point for point in check(card)}
    assert points["loads strictly"].state == "pass"
    assert "2 tensors of net.py:make, none of them random" in points["loads strictly"].detail
    strict = write(tmp_path, f"    return {TRUNK}\n", checkpoint={"path": "trunk.pth"})
    points = {point.name: point for point in check(strict)}
    assert "2 tensors of trunk.pth" in points["loads strictly"].detail


def test_random_weights_that_nothing_depends_on(tmp_path, trunk):
    card = write(
        tmp_path,
        PARTLY.format(file=trunk, rest="nn.Identity()").replace(
            "    return", "    trunk.register_parameter('mask_token', nn.Parameter(torch.randn(8)))\n    return"
        ),
    )
    [point] = [point for point in check(card) if point.name == "loads strictly"]
    assert (point.state, "random but unused: 0.mask_token" in point.detail) == ("pass", True)


def test_an_untrained_network_is_what_its_card_says(tmp_path):
    def seen(**keys):
        points = check(write(tmp_path, f"    return {TRUNK}\n", **keys))
        return next(point for point in points if point.name == "loads strictly")

    assert "as the card says" in seen(pretraining={"method": "random"}).detail
    assert seen(pretraining={"method": "random"}).state == "n/a"
    assert (seen().state, "say so" in seen().detail) == ("n/a", True)
    assert seen(pretraining={"method": "supervised"}).state == "fail"


def test_a_card_that_cannot_be_loaded_is_the_callers_to_mend(tmp_path):
    with pytest.raises(BadInput, match=r"net.py:5: TypeError"):
        check(write(tmp_path, "    return nn.Linear(3)\n"))
    with pytest.raises(BadInput):
        check("mini/none")


def test_weights_of_another_seed_each_time(tmp_path):
    seeded = "    import time\n    torch.manual_seed(time.perf_counter_ns())\n"
    card = write(tmp_path, f"{seeded}    return {TRUNK}\n")
    assert "same weights when loaded again" in broken(check(card))


@pytest.mark.parametrize(
    ("touch", "said"),
    [(lambda: np.random.rand(), "numpy"), (lambda: torch.rand(1), "torch")],  # noqa: NPY002
)
def test_a_random_state_that_is_touched(monkeypatch, touch, said):
    def careless(card, device="cpu"):
        touch()
        return load_backbone(card, device)

    monkeypatch.setattr("backbench.backbones.conformance.subject.load_backbone", careless)
    assert broken(check(TINY)) == {"random state untouched": f"changed by loading: {said}"}
