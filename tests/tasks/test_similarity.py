"""Minibatch CKA against a direct computation in float64, and what its scores and pictures mean."""

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput, Features, NotApplicable, load_backbone
from backbench.tasks import Dataset, Split, estimate, find_task, read_predictions, write_predictions
from backbench.tasks.analysis.cka import centred_gram, cka, hsic
from backbench.tasks.pictures import save
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

TASK = find_task("similarity")


def hsic_by_the_formula(k, l):
    """Song et al. 2012, as written: traces and sums of Gram matrices whose diagonal is zero."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))
    ones = np.ones(n)
    mixed = np.trace(k @ l) + (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
    return (mixed - 2 / (n - 2) * ones @ k @ l @ ones) / (n * (n - 3))


def cka_by_the_formula(x, y):
    """CKA of minibatches [(n, p), …] and [(n, q), …], sums first, then their ratio."""
    xy, xx, yy = np.zeros(3)
    for a, b in zip(x, y, strict=True):
        k, l = a @ a.T, b @ b.T
        xy, xx, yy = xy + hsic_by_the_formula(k, l), xx + hsic_by_the_formula(k, k), yy + hsic_by_the_formula(l, l)
    return xy / np.sqrt(xx * yy)


def of(x, y):
    """CKA of one minibatch by backbench's own parts, from float32 as networks give it."""
    a, b = (centred_gram(torch.as_tensor(z).float())[None] for z in (x, y))
    return float(cka(*(hsic(*pair).numpy() for pair in ((a, b), (a, a), (b, b))))[0, 0])


def random(seed, n, p, offset=0.0):
    return np.random.default_rng(seed).normal(offset, 1, (n, p))


@given(
    n=st.integers(4, 40),
    p=st.integers(1, 60),
    q=st.integers(1, 60),
    seed=st.integers(0, 99),
    offset=st.sampled_from([0.0, 10.0]),
    scale=st.sampled_from([1e-18, 1e-3, 1.0, 1e18]),
)
def test_it_is_the_formula(n, p, q, seed, offset, scale):
    x, y = random(seed, n, p, offset), random(seed + 1, n, q)
    expected = np.clip(cka_by_the_formula([x], [y]), -1, 1)
    assert of(scale * x, y) == pytest.approx(expected, abs=2e-4 if offset else 2e-5)
    assert of(x, x) == pytest.approx(1)


@given(seed=st.integers(0, 99), scale=st.floats(1e-3, 1e3))
def test_rotation_scale_and_shift_change_nothing_but_other_linear_maps_do(seed, scale):
    x, y = random(seed, 20, 8), random(seed + 1, 20, 5)
    y = y + x[:, :5]
    rotation = np.linalg.qr(random(seed + 2, 8, 8))[0]
    shift = random(seed + 3, 1, 8)
    assert of(scale * x @ rotation + shift, y) == pytest.approx(of(x, y), abs=1e-4)
    stretched = x @ rotation @ np.diag([1, 10, 1, 1, 1, 1, 1, 30]) @ rotation.T
    assert abs(of(stretched, x) - of(x, x)) > 0.02


def test_unrelated_features_have_none_whatever_the_number_of_samples():
    """What the biased estimator gets wrong: with more channels than samples it says that noise is alike."""
    found = [of(random(2 * s, 8, 400), random(2 * s + 1, 8, 400)) for s in range(200)]
    assert abs(np.mean(found)) < 0.05


def test_constant_features_are_like_nothing():
    noise = random(0, 10, 6)
    assert (
        of(np.full((10, 6), 3.3), noise) == of(noise, np.zeros((10, 6))) == of(np.ones((10, 2)), np.ones((10, 2))) == 0
    )
    assert of(np.full((10, 6), 3e3) + 1e-5 * noise, noise) == 0  # what float32 rounds is no variation
    assert of(1e3 + noise, noise) == pytest.approx(1, abs=1e-3)


def run(backbone, data, context, **settings):
    outcome = TASK.run(backbone, data, TASK.recipe(settings), context)
    measure = TASK.measure(outcome.predictions, data)
    return outcome, measure, measure.scores(np.ones(measure.examples))


def table_of(predictions, a, b):
    """(LA, LB) CKA of all minibatches between the layers of two networks."""
    rows = (predictions["of_a"] == a) & (predictions["of_b"] == b)
    found = {}
    for i, j in dict.fromkeys(zip(predictions["layer_a"][rows], predictions["layer_b"][rows], strict=True)):
        pair = rows & (predictions["layer_a"] == i) & (predictions["layer_b"] == j)
        ab, aa, bb = (predictions[f"hsic_{t}"][pair].sum() for t in ("ab", "aa", "bb"))
        found[i, j] = ab / np.sqrt(aa * bb)
    return found


def test_layers_of_two_networks_against_a_direct_computation(digits, context, tmp_path):
    vit, cnn = load_backbone("mini/vit-supervised"), load_backbone("mini/cnn-image-text")
    outcome, _, scores = run(vit, digits, context, other="mini/cnn-image-text", images=40, minibatch=16)
    write_predictions(outcome.predictions, tmp_path / "p.parquet")
    stored = read_predictions(tmp_path / "p.parquet")
    assert {n: e.value for n, e in estimate(TASK.measure(stored, digits)).items()} == scores
    assert scores.keys() == TASK.scores.keys()
    chosen = np.random.default_rng(context.seed).permutation(250)[:40]
    features = {}
    for backbone in (vit, cnn):
        for start in (0, 16, 32):
            rows = chosen[start : start + 16]
            images = torch.stack([backbone.transform(digits["test"].images[i]) for i in rows])
            with torch.no_grad():
                for name, output in backbone(images, layers=backbone.blocks).layers.items():
                    features.setdefault((backbone.name, name), []).append(output.double().flatten(1).numpy())
    expected = {(a, b): cka_by_the_formula(x, y) for a, x in features.items() for b, y in features.items()}
    for pair in ((vit, vit), (cnn, cnn), (vit, cnn)):
        a, b = (backbone.name for backbone in pair)
        found = table_of(stored, a, b)
        assert len(found) >= len(pair[0].blocks) * (len(pair[1].blocks) + (a == b)) / (1 + (a == b))
        for (i, j), value in found.items():
            assert value == pytest.approx(expected[(a, i), (b, j)], abs=1e-4)
    within = np.array([[expected[(vit.name, i), (vit.name, j)] for j in vit.blocks] for i in vit.blocks])
    across = np.array([[expected[(vit.name, i), (cnn.name, j)] for j in cnn.blocks] for i in vit.blocks])
    assert scores == {
        "mean": pytest.approx(within[~np.eye(5, dtype=bool)].mean(), abs=1e-4),
        "first_to_last": pytest.approx(within[0, 4], abs=1e-4),
        "neighbours": pytest.approx(np.diag(within, 1).mean(), abs=1e-4),
        "across": pytest.approx(across.mean(), abs=1e-4),
        "best_match": pytest.approx(across.max(axis=1).mean(), abs=1e-4),
        "same_depth": pytest.approx(across[[0, 1, 2, 3, 4], [0, 1, 2, 3, 3]].mean(), abs=1e-4),
    }
    assert outcome.chosen["other"] == {"name": cnn.name, "weights_digest": cnn.weights_digest}


def test_a_network_is_itself(digits, context):
    backbone = load_backbone("mini/cnn-random")
    outcome, measure, scores = run(backbone, digits, context, other="mini/cnn-random", images=16, minibatch=8)
    assert scores["best_match"] == scores["same_depth"] == pytest.approx(1)
    assert measure.examples == 2
    assert scores["across"] * 16 == pytest.approx(scores["mean"] * 12 + 4)
    assert set(outcome.predictions["of_b"]) == {"mini/cnn-random", "mini/cnn-random (other)"}
    assert len(TASK.picture(outcome.predictions, digits).axes) == 6  # three maps, each with its colour bar


def test_named_layers_instead_of_blocks(digits, context):
    backbone = load_backbone("mini/vit-supervised")
    outcome, _, scores = run(backbone, digits, context, layers=["blocks.*.attn", "blocks.*.mlp"], images=8, minibatch=4)
    names = [f"blocks.{i}.{part}" for i in range(5) for part in ("attn", "mlp")]
    assert list(dict.fromkeys(outcome.predictions["layer_b"])) == names
    assert list(scores) == ["mean", "first_to_last", "neighbours"]
    with pytest.raises(BadInput, match=r"no layer 'block\.0'; did you mean 'blocks\.0'"):
        run(backbone, digits, context, layers=["block.0"])
    with pytest.raises(BadInput, match="did you mean 'vit-supervised'"):
        run(backbone, digits, context, other="mini/vit-superviced")


class Constant(nn.Module):
    """Gives the same for every image, though it depends on each."""

    def __init__(self, channels):
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, 4, 1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x):
        return self.second(self.first(x))


def test_a_layer_that_says_nothing(make_backbone, squares_data, context):
    backbone = make_backbone()
    backbone.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), Constant(8))
    backbone.body.append(Constant(4))
    backbone.extract = lambda images, **_: Features(embedding=backbone.body(images).mean(dim=(2, 3)))
    outcome, measure, scores = run(backbone, squares_data(), context, images=16, minibatch=8)
    assert set(outcome.predictions["layer_a"]) == {"2", "3"}
    assert scores == {"mean": 0, "first_to_last": 0, "neighbours": 0}
    assert all(e.low == e.value == e.high == 0 for e in estimate(measure).values())
    assert TASK.picture(outcome.predictions, squares_data()) is not None


def few(count):
    images = np.zeros((count, 16, 16, 3), np.uint8)
    split = Split(images, np.zeros(count, int), f"few-{count}", [f"i{i}" for i in range(count)])
    return Dataset("few", "classification", ("a",), {"test": lambda: split})


def test_too_little_to_compare(make_backbone, context):
    vit = load_backbone("mini/vit-supervised")
    with pytest.raises(NotApplicable, match="few/test has 3 images; at least 4 are needed"):
        run(vit, few(3), context)
    with pytest.raises(BadInput, match="minibatch"):
        TASK.recipe({"minibatch": 3})
    with pytest.raises(NotApplicable, match="has one layer"):
        run(vit, few(4), context, layers=["norm"])
    _, measure, scores = run(vit, few(6), context, minibatch=4)  # two are left over; all images are black
    assert (measure.examples, scores["mean"]) == (1, 0)


def test_what_a_layer_must_give(context, digits):
    swin = load_backbone("mini/vit-supervised")
    with torch.no_grad():
        swin.body.blocks[0].mlp.fc1.weight.fill_(float("nan"))
    with pytest.raises(BadInput, match=r"the output of 'blocks\.0' is not finite"):
        run(swin, digits, context, images=4, minibatch=4)


def test_stored_rows_that_are_missing(digits, context):
    outcome, *_ = run(load_backbone("mini/cnn-random"), digits, context, images=8, minibatch=4)
    with pytest.raises(BadInput, match="rows are missing"):
        TASK.measure({name: column[:-1] for name, column in outcome.predictions.items()}, digits)


def test_the_picture_shows_the_stored_figures(digits, context, tmp_path):
    backbone = load_backbone("mini/cnn-supervised")
    outcome, *_ = run(backbone, digits, context, images=16, minibatch=8)
    figure = TASK.picture(outcome.predictions, digits)
    shown = np.asarray(figure.axes[0].images[0].get_array())
    for (a, b), value in table_of(outcome.predictions, backbone.name, backbone.name).items():
        assert shown[backbone.blocks.index(a), backbone.blocks.index(b)] == pytest.approx(value)
    for name in ("a.png", "b.png"):
        save(TASK.picture(outcome.predictions, digits), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
