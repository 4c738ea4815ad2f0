"""The path of logistic regressions, and ridge regression, against scikit-learn, and what they take."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from backbench.tasks import design
from backbench.tasks.classification.linear_probe import STRENGTHS
from backbench.tasks.logistic import Path
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

GRID = STRENGTHS[::4]


def blobs(seed, count=200, width=12, classes=4, spread=3.0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, count)
    x = rng.normal(size=(classes, width))[y] + spread * rng.normal(size=(count, width))
    return x * np.exp(rng.normal(size=width)) + rng.normal(size=width), y


def path_of(x, y, classes=4):
    return Path([(torch.tensor(x), torch.tensor(y))], classes)


def objective(weight, bias, x, y, c):
    logits = x @ weight.T + bias
    log_sum = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
    return c * (log_sum - logits[np.arange(len(y)), y]).sum() + (weight**2).sum() / 2


@pytest.fixture
def streamed(monkeypatch):
    """Small features are read in place and in float32, as large ones are."""
    monkeypatch.setattr(design, "HELD", 0)
    monkeypatch.setattr(design, "BLOCK", 1024)


@pytest.mark.parametrize(("count", "width", "spread"), [(200, 12, 3.0), (200, 300, 3.0), (600, 40, 1.0), (20, 4, 0.1)])
@pytest.mark.parametrize("way", ["held", "streamed"])
def test_every_probe_is_scikit_learns(count, width, spread, way, request):
    """Overlapping and separable, more features than examples too."""
    if way == "streamed":
        request.getfixturevalue("streamed")
    x, y = blobs(0, count, width, spread=spread)
    x = x.astype(np.float32)
    scaled = StandardScaler().fit_transform(x.astype(float))
    for c, probe in zip(GRID, path_of(x, y).probes(GRID), strict=True):
        reference = LogisticRegression(C=c, tol=1e-10, max_iter=20_000).fit(scaled, y)
        least = objective(reference.coef_, reference.intercept_, scaled, y, c)
        assert objective(probe.weight.numpy(), probe.bias.numpy(), scaled, y, c) <= least * (1 + 1e-4)
        expected = reference.predict_proba(scaled)
        if c <= 1:
            np.testing.assert_allclose(probe.probabilities(torch.tensor(x)).numpy(), expected, atol=1e-2)


def test_strengths_come_in_order_and_do_not_hang_on_the_grid():
    x, y = blobs(1)
    (alone,) = path_of(x, y).probes([1e-2])
    among = dict(zip([1e-4, 1e-2, 1.0], path_of(x, y).probes([1.0, 1e-4, 1e-2]), strict=True))[1e-2]
    features = torch.tensor(x)
    torch.testing.assert_close(alone.probabilities(features), among.probabilities(features), atol=5e-3, rtol=0)


def test_a_start_changes_the_passes_and_not_the_probe():
    x, y = blobs(2, 2000, 30)
    (first,) = path_of(x[:1500], y[:1500]).probes([0.1])
    cold, warm = path_of(x, y), path_of(x, y)
    ((a,), (b,)) = cold.probes([0.1]), warm.probes([0.1], start=first)
    assert warm.passes < cold.passes
    features = torch.tensor(x)
    torch.testing.assert_close(a.probabilities(features), b.probabilities(features), atol=1e-2, rtol=0)


def test_parts_are_one(streamed):
    x, y = blobs(3)
    tensors = torch.tensor(x), torch.tensor(y)
    parts = [tuple(t[:77] for t in tensors), tuple(t[77:] for t in tensors)]
    whole, split = (list(Path(p, 4).probes(GRID))[-3] for p in ([tensors], parts))
    torch.testing.assert_close(whole.logits(tensors[0]), split.logits(tensors[0]), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("way", ["held", "streamed"])
def test_features_that_say_nothing_change_nothing(way, request):
    if way == "streamed":
        request.getfixturevalue("streamed")
    x, y = blobs(1)
    constant = np.concatenate([x, np.full((len(x), 1), 7.1), np.zeros((len(x), 1))], axis=1)
    (plain,), (padded,) = path_of(x, y).probes([0.1]), path_of(constant, y).probes([0.1])
    torch.testing.assert_close(
        plain.probabilities(torch.tensor(x)), padded.probabilities(torch.tensor(constant)), atol=2e-3, rtol=0
    )


def test_a_class_without_examples_is_never_predicted():
    x, y = blobs(2, classes=3)
    for probe in path_of(x, y, 5).probes(GRID):
        chances = probe.probabilities(torch.tensor(x))
        assert chances.isfinite().all()
        assert (chances[:, 3:] == 0).all()


def test_one_class_alone_is_certain():
    x, _ = blobs(2)
    (probe,) = path_of(x, np.full(len(x), 2)).probes([1.0])
    torch.testing.assert_close(probe.probabilities(torch.tensor(x)), torch.eye(4).double()[[2] * len(x)])


def test_examples_of_no_class_are_left_out():
    x, y = blobs(4)
    known = y != 3
    (all_of,), (some,) = path_of(x, np.where(known, y, -1)).probes([0.1]), path_of(x[known], y[known]).probes([0.1])
    assert torch.equal(all_of.weight, some.weight)


@pytest.mark.parametrize("way", ["held", "streamed"])
def test_a_probe_does_not_hang_on_threads(way, request):
    if way == "streamed":
        request.getfixturevalue("streamed")
    x, y = blobs(3, count=2000, width=64)
    found, before = [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append([p.weight for p in path_of(x.astype(np.float32), y).probes(GRID)])
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_each_label_is_a_regression_of_its_own():
    """Three labels, some not known, one always absent, one always present, one never known."""
    rng = np.random.default_rng(0)
    x, _ = blobs(5, 400)
    y = (x @ rng.normal(size=(12, 6)) + 20 * rng.normal(size=(400, 6)) > 0).astype(np.int8)
    y[rng.random(y.shape) < 0.2] = -1
    y[:, 3], y[:, 4], y[:, 5] = 0, 1, -1
    scaled = StandardScaler().fit_transform(x)
    for c, probe in zip(GRID, path_of(x, y, 6).probes(GRID), strict=True):
        logits = probe.logits(torch.tensor(x))
        assert (logits[:, 3] < -1e3).all()
        assert (logits[:, 4] > 1e3).all()
        for label in range(3):
            known = y[:, label] >= 0
            reference = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(scaled[known], y[known, label])
            expected = reference.predict_proba(scaled)[:, 1]
            np.testing.assert_allclose(logits[:, label].sigmoid().numpy(), expected, atol=1e-2)


@pytest.mark.parametrize("width", [12, 300])
@pytest.mark.parametrize("way", ["held", "streamed"])
def test_ridge_is_scikit_learns(width, way, request):
    if way == "streamed":
        request.getfixturevalue("streamed")
    x, y = blobs(6, width=width)
    scaled, targets = StandardScaler().fit_transform(x), 2.0 * (y[:, None] == np.arange(4)) - 1
    for c, probe in zip(GRID[:8], path_of(x, y).ridge(GRID[:8]), strict=True):
        reference = Ridge(alpha=1 / c).fit(scaled, targets)
        np.testing.assert_allclose(
            probe.logits(torch.tensor(x)).numpy(), reference.predict(scaled), atol=1e-6 if way == "held" else 5e-3
        )


MEMORY = """
import sys, threading, time
import numpy as np, torch
from backbench.tasks.logistic import Path
torch.set_num_threads(1)
rows = int(sys.argv[2])
x = torch.from_numpy(np.memmap(sys.argv[1], np.float32, "r+", shape=(rows, 128)))
y = torch.arange(rows) % 10
def anonymous():
    return int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1])
peak, before = [0], anonymous()
def watch():
    while True:
        peak[0] = max(peak[0], anonymous()); time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
list(Path([(x[: rows // 2], y[: rows // 2]), (x[rows // 2 :], y[rows // 2 :])], 10).probes([1e-4]))
print(peak[0] - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_examples(tmp_path):
    rng, took = np.random.default_rng(0), []
    for rows in (20_000, 160_000):
        file = tmp_path / f"{rows}.bin"
        rng.standard_normal((rows, 128), dtype=np.float32).tofile(file)
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(file), str(rows)], capture_output=True, text=True, check=True
        )
        took.append(int(done.stdout))
    assert took[1] - took[0] < 32 * 1024  # KiB, labels and the allocator's mood; the features would be 70 MiB more
