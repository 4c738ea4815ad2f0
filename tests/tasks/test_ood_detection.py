"""Detection of the unknown: measures against scikit-learn, every detector against a plain computation of its own."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from backbench.backbones import BackboneCard, BadInput, Features, Input
from backbench.tasks import Dataset, estimate, find_task
from backbench.tasks.design import Probe
from backbench.tasks.ood import detectors
from backbench.tasks.ood.detectors import Mahalanobis, React, RelativeMahalanobis, Vim, kth_cosine
from backbench.tasks.ood.ood_detection import DETECTORS
from backbench.tasks.ood.separation import Separation
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.special import logsumexp, softmax
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from sklearn.neighbors import NearestNeighbors

TASK = find_task("ood-detection")


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 60), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_separation_is_scikit_learns_at_any_weights(count, values, seed):
    rng = np.random.default_rng(seed)
    scores, known = rng.integers(0, values, count).astype(float), rng.random(count) < 0.6
    known[:2] = True, False
    weights = rng.integers(0, 4, count).astype(float)
    weights[:2] += 1
    both = np.stack([scores, rng.permutation(scores)])
    separation = Separation(both, known, np.arange(count))
    told = separation(weights)
    assert told.auroc.tolist() == separation.auroc(weights).tolist()
    for row, scores in enumerate(both):
        found = [float(measure[row]) for measure in told]
        fpr, tpr, _ = roc_curve(known, scores, sample_weight=weights, drop_intermediate=False)
        assert found == pytest.approx([
            roc_auc_score(known, scores, sample_weight=weights),
            average_precision_score(known, scores, sample_weight=weights),
            average_precision_score(~known, -scores, sample_weight=weights),
            fpr[tpr >= 0.95 - 1e-12].min(),
        ])  # fmt: skip


@pytest.mark.parametrize("count", [20, 40, 100])
def test_exactly_a_twentieth_of_the_known_may_be_rejected(count):
    """Rounding must not decide at the border: 5 % of them is a whole number."""
    scores = np.concatenate([np.arange(count), [count / 20 - 0.5]]).astype(float)
    known = np.arange(count + 1) < count
    assert Separation(scores[None], known, np.arange(count + 1))(np.ones(count + 1)).fpr95 == 0


def test_weights_are_found_by_position():
    scores, known = np.array([3.0, 1.0, 2.0]), np.array([True, False, True])
    weights = np.array([9, 1, 0, 0, 1, 0, 1.0])
    assert Separation(scores[None], known, np.array([1, 4, 6]))(weights) == (1.0, 1.0, 1.0, 0.0)


@pytest.mark.parametrize("known", [[True, True], [False, False]])
def test_one_side_alone_tells_nothing(known):
    separation = Separation(np.array([[1.0, 2.0]]), np.array(known), np.arange(2))
    assert separation(np.ones(2)) == (0.5, 0.0, 0.0, 1.0)
    assert separation.auroc(np.ones(2)) == 0.5


@pytest.fixture
def gaussians():
    """Features (120, 5) of three correlated classes, their labels, and queries (20, 5)."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 2, 3], 40)
    x = rng.normal(size=(4, 5))[y] + rng.normal(size=(120, 5)) @ rng.normal(size=(5, 5))
    return x, y, rng.normal(size=(20, 5)) * 3


@pytest.fixture
def head():
    """A probe of four classes on five standardised features, and the same map over plain ones."""
    rng = np.random.default_rng(3)
    mean, scale, weight, bias = rng.normal(size=5), rng.uniform(0.5, 2, 5), rng.normal(size=(4, 5)), rng.normal(size=4)
    probe = Probe(*(torch.tensor(part) for part in (mean, scale, weight, bias)))
    return probe, lambda x: ((x - mean) / scale) @ weight.T + bias


def squared_distances(x, centres, queries, centred):
    precision = EmpiricalCovariance(assume_centered=True).fit(centred).precision_
    return cdist(queries, centres, "mahalanobis", VI=precision) ** 2


def test_mahalanobis_distances_are_scikit_learns(gaussians):
    x, y, queries = gaussians
    means = np.stack([x[y == c].mean(0) for c in (0, 2, 3)])
    to_class = squared_distances(x, means, queries, x - means[np.searchsorted([0, 2, 3], y)]).min(1)
    to_all = squared_distances(x, x.mean(0, keepdims=True), queries, x - x.mean(0))[:, 0]
    given = torch.tensor(x), torch.tensor(y)
    np.testing.assert_allclose(Mahalanobis(*given)(torch.tensor(queries)), -to_class, rtol=1e-6)
    np.testing.assert_allclose(RelativeMahalanobis(*given)(torch.tensor(queries)), to_all - to_class, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 7, 500])
def test_kth_cosine_is_scikit_learns(k):
    rng = np.random.default_rng(1)
    memory, queries = rng.normal(size=(60, 8)), rng.normal(size=(20, 8))
    near = NearestNeighbors(n_neighbors=min(k, 60), metric="cosine").fit(memory).kneighbors(queries)[0]
    found = kth_cosine(torch.tensor(memory), torch.tensor(queries), k).numpy()
    np.testing.assert_allclose(found, 1 - near[:, -1], atol=1e-6)


def test_scores_of_logits_are_scipys():
    logits = np.random.default_rng(2).normal(size=(30, 4)) * 5
    given = torch.tensor(logits)
    np.testing.assert_allclose(detectors.msp(given), softmax(logits, axis=1).max(1))
    np.testing.assert_allclose(detectors.max_logit(given), logits.max(1))
    np.testing.assert_allclose(detectors.energy(given), logsumexp(logits, axis=1))


def test_prototypes_are_class_means_of_unit_features(gaussians):
    x, y, queries = gaussians
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    means = np.stack([unit[y == c].mean(0) for c in (0, 2, 3)])
    found = detectors.prototype_cosine(torch.tensor(x), torch.tensor(y), torch.tensor(queries))
    np.testing.assert_allclose(found, 1 - cdist(queries, means, "cosine").min(1))


def test_concepts_are_matched_by_a_softmax_of_cosines():
    rng = np.random.default_rng(4)
    images, texts = rng.normal(size=(12, 6)), rng.normal(size=(3, 6))
    expected = softmax(1 - cdist(images, texts, "cosine"), axis=1).max(1)
    np.testing.assert_allclose(detectors.mcm(torch.tensor(images), torch.tensor(texts)), expected)


def test_react_cuts_activations_off(gaussians, head):
    (x, _, queries), (probe, logits) = gaussians, head
    threshold = np.sort(x.ravel())[int(0.9 * (x.size - 1))]  # 539.1 of 600: between two neighbours
    upper = np.sort(x.ravel())[int(0.9 * (x.size - 1)) + 1]
    threshold += (0.9 * (x.size - 1) % 1) * (upper - threshold)
    expected = logsumexp(logits(np.minimum(queries, threshold)), axis=1)
    react = React(probe, torch.tensor(x), 90.0)
    np.testing.assert_allclose(react(torch.tensor(queries)), expected)
    uncut = logsumexp(logits(queries), axis=1)
    assert (np.abs(expected - uncut) > 1e-3).any()
    np.testing.assert_allclose(React(probe, torch.tensor(queries), 100.0)(torch.tensor(queries)), uncut)


def test_vim_is_the_energy_less_the_residual(gaussians, head):
    (x, _, queries), (probe, logits) = gaussians, head
    weight = np.stack([logits(np.eye(5)[i]) - logits(np.zeros(5)) for i in range(5)], axis=1)
    origin = np.linalg.lstsq(weight, -logits(np.zeros(5)), rcond=None)[0]
    axes = np.linalg.svd(x - origin, full_matrices=True)[2][:2]  # the principal half of five dimensions

    def residual(rows):
        rows = rows - origin
        return np.linalg.norm(rows - rows @ axes.T @ axes, axis=1)

    alpha = logits(x).max(1).mean() / residual(x).mean()
    expected = logsumexp(logits(queries), axis=1) - alpha * residual(queries)
    np.testing.assert_allclose(Vim(probe, torch.tensor(x))(torch.tensor(queries)), expected)


@pytest.mark.parametrize(("width", "dimensions"), [(1, 0), (384, 192), (768, 512), (1024, 512), (2048, 1000)])
def test_vims_subspace_is_the_papers(width, dimensions):
    assert detectors.principal(width) == dimensions


def test_vim_is_the_energy_where_the_subspace_holds_all(head):
    probe, logits = head
    line = np.outer(np.linspace(-1, 1, 9), np.arange(1.0, 6))
    weight, bias = probe.plain
    origin = -(torch.linalg.pinv(weight) @ bias).numpy()
    found = Vim(probe, torch.tensor(origin + line))
    assert found.alpha == 0
    queries = np.random.default_rng(5).normal(size=(4, 5))
    np.testing.assert_allclose(found(torch.tensor(queries)), logsumexp(logits(queries), axis=1))


def test_more_features_than_examples_are_finite():
    x = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 0, 0, 1, 1, 1])
    weight = torch.tensor(np.random.default_rng(6).normal(size=(2, 50)))
    probe = Probe(torch.zeros(50).double(), torch.ones(50).double(), weight, torch.zeros(2).double())
    for detector in (Mahalanobis(x, y), RelativeMahalanobis(x, y), Vim(probe, x)):
        assert detector(x + 1).isfinite().all()


@pytest.fixture
def odd_backbone(make_backbone):
    """`odd_backbone(embed)`: embeddings are what `embed` makes of normalised images."""

    class Odd(make_backbone):
        def __init__(self, embed):
            super().__init__()
            self.embed = embed
            self.card = BackboneCard(source="timm", model="odd", name="odd", pretrained=False)
            self.input = Input(size=16, mean=(0.5,) * 3, std=(0.5,) * 3)

        def extract(self, images, *, embedding, maps, projection):
            return Features(embedding=self.embed(images))

    return Odd


@pytest.mark.parametrize("case", ["constant", "one number", "wide", "one class"])
def test_odd_features_have_finite_scores(case, odd_backbone, squares_data, context):
    """Features that say nothing separate nothing; too many, too few, and a single class are no fault either."""
    embed = {
        "constant": lambda images: torch.ones(len(images), 7),
        "one number": lambda images: images.mean(dim=(1, 2, 3), keepdim=False)[:, None],
        "wide": lambda images: images.flatten(1),
        "one class": lambda images: images.mean(dim=(2, 3)),
    }[case]
    data = squares_data()
    if case == "one class":
        one = {name: replace(data[name], targets=np.minimum(data[name].targets, 0)) for name in data.split_names}
        data = Dataset("one", "classification", ("any",), {name: partial(one.get, name) for name in one})
    predictions = TASK.run(odd_backbone(embed), data, TASK.recipe(), context).predictions
    found = estimate(TASK.measure(predictions, data))
    assert all(TASK.scores[s].low <= e.low <= e.value <= e.high <= TASK.scores[s].high for s, e in found.items())
    if case == "constant":
        assert {found[name].value for name in found if "auroc" in name} == {50.0}
    assert TASK.picture(predictions, data) is not None


@pytest.fixture
def spectrum(make_split, squares_data):
    """Squares with two near sets and a far one, beside a plain one and two shifts."""
    plain = squares_data()
    build = {name: partial(plain.__getitem__, name) for name in plain.split_names if name != "unknown:noise"}
    build |= {
        "unknown:near/yellow": partial(make_split, 25, 21, labels=[4] * 25, noise=80),
        "unknown:near/dim": partial(make_split, 17, 22, labels=[4] * 17, noise=120),
        "unknown:far/noise": partial(make_split, 21, 23, noise=500),
    }
    return Dataset("spectrum", "classification", plain.classes, build)


def test_sets_are_averaged_and_told_apart(make_backbone, spectrum, context):
    predictions = TASK.run(make_backbone(), spectrum, TASK.recipe(), context).predictions
    split = predictions["split"]
    shifts = ["shift:noise", "shift:loud"]
    near, far = ["unknown:near/yellow", "unknown:near/dim"], ["unknown:far/noise"]

    def auroc(detector, sets, known):
        each = []
        for name in sets:
            of = np.isin(split.astype(str), [*known, name])
            each.append(roc_auc_score(split[of] != name, predictions[detector][of]))
        return pytest.approx(100 * np.mean(each))

    found = TASK.measure(predictions, spectrum).scores(np.ones(len(split)))
    assert list(found) == [name for name in TASK.scores if not name.endswith("mcm")]
    everything = ["unknown:yellow", *near, *far]
    for detector, end in (("knn", ""), ("msp", "_msp"), ("vim", "_vim")):
        assert found[f"auroc{end}"] == auroc(detector, everything, ["test"])
        assert found[f"near_auroc{end}"] == auroc(detector, near, ["test"])
        assert found[f"far_auroc{end}"] == auroc(detector, far, ["test"])
        assert found[f"full_spectrum_auroc{end}"] == auroc(detector, everything, ["test", *shifts])
    assert found["auroc"] > 75  # nothing known is yellow
    assert TASK.headline == "auroc"
    assert TASK.splits(spectrum) == ["train", "val", "test", *everything[:1], *everything[1:], *shifts]


def test_without_shifts_or_kinds_of_unknown_sets_there_are_no_such_scores(make_backbone, squares_data, context):
    whole = squares_data()
    build = {name: partial(whole.__getitem__, name) for name in ("train", "val", "test", "unknown:yellow")}
    data = Dataset("bare", "classification", whole.classes, build)
    predictions = TASK.run(make_backbone(), data, TASK.recipe(), context).predictions
    found = TASK.measure(predictions, data).scores(np.ones(len(predictions["id"])))
    assert not [name for name in found if name.startswith(("near", "far", "full"))]
    assert TASK.splits(data) == ["train", "val", "test", "unknown:yellow"]


def test_words_are_matched_where_the_backbone_has_them(make_backbone, squares_data, context):
    data = squares_data()
    predictions = TASK.run(make_backbone(text=True), data, TASK.recipe(), context).predictions
    found = TASK.measure(predictions, data).scores(np.ones(len(predictions["id"])))
    assert {"auroc_mcm", "fpr95_mcm", "full_spectrum_auroc_mcm"} <= found.keys()
    assert set(DETECTORS) <= predictions.keys()
    assert "mcm" not in TASK.run(make_backbone(), data, TASK.recipe(), context).predictions


def test_every_image_passes_the_network_once(make_backbone, squares_data, context):
    data = squares_data()
    TASK.run(make_backbone(text=True), data, TASK.recipe(), context)
    assert context.images == sum(len(data[name]) for name in TASK.splits(data))


def test_scores_that_are_missing_or_not_finite_are_refused(make_backbone, squares_data, context):
    data = squares_data()
    predictions = TASK.run(make_backbone(), data, TASK.recipe(), context).predictions
    with pytest.raises(BadInput, match="column 'vim' is missing"):
        TASK.measure({name: column for name, column in predictions.items() if name != "vim"}, data)
    broken = predictions["react"].copy()
    broken[4] = np.nan
    with pytest.raises(BadInput, match="row 4: react is not finite"):
        TASK.measure(predictions | {"react": broken}, data)


def test_its_picture_has_a_point_a_detector_and_set(make_backbone, spectrum, context):
    predictions = TASK.run(make_backbone(), spectrum, TASK.recipe(), context).predictions
    left, right = TASK.picture(predictions, spectrum).axes
    assert [text.get_text() for text in right.get_yticklabels()] == list(DETECTORS.values())[:-1]
    assert [text.get_text() for text in right.get_legend().get_texts()] == [
        "yellow",
        "near/yellow",
        "near/dim",
        "far/noise",
    ]
    assert "known, shifted" in [text.get_text() for text in left.get_legend().get_texts()]
