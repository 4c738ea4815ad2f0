"""Attention distance, skip ratio, receptive field and localisation on networks where the answer is known by hand."""

import numpy as np
import pytest
import torch
from backbench.backbones import Backbone, BackboneCard, BadInput, Features, Input, NotApplicable, load_backbone
from backbench.backbones.attending import AttentionMap
from backbench.tasks import Dataset, Split, estimate, find_task, read_predictions, write_predictions
from backbench.tasks.analysis.attention_distance import mean_distance
from backbench.tasks.analysis.cka import centred_gram, cka, hsic
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

PARTS = ("attention-distance", "skip-ratio", "receptive-field", "localisation")
SMALL = {  # settings that take next to no time
    "similarity": {"images": 8, "minibatch": 4},
    "attention-distance": {"images": 2},
    "skip-ratio": {"images": 2},
    "receptive-field": {"images": 2, "channels": 2},
    "localisation": {"images": 8, "minibatch": 4, "grid": 4},
}


class Known(Backbone):
    """A backbone of blocks that are given, on images of `side` pixels."""

    def __init__(self, body, side):
        card = BackboneCard(source="timm", model="known", name="known", pretrained=False)
        super().__init__(card, Input(size=side, mean=(0.5,) * 3, std=(0.5,) * 3), body)

    def extract(self, images, *, embedding, maps, projection):
        out = self.body(images)
        return Features(embedding=out.mean(1) if out.ndim == 3 else out.mean((2, 3)))


class Patches(nn.Module):
    """Tokens of 4 x 4 pixels, after a class token."""

    def __init__(self, channels=48, cls=True):
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 4, 4)
        nn.init.eye_(self.proj.weight.data.view(channels, -1))
        if cls:
            self.cls_token = nn.Parameter(torch.ones(1, 1, channels))

    def forward(self, images):
        tokens = self.proj(images).flatten(2).mT
        return (
            torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], 1) if hasattr(self, "cls_token") else tokens
        )


class Looks(nn.Module):
    """Every head's token i looks at token `where[head][i]`, or at all of them alike where that is None."""

    def __init__(self, where, channels=48):
        super().__init__()
        self.where, self.value, self.out = where, nn.Linear(channels, channels), nn.Linear(channels, channels)

    def forward(self, x):
        count, eye = x.shape[1], 1e4 * torch.eye(x.shape[1])
        keys = torch.stack([torch.zeros(count, count) if at is None else eye[at] for at in self.where])
        value = self.value(x).unflatten(2, (len(self.where), -1)).transpose(1, 2)
        queries = torch.eye(count).expand(len(x), len(self.where), -1, -1)
        seen = scaled_dot_product_attention(queries, keys.mT.expand_as(queries).contiguous(), value)
        return x + self.out(seen.transpose(1, 2).flatten(2))


class Adds(nn.Module):
    """Adds `share` of what comes in to it, of the class token a quarter of that."""

    def __init__(self, share, channels=48):
        super().__init__()
        self.first, self.second = nn.Linear(channels, channels, bias=False), nn.Linear(channels, channels, bias=False)
        nn.init.eye_(self.first.weight)
        nn.init.eye_(self.second.weight)
        self.share = share

    def forward(self, x):
        shares = torch.full((x.shape[1], 1), self.share)
        shares[0] /= 4
        return x + shares * self.second(self.first(x))


class Convolves(nn.Module):
    """Two convolutions 3 x 3, of ones."""

    def __init__(self, channels, weight=1.0):
        super().__init__()
        self.first, self.second = (nn.Conv2d(c, 2, 3, padding=1, bias=False) for c in (channels, 2))
        for layer in (self.first, self.second):
            nn.init.constant_(layer.weight, weight)

    def forward(self, x):
        return self.second(self.first(x))


def pictures(side, count=12, groups=None):
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3)).astype(np.uint8)
    split = Split(images, np.zeros(count, int), f"{side}", [f"i{i}" for i in range(count)], groups=groups)
    return Dataset("noise", "classification", ("a",), {"test": lambda: split})


def run(name, backbone, data, context, **settings):
    task = find_task(name)
    outcome = task.run(backbone, data, task.recipe(settings), context)
    measure = task.measure(outcome.predictions, data)
    return outcome.predictions, measure, measure.scores(np.ones(measure.examples))


def apart(rows, patch):
    """(n, n) pixels between places of a grid."""
    y, x = np.divmod(np.arange(rows * rows), rows)
    return patch * np.hypot(y[:, None] - y, x[:, None] - x)


def test_attention_distance_by_hand(context):
    rows, patch = 6, 4
    count = 1 + rows * rows
    itself = list(range(count))
    mirrored = [0, *(1 + y * rows + (rows - 1 - x) for y in range(rows) for x in range(rows))]
    at_class = [0] * count
    heads = [None, itself, mirrored, at_class]
    backbone = Known(nn.Sequential(Patches(), Looks(heads), Looks([itself] * 4)), rows * patch)
    predictions, measure, scores = run("attention-distance", backbone, pictures(24), context, minibatch=5)
    assert measure.examples == 12
    distances = apart(rows, patch)
    everywhere = distances.sum() / rows**2 / count  # what goes to the class token goes nowhere
    across = patch * np.abs(rows - 1 - 2 * np.arange(rows)).mean()
    expected = np.array([everywhere, 0, across, 0])
    first = predictions["distance"][predictions["depth"] == 1].reshape(4, 12)
    assert first == pytest.approx(np.repeat(expected[:, None], 12, axis=1), abs=1e-4)
    assert scores["mean"] == pytest.approx(expected.sum() / 8, abs=1e-4)
    assert scores["share"] == pytest.approx(100 * expected.sum() / 8 / np.hypot(24, 24), abs=1e-3)
    assert scores["depth_25"] == pytest.approx(expected.mean(), abs=1e-4)
    assert scores["depth_100"] == pytest.approx(0, abs=1e-4)
    assert scores["spread"] == pytest.approx(expected.max() / 2, abs=1e-4)
    assert predictions["uniform"] == pytest.approx(np.full(len(predictions["uniform"]), distances.mean()))


@pytest.mark.parametrize(("windows", "rows", "stride"), [(1, 5, 16.0), (4, 7, 4.0)])
def test_distance_of_uniform_attention(windows, rows, stride):
    count = rows * rows
    weights = torch.full((2, windows, 3, count, count), 1 / count)
    found, uniform = mean_distance(AttentionMap(weights, 0, (rows, rows), stride))
    assert found.shape == (2, 3)
    assert torch.allclose(found, torch.tensor(apart(rows, stride).mean(), dtype=torch.float32))
    assert uniform == pytest.approx(apart(rows, stride).mean())


def test_a_network_without_attention_has_no_distance(context):
    backbone = load_backbone("mini/cnn-supervised")
    with pytest.raises(NotApplicable, match="mini/cnn-supervised has no attention over places"):
        run("attention-distance", backbone, pictures(64), context)


def test_skip_ratio_by_hand(context):
    backbone = Known(nn.Sequential(Patches(), Adds(0.5), Adds(0.0), Adds(0.25)), 16)
    predictions, _, scores = run("skip-ratio", backbone, pictures(16), context)
    assert set(predictions["kind"]) == {"mlp"}
    assert scores == {  # a branch that is silent counts 1000
        "mean": pytest.approx((2 + 1000 + 4) / 3),
        "first_half": pytest.approx((2 + 1000) / 2),
        "second_half": pytest.approx(4),
        "cls": pytest.approx((8 + 1000 + 16) / 3),
        "cls_first_half": pytest.approx((8 + 1000) / 2),
        "cls_second_half": pytest.approx(16),
    }


def test_skip_ratio_without_a_class_token(context):
    _, _, scores = run("skip-ratio", load_backbone("mini/cnn-supervised"), pictures(64), context, images=4)
    assert list(scores) == ["mean", "first_half", "second_half"]


def test_receptive_field_by_hand(context):
    """m convolutions of ones: the gradient is the row 1 1 1 convolved with itself, each way."""
    side = 33
    backbone = Known(nn.Sequential(Convolves(3), Convolves(2), Convolves(2)), side)
    predictions, measure, scores = run("receptive-field", backbone, pictures(side), context, images=3, minibatch=2)
    assert measure.examples == 3
    fields = predictions["gradient"].reshape(3, 3, side, side)
    for depth, convolutions in enumerate((2, 4, 6)):
        row = np.ones(1)
        for _ in range(convolutions):
            row = np.convolve(row, np.ones(3))
        square = np.zeros((side, side))
        reach = slice(16 - convolutions, 17 + convolutions)
        square[reach, reach] = 2 ** (convolutions - 1) * np.outer(row, row)  # two channels between any two layers
        assert np.allclose(fields[depth], square, rtol=1e-4)
    radius = np.sqrt(2 * 2 / 3 * np.array([2, 4, 6]))  # each layer adds a variance of 2/3 each way
    assert scores["radius"] == scores["depth_100"] == pytest.approx(radius[2], rel=1e-4)
    assert scores["depth_25"] == pytest.approx(radius[0], rel=1e-4)
    assert scores["depth_50"] == pytest.approx(radius[1], rel=1e-4)
    assert scores["share"] == pytest.approx(100 * radius[2] / (side * np.sqrt(2)), rel=1e-4)


def test_receptive_field_of_attention_is_the_whole_image(context):
    everywhere = Looks([None, None])
    backbone = Known(nn.Sequential(Patches(cls=False), everywhere, Looks([None, None])), 64)
    with torch.no_grad():
        for block in backbone.body[1:]:
            block.out.weight.mul_(1e3)  # what is passed on does not count any more
    _, _, scores = run("receptive-field", backbone, pictures(64), context, images=2)
    assert scores["depth_100"] == pytest.approx(
        64 / np.sqrt(6), rel=0.05
    )  # of a square: a twelfth of its side each way


def test_receptive_field_of_a_dead_network(context):
    backbone = Known(nn.Sequential(Convolves(3, 0.0), Convolves(2, 0.0)), 16)
    predictions, measure, scores = run("receptive-field", backbone, pictures(16), context, images=2)
    assert set(scores.values()) == {0.0}
    assert all(e.low == e.high == 0 for e in estimate(measure).values())
    assert find_task("receptive-field").picture(predictions, pictures(16)) is not None


def test_localisation_by_hand(context):
    """Tokens that are the pixels of their patches are like them alone; tokens of all places are like none."""
    data, settings = pictures(16, 64), {"images": 64, "minibatch": 32, "grid": 4}
    kept = Known(nn.Sequential(Patches(), Adds(0.5), Adds(0.5)), 16)
    predictions, measure, scores = run("localisation", kept, data, context, **settings)
    own = predictions["hsic_ab"][predictions["place"] == 5][:, 5]
    assert own == pytest.approx(2.25 ** predictions["depth"][predictions["place"] == 5] * own[0] / 2.25, rel=0.3)
    assert scores["own_place"] == 100
    assert scores["localisation"] == pytest.approx(1, abs=0.1)  # noise resembles noise of another place by chance
    assert measure.examples == 2
    gone = Known(nn.Sequential(Patches(), Looks([None] * 2), Looks([None] * 2)), 16)
    with torch.no_grad():
        gone.body[1].out.weight.mul_(1e4)
    assert run("localisation", gone, data, context, **settings)[2]["localisation"] < 0.1


def test_localisation_against_a_direct_computation(digits, context):
    backbone = load_backbone("mini/vit-supervised")
    predictions, _, scores = run("localisation", backbone, digits, context, images=40, minibatch=20)
    chosen = np.random.default_rng(context.seed).permutation(250)[:40]
    terms = np.zeros((3, 64, 64))
    for start in (0, 20):
        images = torch.stack([backbone.transform(digits["test"].images[i]) for i in chosen[start : start + 20]])
        with torch.no_grad():
            tokens = backbone(images, layers=["blocks.4"]).layers["blocks.4"]
        patches = [images[:, :, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8] for r in range(8) for c in range(8)]
        a = torch.stack([centred_gram(tokens[:, i]) for i in range(64)])
        b = torch.stack([centred_gram(patch) for patch in patches])
        own = [hsic(x, x).diagonal().numpy() for x in (a, b)]
        terms += np.stack([hsic(a, b).numpy(), np.tile(own[0][:, None], 64), np.tile(own[1], (64, 1))])
    expected = cka(*terms)
    own = np.diag(expected)
    difference = own - (expected.sum(1) - own) / 63
    assert scores["localisation"] == scores["depth_100"] == pytest.approx(difference.mean(), abs=1e-6)
    assert scores["own_place"] == pytest.approx(100 * (expected.argmax(1) == np.arange(64)).mean())
    assert len(predictions["place"]) == 2 * 5 * 64


def test_localisation_needs_four_images(context):
    backbone = load_backbone("mini/vit-supervised")
    with pytest.raises(NotApplicable, match="noise/test has 3 images; at least 4"):
        run("localisation", backbone, pictures(64, 3), context)


def test_pictures_of_one_thing_are_drawn_as_one(context):
    groups = np.arange(12) // 3
    _, measure, _ = run(
        "skip-ratio", load_backbone("mini/vit-supervised"), pictures(64, groups=groups), context, images=8
    )
    chosen = np.random.default_rng(context.seed).permutation(12)[:8]
    assert np.array_equal(measure.groups, groups[chosen])


@pytest.mark.parametrize("name", ["attention-distance", "skip-ratio", "receptive-field"])
def test_rows_that_are_missing_or_of_other_images(name, context):
    data = pictures(64)
    predictions, *_ = run(name, load_backbone("mini/vit-supervised"), data, context, **SMALL[name])
    with pytest.raises(BadInput, match="rows are missing"):
        find_task(name).measure({column: values[:-1] for column, values in predictions.items()}, data)
    renamed = predictions | {"id": np.array([f"z{i}" for i in predictions["id"]], object)}
    with pytest.raises(BadInput, match="none of the test images of noise"):
        find_task(name).measure(renamed, data)


NO_ATTENTION = {"test_resnet", "test_convnext", "mobilenetv3_small_050", "hiera_tiny_224"}
NO_GRID = {"hiera_tiny_224"}  # its tokens lie in the order of its windows


def test_every_kind_of_network(kind, squares_data, context, tmp_path):
    data, architecture = squares_data(), kind.card.model
    lacks = {
        "attention-distance": architecture in NO_ATTENTION,
        "receptive-field": architecture in NO_GRID,
        "localisation": architecture in NO_GRID,
    }
    for name, settings in SMALL.items():
        task = find_task(name)
        task.check_backbone(kind)
        if lacks.get(name):
            with pytest.raises(NotApplicable, match=r"no attention over places|are not the image row by row"):
                run(name, kind, data, context, **settings)
            continue
        predictions, _, scores = run(name, kind, data, context, **settings)
        write_predictions(predictions, tmp_path / "p.parquet")
        again = task.measure(read_predictions(tmp_path / "p.parquet"), data)
        assert again.scores(np.ones(again.examples)) == scores
        assert set(scores) <= set(task.scores)
        for score, value in scores.items():
            assert task.metric(score).low <= value <= task.metric(score).high
        assert task.picture(predictions, data).axes
        assert task.headline in scores
