"""The board in a terminal: every width, every order."""

from io import StringIO

import pytest
from backbench.backbones import BadInput
from backbench.leaderboard import Board, as_table, headline_columns
from backbench.leaderboard.listing import count, fields, shown, sorted_rows
from rich.console import Console


def printed(board, width, **options) -> str:
    console = Console(width=width, file=StringIO(), highlight=False)
    console.print(as_table(board, **options))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [50, 60, 80, 100, 132, 160, 200, 300])
def test_every_score_is_whole_at_every_width(board, width):
    text = printed(board, width)
    assert max(len(line) for line in text.splitlines()) <= width
    for row in board.rows:
        assert row.backbone in text
        for column in board.columns:
            if cell := row.cells.get(column.key):
                assert f"{cell.value:.1f} ±{cell.half:.1f}" in text
    assert "…" not in text


def test_a_wide_terminal_needs_one_block(board):
    assert printed(board, 300).count("mini/vit-masked") == 1
    assert printed(board, 80).count("mini/vit-masked") > 1


def test_long_and_odd_names_are_shown_as_they_are(result):
    names = ["timm/" + "very_" * 30 + "large", "[red]mini[/red]", "模型/视觉"]
    results = [result(n, value=v) for n, v in zip(names, (60.0, 50.0, 40.0), strict=True)]
    text = printed(Board.of(results, headline_columns(results)), 80)
    assert "[red]mini[/red]" in text
    assert "模型/视觉" in text
    assert "very_very_" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_incomplete_rows_stand_below_with_what_they_lack(gauntlet, board):
    kept = [r for r in gauntlet if (r.backbone.name, r.task.name) != ("mini/cnn-supervised", "knn")]
    text = printed(Board.of(kept, board.columns), 250)
    lines = [line for line in text.splitlines() if "mini/" in line]
    assert lines[-2].startswith("–")
    assert lines[-1].startswith("mini/cnn-supervised is not ranked: no knn")
    assert "zero-shot" in text.splitlines()[-1]


def test_an_empty_board_says_what_to_do(board):
    assert "backbench run quick" in printed(Board.of([], board.columns), 80)


def test_sorting_by_every_field(board):
    for field in fields(board):
        rows = sorted_rows(board, field.key)
        values = [field.value(r) for r in rows if field.value(r) is not None]
        assert values == sorted(values, reverse=field.best == "high")
        assert {r.backbone for r in rows} == {r.backbone for r in board.rows}
    assert sorted_rows(board, "zero-shot")[0].backbone == "mini/cnn-image-text"
    with pytest.raises(BadInput, match="there is no column 'retreival'; did you mean 'retrieval'"):
        as_table(board, sort="retreival")


def test_a_family_keeps_its_columns(board):
    text = printed(board, 200, family="retrieval")
    assert "retrieval" in text
    assert "probe" not in text
    with pytest.raises(BadInput, match="no family 'segments'"):
        as_table(board, family="segments")


def test_what_crowds_is_shown_when_sorted_by(board):
    assert "win" not in printed(board, 300)
    lines = printed(board, 300, sort="win-rate").splitlines()
    assert "win" in lines[0]
    rates = [row.standing.win_rate for row in sorted_rows(board, "win-rate")]
    assert rates == sorted(rates, reverse=True)
    assert [f.key for f in shown(board, "win-rate")][-1] == "win-rate"


def test_trust_is_shown_where_rows_differ_in_it(gauntlet):
    columns = headline_columns(gauntlet)
    assert "trust" not in printed(Board.of(gauntlet, columns), 300)
    mixed = [r.model_copy(update={"trust": "reproduced"}) if "vit" in r.backbone.name else r for r in gauntlet]
    text = printed(Board.of(mixed, columns), 300)
    assert "reproduced" in text
    assert "unverified" in text
    assert "reported" not in text


def test_figures_without_intervals_are_shown_without(published):
    text = printed(published, 120)
    assert "±" not in text
    assert "95" not in text.splitlines()[0]
    assert "figures as a-table has them, not run here" in " ".join(text.split())
    assert all(row.standing.rank_low is None for row in published.rows if row.standing)
    first = published.rows[0]
    assert f"{first.cells['imagenet-v2'].value:.1f}" in text
    for field in fields(published):
        assert sorted_rows(published, field.key)
        assert all(isinstance(field.text(row), str) for row in published.rows)


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0"),
        (950, "950"),
        (1000, "1 k"),
        (583_000, "583 k"),
        (999_700, "1 M"),
        (25_557_032, "25.6 M"),
        (1_010_000_000, "1.01 G"),
        (1_230_000_000_000, "1.23 T"),
        (None, "–"),
    ],
)
def test_counts_for_people(n, text):
    assert count(n) == text
