"""The multi-label probe and its scores against scikit-learn."""

import numpy as np
import pytest
from backbench.backbones import BadInput
from backbench.tasks import Dataset, Split, estimate, find_task, read_predictions, write_predictions
from backbench.tasks.classification.multilabel_probe import Ranking
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 50), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_scores_are_scikit_learns(count, values, labels, seed):
    """Ties, weights, targets that are not known, and labels with one side only."""
    rng = np.random.default_rng(seed)
    scores, targets = rng.integers(0, values, (count, labels)).astype(float), rng.integers(-1, 2, (count, labels))
    weights = rng.integers(1, 4, count).astype(float)
    aurocs, precisions = [], []
    for s, t in zip(scores.T, targets.T, strict=True):
        known = t >= 0
        if len(np.unique(t[known])) == 2:
            aurocs.append(roc_auc_score(t[known], s[known], sample_weight=weights[known]))
            precisions.append(average_precision_score(t[known], s[known], sample_weight=weights[known]))
    found = Ranking(scores, targets)(weights)
    if not aurocs:
        assert found == {}
    else:
        assert found == pytest.approx({"mean_auroc": 100 * np.mean(aurocs), "map": 100 * np.mean(precisions)})


def test_a_replicate_without_one_side_leaves_the_label_out():
    ranking = Ranking(np.array([[1.0, 0], [0, 1], [2, 2]]), np.array([[1, 1], [0, 0], [0, 1]]))
    assert ranking(np.array([1.0, 1, 0])) == {"mean_auroc": 50.0, "map": 75.0}
    assert ranking(np.array([0.0, 1, 1])) == {"mean_auroc": 100.0, "map": 100.0}
    assert ranking(np.array([0.0, 0, 1])) == {"mean_auroc": 50.0, "map": 0.0}


@pytest.fixture
def colours(make_split):
    """Which of red, green, blue is strong in a square; a few are not known."""

    def split(count, seed):
        made = make_split(count, seed, noise=90)
        targets = (np.asarray(made.targets)[:, None] == np.arange(3)).astype(np.int8)
        targets[::7, 1] = -1
        return Split(made.images, targets, f"colours-{count}-{seed}", made.ids)

    splits = {"train": lambda: split(80, 3), "val": lambda: split(30, 4), "test": lambda: split(50, 5)}
    return Dataset("colours", "multilabel", ("red", "green", "blue"), splits)


def test_learns_repeats_and_scores_from_stored_predictions(colours, make_backbone, context, tmp_path):
    task = find_task("multilabel-probe")
    task.check_data(colours)
    outcome = task.run(make_backbone(), colours, task.recipe(), context)
    found = estimate(task.measure(outcome.predictions, colours))
    assert list(found) == list(task.scores)
    assert found["mean_auroc"].value > 80
    assert outcome.chosen["labels_scored"] == 3
    write_predictions(outcome.predictions, tmp_path / "p.parquet")
    assert estimate(task.measure(read_predictions(tmp_path / "p.parquet"), colours)) == found
    again = task.run(make_backbone(), colours, task.recipe(), context)
    np.testing.assert_array_equal(again.predictions["logits"], outcome.predictions["logits"])
    outcome.predictions["id"] = outcome.predictions["id"][::-1]
    with pytest.raises(BadInput, match="row 0 is for image"):
        task.measure(outcome.predictions, colours)
