"""Scores of semantic segmentation: against mmsegmentation, torchmetrics and scikit-learn, and what is refused."""

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput
from backbench.tasks import Split
from backbench.tasks.datasets import IGNORE
from backbench.tasks.openmmlab.gate import openmmlab
from backbench.tasks.segmentation.confusion import as_png, count, from_png
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, jaccard_score, recall_score
from torchmetrics.functional.classification import multiclass_jaccard_index

CLASSES = 5


def labelled(rng, images=6, classes=CLASSES):
    """Labels with ignored pixels, and predictions that are often right, of images of several sizes."""
    sizes = rng.integers(3, 20, (images, 2))
    truth = [rng.integers(0, classes, size).astype(np.uint8) for size in sizes]
    found = [np.where(rng.random(t.shape) < 0.6, t, rng.integers(0, classes, t.shape)).astype(np.uint8) for t in truth]
    for t in truth:
        t[rng.random(t.shape) < 0.2] = IGNORE
    return truth, found


def scores_of(truth, found, weights=None, classes=CLASSES):
    split = Split([None] * len(truth), truth, "labels")
    masks = np.empty(len(found), dtype=object)
    masks[:] = [as_png(f) for f in found]
    return count({"mask": masks}, split, classes).scores(np.ones(len(truth)) if weights is None else weights)


def flat(truth, found):
    truth, found = (np.concatenate([m.ravel() for m in masks]) for masks in (truth, found))
    return truth[truth != IGNORE], found[truth != IGNORE]


ODDITIES = ("none", "three classes", "a class only predicted", "an image ignored", "one class", "all wrong")


def odd(what, seed):
    """Labels and predictions with something odd about them."""
    rng = np.random.default_rng(seed)
    truth, found = labelled(rng, classes={"three classes": 3, "one class": 1}.get(what, CLASSES))
    if what == "a class only predicted":
        truth = [np.where(t == 2, 0, t).astype(np.uint8) for t in truth]
    if what == "an image ignored":
        truth[1][:] = IGNORE
    if what == "all wrong":
        found = [np.where(t == IGNORE, 0, (t.astype(int) + 1) % CLASSES).astype(np.uint8) for t in truth]
    return truth, found


@pytest.mark.parametrize("what", ODDITIES)
@pytest.mark.parametrize("seed", range(2))
def test_scores_equal_torchmetrics_and_scikit_learn(what, seed):
    truth, found = odd(what, seed)
    scores, (t, f) = scores_of(truth, found), flat(truth, found)
    assert scores["miou"] == pytest.approx(100 * jaccard_score(t, f, average="macro", zero_division=0), abs=1e-9)
    whole = (torch.tensor(np.concatenate([m.ravel() for m in masks])) for masks in (found, truth))
    theirs = multiclass_jaccard_index(*whole, CLASSES, ignore_index=IGNORE)
    assert scores["miou"] / 100 == pytest.approx(float(theirs), abs=1e-6)
    assert scores["pixel_accuracy"] == pytest.approx(100 * (t == f).mean())
    true = np.unique(t)
    assert scores["mean_accuracy"] == pytest.approx(100 * recall_score(t, f, average="macro", labels=true), abs=1e-9)


@pytest.mark.parametrize("what", ODDITIES)
@pytest.mark.parametrize("seed", range(2))
def test_scores_equal_mmsegmentation(what, seed):
    """Its `evaluate` rounds to hundredths of a percent, so the two functions under it are compared."""
    pytest.importorskip("mmengine")
    metric = openmmlab("mmseg.evaluation").IoUMetric
    truth, found = odd(what, seed)
    pairs = [(torch.tensor(f), torch.tensor(t)) for f, t in zip(found, truth, strict=True)]
    areas = [metric.intersect_and_union(*pair, CLASSES, IGNORE) for pair in pairs]
    theirs = metric.total_area_to_metrics(*(sum(parts) for parts in zip(*areas, strict=True)))
    scores = scores_of(truth, found)
    for ours, name in (("miou", "IoU"), ("pixel_accuracy", "aAcc"), ("mean_accuracy", "Acc")):
        assert scores[ours] / 100 == pytest.approx(float(np.nanmean(theirs[name])), abs=1e-6)


def test_classes_that_do_not_occur_are_left_out():
    truth, found = labelled(np.random.default_rng(7), classes=3)
    found[0][0, 0] = 4  # predicted, never true: counts in mIoU as 0, not in mean accuracy
    truth[0][0, 0] = 0
    t, f = flat(truth, found)
    table = confusion_matrix(t, f, labels=range(CLASSES))
    union = table.sum(0) + table.sum(1) - table.diagonal()
    assert (union > 0).tolist() == [True, True, True, False, True]
    scores = scores_of(truth, found)
    assert scores["miou"] == pytest.approx(100 * (table.diagonal() / np.maximum(union, 1))[union > 0].mean())
    assert scores["mean_accuracy"] == pytest.approx(100 * (table.diagonal()[:3] / table.sum(1)[:3]).mean())


@given(st.integers(0, 2**32 - 1))
def test_whole_weights_are_repeated_images(seed):
    rng = np.random.default_rng(seed)
    truth, found = labelled(rng, images=4)
    weights = rng.integers(0, 4, 4)
    rows = np.repeat(np.arange(4), weights)
    weighted = scores_of(truth, found, weights.astype(float))
    if len(rows):
        repeated = scores_of([truth[i] for i in rows], [found[i] for i in rows])
        assert weighted == pytest.approx(repeated)
    else:
        assert set(weighted.values()) == {0.0}


def test_all_right_and_all_ignored():
    truth, _ = labelled(np.random.default_rng(8))
    right = [np.where(t == IGNORE, 0, t).astype(np.uint8) for t in truth]
    assert set(scores_of(truth, right).values()) == {100.0}
    assert set(scores_of([np.full_like(t, IGNORE) for t in truth], right).values()) == {0.0}


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_masks_come_back_from_png(height, width, seed):
    mask = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    assert (from_png(as_png(mask), (height, width)) == mask).all()


@pytest.mark.parametrize(
    ("png", "message"),
    [
        (b"GIF89a", "row 1: 'mask': not a PNG"),
        (None, "row 1: 'mask': not a PNG"),
        (as_png(np.zeros((3, 4), np.uint8)), r"row 1: 'mask': a grey PNG of \(5, 6\)"),
        (as_png(np.zeros((5, 6, 3), np.uint8)), r"row 1: 'mask': a grey PNG of \(5, 6\)"),
        (as_png(np.full((5, 6), 9, np.uint8)), "row 1: 'mask': class 9; classes go from 0 to 4"),
    ],
)
def test_wrong_predictions_are_named(png, message):
    masks = np.empty(2, dtype=object)
    masks[:] = [as_png(np.zeros((5, 6), np.uint8)), png]
    split = Split([None] * 2, np.zeros((2, 5, 6), np.uint8), "labels")
    with pytest.raises(BadInput, match=message):
        count({"mask": masks}, split, CLASSES)
    with pytest.raises(BadInput, match="one PNG for each of the 2 images"):
        count({"mask": masks[:1]}, split, CLASSES)
