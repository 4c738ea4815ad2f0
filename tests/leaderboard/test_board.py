"""The board: who is ranked, who is not, and what is left out."""

import csv
import json
import random
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from math import hypot, sqrt

import pytest
from backbench.backbones import BadInput
from backbench.leaderboard import Asked, Board, as_csv, as_json, as_table, headline_columns
from rich.console import Console
from scipy.stats import t


def test_rows_complete_over_ranked_columns_rank(board):
    assert [r.standing.rank for r in board.rows] == [1, 2, 3, 4, 5, 6]
    assert board.rows[-1].backbone == "mini/cnn-random"
    assert "zero-shot" not in board.rows[-1].cells
    assert board.families == ("classification", "detection", "segmentation", "ood", "retrieval")
    for row in board.rows:
        s = row.standing
        assert s.rank_low <= s.rank <= s.rank_high
        assert s.overall_low <= s.overall <= s.overall_high
        assert s.overall == pytest.approx(sum(s.families.values()) / 5, abs=1e-8)


def test_the_order_of_results_changes_nothing(gauntlet, board):
    shuffled = list(gauntlet)
    random.Random(1).shuffle(shuffled)
    columns = list(board.columns)
    again = Board.of(shuffled, columns, "quick")
    assert again.rows == board.rows
    assert headline_columns(shuffled, ["zero-shot"]) == headline_columns(gauntlet, ["zero-shot"])


def test_a_missing_cell_keeps_a_row_out_and_its_scores_out_of_the_z(gauntlet, board):
    kept = [r for r in gauntlet if (r.backbone.name, r.task.name) != ("mini/cnn-supervised", "knn")]
    partial = Board.of(kept, board.columns, "quick")
    *ranked, last = partial.rows
    assert (last.backbone, last.standing, last.missing) == ("mini/cnn-supervised", None, ("knn",))
    assert [r.standing.rank for r in ranked] == [1, 2, 3, 4, 5]
    assert sum(r.cells["linear-probe"].z for r in ranked) == pytest.approx(0, abs=1e-9)
    assert last.cells["linear-probe"].z > 0


def test_nothing_ranks_where_nothing_is_complete(result, board):
    lone = Board.of([result()], board.columns)
    assert [r.standing for r in lone.rows] == [None]
    assert Board.of([], board.columns).rows == ()
    unranked = Board.of([result()], [replace(c, ranked=False) for c in board.columns])
    assert unranked.rows[0].standing is None
    assert unranked.rows[0].missing == ()


def test_one_backbone_is_first_and_average(result):
    only = result()
    (row,) = Board.of([only], headline_columns([only])).rows
    assert (row.standing.rank, row.standing.overall, row.standing.ties) == (1, 0.0, ())


def test_lower_is_better_is_turned_round(content, result):
    def loss(backbone, value):
        scores = content()["scores"]
        scores["top1"] |= {"value": value, "low": value - 1, "high": value + 3, "higher_is_better": False}
        return result(backbone, scores=scores)

    results = [loss("mini/cnn-supervised", 10.0), loss("mini/vit-masked", 40.0)]
    board = Board.of(results, headline_columns(results))
    assert [r.backbone for r in board.rows] == ["mini/cnn-supervised", "mini/vit-masked"]
    assert [r.standing.overall for r in board.rows] == [1, -1]
    assert [r.cells["linear-probe"].z for r in board.rows] == [1, -1]


def test_equal_scores_share_a_rank_and_a_mark(result):
    names = ("mini/a", "mini/b", "mini/c")
    results = [result(n, value=v) for n, v in zip(names, (50.0, 50.0, 20.0), strict=True)]
    rows = Board.of(results, headline_columns(results)).rows
    assert [(r.standing.rank, r.standing.ties) for r in rows] == [(1, ("a",)), (1, ("a",)), (3, ())]


def test_close_scores_are_tied_and_far_ones_are_not(result):
    results = [result(f"mini/{n}", value=v, half=1.0) for n, v in (("a", 60.0), ("b", 59.9), ("c", 40.0), ("d", 39.9))]
    rows = Board.of(results, headline_columns(results)).rows
    assert [r.standing.ties for r in rows] == [("a",), ("a",), ("b",), ("b",)]
    assert [(r.standing.rank_low, r.standing.rank_high) for r in rows] == [(1, 2), (1, 2), (3, 4), (3, 4)]


def test_seeds_are_averaged_and_widen_the_interval(result):
    values = (60.0, 62.0, 67.0)
    results = [result(value=v, half=1.6, seed=s) for s, v in enumerate(values)]
    cell = Board.of(results, headline_columns(results)).rows[0].cells["linear-probe"]
    assert cell.value == pytest.approx(63)
    spread = t.ppf(0.975, 2) * sqrt(((3**2) + 1 + 4**2) / 2) / sqrt(3)
    assert cell.half == pytest.approx(hypot(1.6, spread))
    assert cell.results == tuple(r.id for r in results)
    same = [result(value=60.0, half=1.6, seed=s) for s in range(5)]
    assert Board.of(same, headline_columns(same)).rows[0].cells["linear-probe"].half == pytest.approx(1.6)


def test_intervals_of_averages_stay_in_the_range(result):
    results = [result(value=v, half=0.5, seed=s) for s, v in enumerate((99.9, 80.0))]
    cell = Board.of(results, headline_columns(results)).rows[0].cells["linear-probe"]
    assert (cell.low, cell.high) == (0, 100)


def test_only_what_is_comparable_is_shown(result, content):
    later = datetime(2026, 2, 1, tzinfo=UTC)
    ours = [result(f"mini/{n}") for n in "abc"]
    odd = result("mini/d", recipe={"epochs": 99}, created=later)
    old = result("mini/a", code_version="0", created=datetime(2025, 1, 1, tzinfo=UTC))
    quoted = result("mini/e", trust="published")
    facts = content("mini/f")["backbone"]
    before, after = (
        result("mini/f", created=datetime(2025, 1, 1, tzinfo=UTC)),
        result("mini/f", backbone=facts | {"weights_digest": "0" * 64}),
    )
    board = Board.of([*ours, odd, old, quoted, before, after], headline_columns(ours))
    assert board.left_out == {
        odd.id: "another version, recipe, data or device than most",
        old.id: "run again since",
        quoted.id: "published elsewhere, not run",
        before.id: "another card, weights or precision under this name",
    }
    assert {r.backbone: r.cells["linear-probe"].results for r in board.rows} == {
        **{f"mini/{n}": (r.id,) for n, r in zip("abc", ours, strict=True)},
        "mini/f": (after.id,),
    }


def test_among_equally_common_protocols_the_newest_is_shown(result):
    old = result("mini/a", created=datetime(2025, 1, 1, tzinfo=UTC))
    new = result("mini/a", recipe={"epochs": 3})
    assert Board.of([new, old], headline_columns([old])).left_out == {
        old.id: "another version, recipe, data or device than most"
    }


def test_one_family_ranks_by_itself(board):
    family = board.only("segmentation")
    assert [c.key for c in family.columns] == ["instance-segmentation", "semantic-segmentation"]
    assert family.families == ("segmentation",)
    assert all(r.standing.overall == pytest.approx(r.standing.families["segmentation"], abs=1e-8) for r in family.rows)
    with pytest.raises(BadInput, match="did you mean 'segmentation'"):
        board.only("segmentatoin")


def test_columns_are_named_by_task_and_where_needed_by_data_set(result, content):
    later = datetime(2026, 2, 1, tzinfo=UTC)
    other = result(dataset=content()["dataset"] | {"name": "pets"}, created=later)
    knn = result("mini/cnn-supervised", "knn", created=later)
    assert [c.key for c in headline_columns([knn, result()])] == ["linear-probe", "knn"]
    keys = {c.key for c in headline_columns([result(), other, knn])}
    assert keys == {"linear-probe@digit-scenes", "linear-probe@pets", "knn"}


def test_a_task_stands_in_several_columns_by_what_its_recipe_says(result):
    """Each result belongs to the column that asks for most of what its recipe says; one value stands for a list."""
    asked = [
        Asked("plain", "linear-probe", "digit-scenes"),
        Asked("long", "linear-probe", "digit-scenes", {"epochs": 50}),
        Asked("slow", "linear-probe", "digit-scenes", {"epochs": 50, "rate": 0.1}, ranked=False),
        Asked("never run", "linear-probe", "digit-scenes", {"epochs": 7}),
    ]
    recipes = [{"epochs": 10}, {"epochs": 50, "rate": [0.2]}, {"epochs": 50, "rate": [0.1]}, {"epochs": 50}]
    names = ("mini/cnn-supervised", "mini/vit-supervised")
    results = [
        result(name, value=10.0 * column, recipe=recipe)
        for name in names
        for column, recipe in enumerate(recipes[:3], 1)
    ]
    board = Board.of(results, headline_columns(results, asked=asked))
    assert [(c.key, c.ranked) for c in board.columns] == [("plain", True), ("long", True), ("slow", False)]
    for row in board.rows:
        assert {key: cell.value for key, cell in row.cells.items()} == {"plain": 10.0, "long": 20.0, "slow": 30.0}
    assert board.left_out == {}
    lone = result("mini/cnn-random", recipe=recipes[3])
    assert Board.of([lone], headline_columns([lone], asked=asked)).columns[0].key == "long"


def twins(result, content):
    """Two names for one network, one of them run in half precision, beside another network."""
    first = content("mini/cnn-supervised")["backbone"]
    second = content("mini/vit-supervised", value=60.0)["backbone"]
    second |= {"weights_digest": first["weights_digest"], "loading": {"precision": "bfloat16"}}
    return [
        result("mini/cnn-supervised", value=62.0),
        result("mini/vit-supervised", value=60.0, backbone=second),
        result("mini/cnn-random", value=20.0),
    ]


def test_two_names_with_the_same_weights_are_shown_as_such(result, content):
    results = twins(result, content)
    board = Board.of(results, headline_columns(results))
    by_name = {row.backbone: board.twins(row) for row in board.rows}
    assert by_name == {
        "mini/cnn-supervised": ["mini/vit-supervised"],
        "mini/vit-supervised": ["mini/cnn-supervised"],
        "mini/cnn-random": [],
    }
    screen = Console(width=100, record=True, file=StringIO())
    screen.print(as_table(board))
    text = screen.export_text()
    assert "mini/cnn-supervised and mini/vit-supervised hold the same weights" in text
    assert "mini/vit-supervised ran with precision bfloat16" in text
    rows = {row["backbone"]: row for row in json.loads(as_json(board))["rows"]}
    assert rows["mini/cnn-supervised"]["same_weights_as"] == ["mini/vit-supervised"]
    assert rows["mini/vit-supervised"]["loading"] == {"precision": "bfloat16"}
    lines = {line["backbone"]: line for line in csv.DictReader(StringIO(as_csv(board)))}
    assert lines["mini/vit-supervised"]["same_weights_as"] == "mini/cnn-supervised"
    assert lines["mini/cnn-random"]["same_weights_as"] == ""


def test_a_network_run_in_two_precisions_counts_once(result, content):
    half = content("mini/cnn-supervised")["backbone"] | {"loading": {"precision": "float16"}}
    full = result("mini/cnn-supervised", value=62.0)
    later = result("mini/cnn-supervised", value=61.9, backbone=half, created=datetime(2026, 2, 1, tzinfo=UTC))
    board = Board.of([full, later], headline_columns([full]))
    assert [row.facts.loading for row in board.rows] == [{"precision": "float16"}]
    assert board.left_out == {full.id: "another card, weights or precision under this name"}
