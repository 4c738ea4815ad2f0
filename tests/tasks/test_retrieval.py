"""Retrieval against scikit-learn and torchmetrics."""

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput
from backbench.tasks import Dataset, Split, estimate, find_task, read_predictions, write_predictions
from backbench.tasks.retrieval.retrieval import per_query
from sklearn.metrics import average_precision_score
from torchmetrics.functional.retrieval import (
    retrieval_average_precision,
    retrieval_hit_rate,
    retrieval_precision,
    retrieval_reciprocal_rank,
)

TASK = find_task("retrieval")


@pytest.mark.parametrize("seed", range(20))
def test_each_query_is_scored_as_by_others(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(5, 60))
    match = rng.random((6, size)) < rng.uniform(0.02, 0.6)
    match[:, rng.integers(size)] = True
    found = per_query(match)
    falling = torch.arange(size, 0, -1).float()
    for i, row in enumerate(match):
        target = torch.tensor(row)
        assert found["map"][i] == pytest.approx(average_precision_score(row, falling.numpy()))
        assert found["map"][i] == pytest.approx(float(retrieval_average_precision(falling, target)), rel=1e-5)
        assert found["mrr"][i] == pytest.approx(float(retrieval_reciprocal_rank(falling, target)), rel=1e-5)
        assert found["precision_at_5"][i] == pytest.approx(
            float(retrieval_precision(falling, target, top_k=5)), rel=1e-5
        )
        for k in (1, 5, 10):
            assert found[f"recall_at_{k}"][i] == float(retrieval_hit_rate(falling, target, top_k=k))


def test_a_gallery_smaller_than_k():
    found = per_query(np.array([[False, True, True]]))
    assert found["recall_at_10"][0] == 1
    assert found["precision_at_5"][0] == pytest.approx(0.4)
    assert found["map"][0] == pytest.approx((1 / 2 + 2 / 3) / 2)


def data_of(query, gallery):
    def split(labels, name):
        images = np.zeros((len(labels), 8, 8, 3), np.uint8)
        return lambda: Split(images, np.array(labels), name, [f"{name}{i}" for i in range(len(labels))])

    return Dataset("made", "retrieval", (), {"query": split(query, "q"), "gallery": split(gallery, "g")})


def test_queries_without_a_match_are_left_out():
    data = data_of([0, 7, 1], [0, 1, 1])
    predictions = {"id": np.array(["q0", "q1", "q2"], object), "ranking": np.array([[0, 1, 2]] * 3, np.int32)}
    measure = TASK.measure(predictions, data)
    assert measure.scores(np.ones(3))["map"] == pytest.approx(100 * (1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert measure.scores(np.array([1.0, 5, 0]))["map"] == pytest.approx(100)
    assert measure.scores(np.array([0.0, 5, 0]))["map"] == 0  # nothing drawn that counts


def test_no_match_at_all_is_said():
    predictions = {"id": np.array(["q0"], object), "ranking": np.array([[0, 1]], np.int32)}
    with pytest.raises(BadInput, match="no query has a match"):
        TASK.measure(predictions, data_of([5], [0, 1]))


def test_another_gallery_is_refused():
    predictions = {"id": np.array(["q0"], object), "ranking": np.array([[0, 1]], np.int32)}
    with pytest.raises(BadInput, match="rank 2 images, the gallery of made has 3"):
        TASK.measure(predictions, data_of([0], [0, 1, 2]))


def test_equal_similarities_keep_the_order_of_the_gallery(make_backbone, context):
    outcome = TASK.run(make_backbone(), data_of([0, 1], [0, 1, 2, 3]), TASK.recipe(), context)
    assert outcome.predictions["ranking"].tolist() == [[0, 1, 2, 3]] * 2


def test_learns_repeats_and_scores_from_stored_predictions(make_backbone, squares_data, context, tmp_path):
    data = squares_data("retrieval")
    TASK.check_data(data)
    outcome = TASK.run(make_backbone(), data, TASK.recipe(), context)
    found = estimate(TASK.measure(outcome.predictions, data))
    assert list(found) == list(TASK.scores)
    assert found["map"].value > 40  # four labels
    write_predictions(outcome.predictions, tmp_path / "p.parquet")
    assert estimate(TASK.measure(read_predictions(tmp_path / "p.parquet"), data)) == found
    again = TASK.run(make_backbone(), squares_data("retrieval"), TASK.recipe(), context)
    np.testing.assert_array_equal(outcome.predictions["ranking"], again.predictions["ranking"])
