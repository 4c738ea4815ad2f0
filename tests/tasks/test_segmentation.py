"""Semantic segmentation: scores against torchmetrics and scikit-learn, the head against its definition, a run."""

from functools import partial

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput, Letterbox
from backbench.tasks import Dataset, Split, estimate, find_task
from backbench.tasks.datasets import IGNORE
from backbench.tasks.segmentation.confusion import as_png, count, from_png
from backbench.tasks.segmentation.linear_head import LinearHead, upsample
from backbench.tasks.segmentation.semantic_segmentation import labels_in
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, jaccard_score
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


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_other_libraries(seed):
    truth, found = labelled(np.random.default_rng(seed))
    scores, (t, f) = scores_of(truth, found), flat(truth, found)
    assert scores["miou"] == pytest.approx(100 * jaccard_score(t, f, average="macro"))
    theirs = multiclass_jaccard_index(torch.tensor(f), torch.tensor(t), CLASSES)
    assert scores["miou"] == pytest.approx(100 * float(theirs), rel=1e-6)
    assert scores["pixel_accuracy"] == pytest.approx(100 * (t == f).mean())
    assert scores["mean_accuracy"] == pytest.approx(100 * balanced_accuracy_score(t, f))


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


def test_the_head_is_linear_on_the_concatenated_maps():
    torch.manual_seed(0)
    head = LinearHead([4, 6], 3).eval()
    for part in head.parts:
        part[0].running_mean.normal_()
        part[0].running_var.uniform_(0.5, 2)
    fine, coarse = torch.randn(2, 4, 12, 12), torch.randn(2, 6, 6, 6)
    normed = [part[0](m) for part, m in zip(head.parts, (fine, coarse), strict=True)]
    stacked = torch.cat([normed[0], upsample(normed[1], (12, 12))], dim=1)
    weight = torch.cat([part[1].weight for part in head.parts], dim=1)
    whole = torch.nn.functional.conv2d(stacked, weight, head.parts[0][1].bias)
    torch.testing.assert_close(head([fine, coarse]), whole, atol=1e-5, rtol=1e-5)


def test_labels_lie_where_the_letterboxed_image_shows_them():
    letterbox = Letterbox(64, (0.5,) * 3, (0.5,) * 3, "bilinear")
    mask = np.zeros((20, 40), np.uint8)
    mask[:, 20:] = 3
    seen = labels_in(mask, letterbox)
    assert tuple(seen.shape) == (64, 64)
    assert (seen[32:] == IGNORE).all()
    assert (seen[:32, :32] == 0).all()
    assert (seen[:32, 32:] == 3).all()


def halves(count, seed):
    """Grey noise with a red half, left or right, and a strip nobody labelled; images of two shapes."""
    rng = np.random.default_rng(seed)
    images, masks = [], []
    for index in range(count):
        width = 48 if index % 2 else 64
        image, mask = rng.integers(90, 160, (64, width, 3)).astype(np.uint8), np.zeros((64, width), np.uint8)
        half = slice(0, width // 2) if rng.random() < 0.5 else slice(width // 2, None)
        image[:, half], mask[:, half] = (220, 30, 30), 1
        mask[:4] = IGNORE
        images.append(image)
        masks.append(mask)
    return Split(images, masks, f"halves-{count}-{seed}")


def test_learns_repeats_and_measures(make_backbone, context):
    data = Dataset(
        "halves", "segmentation", ("grey", "red"), {"train": partial(halves, 24, 1), "test": partial(halves, 11, 2)}
    )
    task, backbone = find_task("semantic-segmentation"), make_backbone(size=64)
    recipe = task.recipe({"size": 64, "epochs": 5, "batch": 5})
    state = torch.get_rng_state()
    outcome = task.run(backbone, data, recipe, context)
    assert torch.equal(state, torch.get_rng_state())
    found = estimate(task.measure(outcome.predictions, data))
    assert list(found) == list(task.scores)
    assert found["miou"].low > 85
    assert found["pixel_accuracy"].high <= 100
    again = task.run(backbone, data, recipe, context)
    assert all((outcome.predictions[name] == again.predictions[name]).all() for name in outcome.predictions)


def test_a_loss_that_is_no_number_ends_in_one_line(make_backbone, context):
    data = Dataset(
        "halves", "segmentation", ("grey", "red"), {"train": partial(halves, 24, 1), "test": partial(halves, 4, 2)}
    )
    task = find_task("semantic-segmentation")
    with pytest.raises(RuntimeError, match=r"the loss is (nan|inf) at step \d+ of 10; try a lower learning_rate"):
        task.run(make_backbone(size=64), data, task.recipe({"size": 64, "epochs": 5, "learning_rate": 1e38}), context)
