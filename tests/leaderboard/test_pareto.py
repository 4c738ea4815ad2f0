"""The Pareto front against its definition, and of boards with ties and gaps."""

import numpy as np
import pytest
from backbench.backbones import BadInput
from backbench.leaderboard import Board, headline_columns, pareto_front
from backbench.leaderboard.pareto import on_front
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays


def dominates(a, b):
    return all(x >= y for x, y in zip(a, b, strict=True)) and any(x > y for x, y in zip(a, b, strict=True))


@given(arrays(float, st.tuples(st.integers(0, 9), st.integers(2, 4)), elements=st.integers(0, 3)))
def test_who_is_not_dominated(values):
    rows = values.tolist()
    found = on_front(values).tolist()
    assert found == [not any(dominates(other, row) for other in rows) for row in rows]
    assert not rows or any(found)


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=20), st.randoms())
def test_order_changes_nothing(points, random):
    kept = dict(zip(points, on_front(np.array(points)), strict=True))
    shuffled = random.sample(points, len(points))
    assert dict(zip(shuffled, on_front(np.array(shuffled)), strict=True)) == kept


def test_overall_score_against_parameters(board):
    found = pareto_front(board)
    rows = {row.backbone: row for row in board.rows}
    assert {c.backbone for c in found} == set(rows)
    sizes = [c.values["parameters"] for c in found]
    assert sizes == sorted(sizes)
    for c in found:
        assert c.values["overall"] == rows[c.backbone].standing.overall
        assert c.values["parameters"] == rows[c.backbone].facts.parameters
    # The two smallest are equally large: only the better of them can be on the front.
    smallest = [c for c in found if c.values["parameters"] == sizes[0]]
    assert [c.front for c in smallest] == [True, False]
    best = max(found, key=lambda c: c.values["overall"])
    assert best.front


def test_several_objectives_and_lower_is_better(board):
    keys = ["knn", "retrieval", "mean-rank", "parameters"]
    found = pareto_front(board, keys)
    turned = [[c.values["knn"], c.values["retrieval"], -c.values["mean-rank"], -c.values["parameters"]] for c in found]
    for c, own in zip(found, turned, strict=True):
        assert list(c.values) == keys
        assert c.front == (not any(dominates(other, own) for other in turned))


def test_who_lacks_an_objective_is_not_there(gauntlet):
    results = [r for r in gauntlet if (r.backbone.name, r.task.name) != ("mini/vit-masked", "knn")]
    partial = Board.of(results, headline_columns(results))
    assert "mini/vit-masked" not in {c.backbone for c in pareto_front(partial, ["knn", "parameters"])}
    assert "mini/vit-masked" in {c.backbone for c in pareto_front(partial, ["retrieval", "parameters"])}


def test_a_published_board_too(published):
    found = pareto_front(published, ["imagenet-1k", "parameters"])
    assert len(found) == 12
    assert found[0].front  # nothing is smaller


def test_what_makes_no_front(board):
    with pytest.raises(BadInput, match=r"no objective 'parameter'.*parameters"):
        pareto_front(board, ["overall", "parameter"])
    with pytest.raises(BadInput, match="no objective 'backbone'"):
        pareto_front(board, ["overall", "backbone"])
    with pytest.raises(BadInput, match="two objectives or more"):
        pareto_front(board, ["overall", "overall"])
    with pytest.raises(BadInput, match=r"no backbone on this board has macs$"):
        pareto_front(board, ["overall", "macs"])
