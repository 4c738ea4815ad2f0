"""Which results stand side by side: against the rules written out one result at a time."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from backbench.leaderboard import Asked, Board, headline_columns
from backbench.leaderboard.selection import REASONS, select
from backbench.leaderboard.snapshot import TRUSTS, Snapshot
from hypothesis import given
from hypothesis import strategies as st

START = datetime(2026, 1, 1, tzinfo=UTC)
TASKS = ("linear-probe", "knn", "retrieval")


@pytest.fixture(scope="module")
def made(content):
    """Makes a result from few choices, so that many of them meet."""
    from backbench.leaderboard import Result

    def make(backbone, task, seed, recipe, weights, trust, minute, value):
        facts = content(f"mini/{backbone}")["backbone"] | {"weights_digest": str(weights) * 64}
        change = {"seed": seed, "recipe": {"epochs": recipe}, "backbone": facts}
        created = START + timedelta(minutes=minute)
        return Result.of(**content(f"mini/{backbone}", task, value=value, **change), trust=trust, created=created)

    return make


choices = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from(TASKS),
    st.integers(0, 2),
    st.integers(1, 2),
    st.integers(0, 1),
    st.sampled_from(["contested", "reported", "reported", "reproduced", "published"]),
    st.integers(0, 30),
    st.floats(5, 95),
)


def checked(r):
    return TRUSTS.index(r.trust)


def by_hand(results, asked):
    """The rules, one result after the other: ids that are shown, and the reason for each other."""
    left_out, wanted = {}, [r for r in sorted(results, key=lambda r: (r.created, r.id)) if r.task.name in asked]

    def keep(reason, rule):
        left_out.update({r.id: reason for r in wanted if not rule(r)})
        wanted[:] = [r for r in wanted if r.id not in left_out]

    keep(REASONS[1], lambda r: r.trust != "published")
    present = {r.backbone.name: r.backbone.weights_digest for r in sorted(wanted, key=checked)}
    keep(REASONS[2], lambda r: r.backbone.weights_digest == present[r.backbone.name])
    followers, newest = defaultdict(set), {}
    for i, r in enumerate(wanted):
        followers[r.task.name, r.recipe["epochs"]].add(r.backbone.name)
        newest[r.task.name, r.recipe["epochs"]] = i
    usual = {
        task: max(
            (k for k in followers if k[0] == task), key=lambda k: (len(followers[k]), newest[k]), default=(None, None)
        )[1]
        for task in asked
    }
    keep(REASONS[3], lambda r: r.recipe["epochs"] == usual[r.task.name])
    last = {(r.backbone.name, r.task.name, r.seed): r.id for r in sorted(wanted, key=checked)}
    keep(REASONS[4], lambda r: last[r.backbone.name, r.task.name, r.seed] == r.id)
    return wanted, left_out


@given(st.lists(choices, max_size=25), st.randoms())
def test_what_is_shown_and_why_the_rest_is_not(made, drawn, random):
    results = list({r.id: r for r in (made(*choice) for choice in drawn)}.values())
    asked = [Asked(task, task, "digit-scenes") for task in TASKS[:2]]
    columns = headline_columns(results, asked=asked)
    shown, left_out = by_hand(results, TASKS[:2])
    random.shuffle(results)
    board = Board.of(results, columns)
    assert {id for row in board.rows for cell in row.cells.values() for id in cell.results} == {r.id for r in shown}
    assert board.left_out == left_out
    cells = defaultdict(list)
    for r in sorted(shown, key=lambda r: r.seed):
        cells[r.backbone.name, r.task.name].append(r)
    for row in board.rows:
        for key, cell in row.cells.items():
            runs = cells[row.backbone, key]
            assert cell.results == tuple(r.id for r in runs)
            assert cell.value == pytest.approx(np.mean([r.headline.value for r in runs]), rel=1e-12)
            assert cell.trust == min((r.trust for r in runs), key=TRUSTS.index)


def test_only_backbones_that_are_kept_take_part(gauntlet, board):
    kept = Board.of(gauntlet, board.columns, keep=lambda facts: facts.fact("family") == "vit")
    assert {row.backbone for row in kept.rows} == {r.backbone for r in board.rows if "vit" in r.backbone}
    assert sorted(row.standing.rank for row in kept.rows) == [1, 2, 3]
    assert kept.left_out == board.left_out  # what nobody asked for is not left out
    again = Board.of([r for r in gauntlet if "vit" in r.backbone.name], board.columns)
    assert kept.rows == again.rows


def test_nothing_is_selected_from_nothing(board):
    found = select(Snapshot.of([]), board.columns)
    assert found.value.shape == (0, len(board.columns))
    assert headline_columns([]) == []
