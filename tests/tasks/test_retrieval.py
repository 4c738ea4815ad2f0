"""Retrieval against scikit-learn, torchmetrics and the revisited Oxford and Paris evaluation, written out plainly."""

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput, find_backbone, load_backbone
from backbench.tasks import Dataset, Split, estimate, find_task, load_dataset, read_predictions, write_predictions
from backbench.tasks.datasets import Judgement
from backbench.tasks.retrieval import ranking as module
from backbench.tasks.retrieval.ranking import ranking
from backbench.tasks.retrieval.retrieval import per_query
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torch.nn.functional import normalize
from torchmetrics.functional.retrieval import (
    retrieval_hit_rate,
    retrieval_precision,
    retrieval_reciprocal_rank,
)

TASK = find_task("retrieval")
NONE = np.zeros(0, np.int64)


# -- scores of a ranking -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_each_query_is_scored_as_by_others(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(5, 300))
    match = rng.random((6, size)) < rng.uniform(0.02, 0.6)
    match[:, rng.integers(size)] = True
    found = per_query([np.flatnonzero(row) + 1 for row in match])
    falling = torch.arange(size, 0, -1).float()
    for i, row in enumerate(match):
        target = torch.tensor(row)
        assert found["map"][i] == pytest.approx(average_precision_score(row, falling.numpy()))
        assert found["mrr"][i] == pytest.approx(float(retrieval_reciprocal_rank(falling, target)), rel=1e-5)
        for k in (1, 5, 10):
            assert found[f"recall_at_{k}"][i] == float(retrieval_hit_rate(falling, target, top_k=k))
            assert found[f"precision_at_{k}"][i] == pytest.approx(
                float(retrieval_precision(falling, target, top_k=k)), rel=1e-5
            )


matches = st.lists(st.booleans(), min_size=1, max_size=150).filter(any)


@given(matches)
def test_trapezoids_lie_between_neighbouring_precisions(row):
    """The area under the curve that joins (recall, precision) after each place, from precision 1 before the first."""
    hits = np.cumsum(row)
    precision, recall = hits / np.arange(1, len(row) + 1), hits / hits[-1]
    joined = np.trapezoid(np.append(1, precision), np.append(0, recall))
    assert per_query([np.flatnonzero(row) + 1])["map_trapezoid"][0] == pytest.approx(joined)


@given(matches)
@example([True] * 120)  # more answers than can count
@example([False] * 100 + [True])
def test_average_precision_at_100_is_that_of_google_landmarks(row):
    asked, hits, total = min(sum(row), 100), 0, 0.0
    for place, right in enumerate(row[:100], start=1):
        hits += right
        total += right * hits / place
    assert per_query([np.flatnonzero(row) + 1])["map_at_100"][0] == pytest.approx(total / asked)


def test_a_query_without_answers_has_no_score():
    found = per_query([NONE, np.array([2])])
    assert all(np.isnan(values[0]) for values in found.values())
    assert found["mrr"][1] == 0.5


# -- rankings ------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 60), st.integers(1, 70))
def test_rankings_are_those_of_a_stable_sort_in_blocks_of_any_size(seed, size, rows, pairs):
    """Rows of ±1, so that many cosines are equal."""
    rng = np.random.default_rng(seed)
    queries, gallery = (torch.from_numpy(rng.choice([-1.0, 1.0], (n, 4))).float() for n in (5, size))
    part = [rng.integers(0, 3, size) for _ in queries]  # 0 nothing, 1 an answer, 2 left out
    answers, out = ([np.flatnonzero(p == kind) for p in part] for kind in (1, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS", rows)
        patch.setattr(module, "PAIRS", pairs)
        first, ranks = ranking(queries, gallery, answers, out)
    order = (queries @ gallery.T).sort(dim=1, descending=True, stable=True).indices.numpy()
    for i, row in enumerate(order):
        kept = row[~np.isin(row, out[i])]
        assert first[i].tolist() == [*kept[:10], *[-1] * (10 - len(kept[:10]))]
        assert ranks[i].tolist() == (np.flatnonzero(np.isin(kept, answers[i])) + 1).tolist()


def test_equal_images_rank_in_their_order_wherever_they_stand():
    rng = torch.Generator().manual_seed(0)
    gallery = torch.randn(400, 37, generator=rng).repeat(5, 1)
    first, ranks = ranking(torch.randn(9, 37, generator=rng), gallery, [np.arange(2000)] * 9, [NONE] * 9)
    assert ((np.diff(first[:, :5], axis=1)) == 400).all()
    assert all(r.tolist() == list(range(1, 2001)) for r in ranks)


# -- the task ------------------------------------------------------------------------------------------------------


def data_of(query, gallery, judgements=None, hard=None):
    def split(labels, name, judged=None):
        images = np.random.default_rng(len(labels)).integers(0, 255, (len(labels), 8, 8, 3), np.uint8)
        ids = [f"{name}{i}" for i in range(len(labels))]
        return lambda: Split(images, np.array(labels), name + str(labels), ids, judgements=judged)

    splits = {"gallery": split(gallery, "g", judgements if query is None else None)}
    if query is not None:
        splits = {"query": split(query, "q", judgements)} | splits
    if hard is not None:
        splits["query:hard"] = split(query, "q", hard)
    return Dataset("made", "retrieval", (), splits)


def stored(first, ranks, split="query"):
    column = np.empty(len(ranks), object)
    column[:] = [np.array(r, np.int32) for r in ranks]
    first = [row + [-1] * (10 - len(row)) for row in first]
    ids = np.array([f"q{i}" for i in range(len(ranks))], object)
    return {"split": np.full(len(ranks), split, object), "id": ids, "first": np.array(first), "ranks": column}


def test_queries_without_a_match_are_left_out():
    data = data_of([0, 7, 1, -1], [0, 1, 1, -1])
    measure = TASK.measure(stored([[0, 1, 2, 3]] * 4, [[1], [], [2, 3], []]), data)
    assert measure.scores(np.ones(4))["map"] == pytest.approx(100 * (1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert measure.scores(np.array([1.0, 5, 0, 5]))["map"] == pytest.approx(100)
    assert measure.scores(np.array([0.0, 5, 0, 1]))["map"] == 0  # nothing drawn that counts


def test_no_match_at_all_is_said():
    with pytest.raises(BadInput, match="no query has a match"):
        TASK.measure(stored([[0, 1]], [[]]), data_of([5], [0, 1]))


@pytest.mark.parametrize(
    ("first", "ranks", "wrong"),
    [
        ([2, 0, 1], [1], "has ranks of 1 answers, the data set has 2"),
        ([2, 0, 1], [0, 1], "rising from 1 to 3"),
        ([2, 0, 1], [2, 2], "rising from 1 to 3"),
        ([2, 0, 1], [3, 4], "rising from 1 to 3"),
        ([2, 0, 1], [2, 3], "contradict its first places"),
        ([2, 2, 1], [1, 3], "are not 3 images"),
        ([3, 2, 1], [2, 3], "are not 3 images"),
        ([2, 0], [1, 3], "are not 3 images"),
        ([2, 0, 1, 0], [1, 3], "are not 3 images"),
    ],
)
def test_predictions_that_contradict_themselves_or_the_data_are_refused(first, ranks, wrong):
    data = data_of([1], [0, 1, 1])
    assert TASK.measure(stored([[2, 0, 1]], [[1, 3]]), data).scores(np.ones(1))["mrr"] == 100
    with pytest.raises(BadInput, match=f"query q0 .*{wrong}"):
        TASK.measure(stored([first], [ranks]), data)


def test_another_query_set_is_refused():
    with pytest.raises(BadInput, match="predictions are for 1 images"):
        TASK.measure(stored([[0]], [[1]]), data_of([0, 0], [0]))


def rank_by_hand(backbone, data, context):
    """Ids of the whole gallery for each query, best first."""
    query = data["query"] if "query" in data.split_names else data["gallery"]
    q, g = (normalize(context.embeddings(backbone, split).double()) for split in (query, data["gallery"]))
    return [[data["gallery"].ids[j] for j in row] for row in (q @ g.T).argsort(dim=1, descending=True, stable=True)]


def revisited(order, positive, junk):
    """Average precision of one query as the revisited benchmark has it: junk taken out, then trapezoids."""
    kept = [name for name in order if name not in junk]
    ranks = [place for place, name in enumerate(kept) if name in positive]  # from 0
    area = 0.0
    for found, place in enumerate(ranks):
        before = 1.0 if place == 0 else found / place
        area += (before + (found + 1) / (place + 1)) / (2 * len(ranks))
    return area


def test_judged_queries_are_scored_as_revisited_oxford_and_paris(make_backbone, context):
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, (12, 40))
    kinds[3][kinds[3] == 1] = 0  # a query without answers: not counted
    judgements = [
        Judgement(tuple(f"g{j}" for j in np.flatnonzero(row == 1)), tuple(f"g{j}" for j in np.flatnonzero(row == 2)))
        for row in kinds
    ]
    data = data_of([0] * 12, [0] * 40, judgements)
    backbone = make_backbone()
    outcome = TASK.run(backbone, data, TASK.recipe(), context)
    orders = rank_by_hand(backbone, data, context)
    each = [revisited(o, j.positive, j.junk) for o, j in zip(orders, judgements, strict=True) if j.positive]
    found = TASK.measure(outcome.predictions, data).scores(np.ones(12))
    assert len(each) == 11
    assert found["map_trapezoid"] == pytest.approx(100 * np.mean(each))


def test_queries_of_another_split(make_backbone, context):
    easy, hard = [Judgement(("g0", "g1"), ("g2",))] * 2, [Judgement(("g2",), ("g0", "g1"))] * 2
    data = data_of([0, 0], [0] * 5, easy, hard)
    backbone = make_backbone()
    predictions = TASK.run(backbone, data, TASK.recipe({"queries": "query:hard"}), context).predictions
    expected = [revisited(order, {"g2"}, {"g0", "g1"}) for order in rank_by_hand(backbone, data, context)]
    assert TASK.measure(predictions, data).scores(np.ones(2))["map_trapezoid"] == pytest.approx(100 * np.mean(expected))
    assert TASK.splits(data) == ["query", "gallery", "query:hard"]
    with pytest.raises(BadInput, match="did you mean 'query:hard'"):
        TASK.run(backbone, data, TASK.recipe({"queries": "query:hrad"}), context)
    predictions["split"][0] = "query"
    with pytest.raises(BadInput, match="of 2 splits"):
        TASK.measure(predictions, data)


@pytest.mark.parametrize(
    ("judgement", "wrong"),
    [
        (Judgement(("g0", "g9")), "query q0: its answer 'g9' is not in the gallery"),
        (Judgement(("g0", "g1"), ("g1",)), "query q0: 'g1' is both positive and junk"),
    ],
)
def test_judgements_that_cannot_be_are_refused(judgement, wrong, make_backbone, context):
    with pytest.raises(BadInput, match=wrong):
        TASK.run(make_backbone(), data_of([0], [0, 0], [judgement]), TASK.recipe(), context)


def test_a_part_of_the_gallery_has_a_part_of_the_answers(make_backbone, context):
    judgements = [Judgement(tuple(f"g{i}" for i in range(8)))] * 4
    data = data_of([0] * 4, [0] * 8, judgements).limited(2)
    outcome = TASK.run(make_backbone(), data, TASK.recipe(), context)
    assert [len(r) for r in outcome.predictions["ranks"]] == [2, 2]  # of g0 and g7


def test_without_queries_each_image_looks_for_the_others(make_backbone, context):
    data = data_of(None, [0, 0, 0, 1, 1, 2])
    TASK.check_data(data)
    assert TASK.splits(data) == ["gallery"]
    backbone = make_backbone()
    predictions = TASK.run(backbone, data, TASK.recipe(), context).predictions
    labels = dict(zip(data["gallery"].ids, data["gallery"].targets, strict=True))
    each = []
    for name, order in zip(data["gallery"].ids, rank_by_hand(backbone, data, context), strict=True):
        others = [other for other in order if other != name]
        right = np.array([labels[other] == labels[name] for other in others])
        if right.any():
            each.append(average_precision_score(right, -np.arange(5)))
    assert TASK.measure(predictions, data).scores(np.ones(6))["map"] == pytest.approx(100 * np.mean(each))
    assert all(i not in row for i, row in enumerate(predictions["first"]))


def test_learns_repeats_and_scores_from_stored_predictions(make_backbone, squares_data, context, tmp_path):
    data = squares_data("retrieval")
    TASK.check_data(data)
    assert TASK.splits(data) == ["query", "gallery"]
    outcome = TASK.run(make_backbone(), data, TASK.recipe(), context)
    found = estimate(TASK.measure(outcome.predictions, data))
    assert list(found) == list(TASK.scores)
    assert found["map"].value > 40  # four labels
    write_predictions(outcome.predictions, tmp_path / "p.parquet")
    assert estimate(TASK.measure(read_predictions(tmp_path / "p.parquet"), data)) == found
    again = TASK.run(make_backbone(), squares_data("retrieval"), TASK.recipe(), context).predictions
    np.testing.assert_array_equal(outcome.predictions["first"], again["first"])
    assert all(map(np.array_equal, outcome.predictions["ranks"], again["ranks"]))


def test_what_is_stored_does_not_grow_with_the_gallery(make_backbone, context):
    judgements = [Judgement(("g0", "g1"))] * 3
    for size in (20, 200):
        data = data_of([0] * 3, [0] * size, judgements)
        predictions = TASK.run(make_backbone(), data, TASK.recipe(), context).predictions
        assert predictions["first"].shape == (3, 10)
        assert [len(r) for r in predictions["ranks"]] == [2, 2, 2]


# -- real images ---------------------------------------------------------------------------------------------------

EDGES = """\
kind: retrieval
source: imagefolder
path: {root}/datasets/texture_vs_shape/stimuli/edges
splits: {{gallery: .}}
license: CC-BY-4.0
"""


@pytest.mark.real
def test_real_drawings_find_their_like(mobilenet, real_data, tmp_path, context):
    """A gallery alone, with features learnt from photographs: far better than chance, and as scikit-learn has it."""
    (tmp_path / "data.yaml").write_text(EDGES.format(root=real_data))
    backbone = load_backbone(find_backbone(mobilenet))
    data = load_dataset(tmp_path / "data.yaml", "retrieval")
    predictions = TASK.run(backbone, data, TASK.recipe(), context).predictions
    unit, labels = normalize(context.embeddings(backbone, data["gallery"]).double()).numpy(), data["gallery"].targets
    others = ~np.eye(160, dtype=bool)
    rows = [((labels == labels[i])[others[i]], (unit @ unit[i])[others[i]]) for i in range(160)]
    expected = 100 * np.mean([average_precision_score(*row) for row in rows])
    assert TASK.measure(predictions, data).scores(np.ones(160))["map"] == pytest.approx(expected, abs=1e-3)
    assert expected > 3 * 100 * 9 / 159
