"""The sweep of the linear probe beside scikit-learn's, on features of a realistic spectrum, by its own defaults."""

import warnings

import numpy as np
import pytest
import torch
from backbench.tasks.classification.linear_probe import STRENGTHS
from backbench.tasks.logistic import Path
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import PredefinedSplit
from sklearn.preprocessing import StandardScaler

# LogisticRegressionCV starts each strength at the solution of the last one, as we do; most of the time of either goes
# into the matrix products of the passes.
BARS = {"scikit-learn, cold grid": 10.0, "LogisticRegressionCV": 5.0}
CLASSES, WIDTH = 100, 384
DRAWN = {"train": 50_000, "val": 5_000, "test": 10_000}


@pytest.fixture(scope="module")
def features():
    """Classes that overlap, variances that fall as a power law, in axes of their own, off the origin."""
    rng = np.random.default_rng(0)
    deviations = np.arange(1, WIDTH + 1) ** -0.5
    turn = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    centres, offset = 0.15 * rng.normal(size=(CLASSES, WIDTH)) * deviations, rng.normal(size=WIDTH)

    def draw(count):
        y = rng.integers(0, CLASSES, count)
        x = (centres[y] + rng.normal(size=(count, WIDTH)) * deviations) @ turn * 3 + offset
        return x.astype(np.float32), y

    return {name: draw(count) for name, count in DRAWN.items()}


def objective(weight, bias, x, y, c):
    logits = x @ weight.T + bias
    top = logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0] - logits[np.arange(len(y)), y]
    return c * losses.sum(dtype=float) + np.square(weight).sum() / 2


@pytest.mark.speed
def test_sweep_of_the_linear_probe(features, interleaved, report):
    (x, y), (x_val, y_val), (x_test, y_test) = features.values()
    both, labels = np.concatenate([x, x_val]), np.concatenate([y, y_val])
    ours, cold, own = {}, {}, {}

    def sweep():
        tensors = [torch.from_numpy(a) for a in (x, y, x_val, y_val)]
        probes = list(Path([tuple(tensors[:2])], CLASSES).probes(STRENGTHS))
        right = [float((p.logits(tensors[2]).argmax(1) == tensors[3]).double().mean()) for p in probes]
        best = int(np.argmax(right))
        path = Path([tuple(tensors[:2]), tuple(tensors[2:])], CLASSES)
        (refit,) = path.probes([STRENGTHS[best]], start=probes[best])
        ours.update(probes=probes, best=best, refit=refit)

    def grid():
        scaler = StandardScaler().fit(x)
        train, val = scaler.transform(x), scaler.transform(x_val)
        fits = [LogisticRegression(C=c).fit(train, y) for c in STRENGTHS]
        best = int(np.argmax([fit.score(val, y_val) for fit in fits]))
        scaler = StandardScaler().fit(both)
        refit = LogisticRegression(C=STRENGTHS[best]).fit(scaler.transform(both), labels)
        cold.update(fits=fits, best=best, accuracy=refit.score(scaler.transform(x_test), y_test))

    def searched():
        scaler = StandardScaler().fit(x)
        fold = PredefinedSplit(np.repeat([-1, 0], [len(x), len(x_val)]))
        fit = LogisticRegressionCV(Cs=STRENGTHS, cv=fold, use_legacy_attributes=False, scoring="accuracy")
        fit.fit(scaler.transform(both), labels)
        own.update(best=int(np.argmin(np.abs(np.log(STRENGTHS) - np.log(fit.C_)))))
        own.update(accuracy=fit.score(scaler.transform(x_test), y_test))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        seconds = interleaved(sweep, grid, searched, rounds=1)
    predicted = ours["refit"].logits(torch.from_numpy(x_test)).argmax(1).numpy()
    accuracy = float((predicted == y_test).mean())
    scaled = StandardScaler().fit_transform(x)
    above, converged = [], 0
    for c, probe, fit in zip(STRENGTHS, ours["probes"], cold["fits"], strict=True):
        theirs = objective(fit.coef_, fit.intercept_, scaled, y, c)
        above.append(objective(probe.weight.numpy(), probe.bias.numpy(), scaled, y, c) / theirs - 1)
        converged += int(fit.n_iter_[0] < fit.max_iter)
    for name, theirs, used in zip(BARS, (cold, own), seconds[1:], strict=True):
        held = (
            f"top-1 {100 * accuracy:.2f} and {100 * theirs['accuracy']:.2f}; step {ours['best']} and {theirs['best']}; "
            f"objective at most {max(above):.1e} above ({converged} of 45 converged)"
        )
        report(
            measure="sweep of 45 strengths",
            against=name,
            ours=seconds[0],
            theirs=used,
            bar=f"≥ {BARS[name]:g}x",
            held=held,
        )
    for name, theirs, used in zip(BARS, (cold, own), seconds[1:], strict=True):
        assert used >= BARS[name] * seconds[0]
        assert accuracy >= theirs["accuracy"] - 0.001
        assert abs(ours["best"] - theirs["best"]) <= 1
    assert max(above) <= 1e-4
