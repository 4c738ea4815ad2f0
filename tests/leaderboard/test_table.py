"""The board as text: every width, every order, every format."""

import csv
import json
from io import StringIO

import pytest
from backbench.backbones import BadInput
from backbench.leaderboard import Board, as_csv, as_json, as_markdown, as_table, headline_columns
from backbench.leaderboard.listing import count, fields, sorted_rows
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


def test_json_has_all_and_stable_keys(board, gauntlet):
    data = json.loads(as_json(board))
    assert list(data) == ["schema_version", "title", "columns", "rows", "left_out"]
    assert [r["backbone"] for r in data["rows"]] == [r.backbone for r in board.rows]
    ids = {id for row in data["rows"] for score in row["scores"].values() for id in score["results"]}
    assert ids == {r.id for r in gauntlet}
    assert [r["backbone"] for r in json.loads(as_json(board, sort="backbone"))["rows"]] == sorted(
        r.backbone for r in board.rows
    )


def test_csv_reads_back(board):
    rows = list(csv.DictReader(StringIO(as_csv(board))))
    assert [r["backbone"] for r in rows] == [r.backbone for r in board.rows]
    for text, row in zip(rows, board.rows, strict=True):
        assert int(text["rank"]) == row.standing.rank
        assert float(text["overall"]) == row.standing.overall
        for key in ("linear-probe", "retrieval"):
            cell = row.cells[key]
            assert [float(text[k]) for k in (f"{key}_low", key, f"{key}_high")] == [cell.low, cell.value, cell.high]
    assert rows[0]["zero-shot"] == ""
    assert as_csv(Board.of([], board.columns)) == "rank,backbone\n"


def test_markdown_is_a_table_whatever_the_names(board, result):
    lines = as_markdown(board).splitlines()
    assert len({line.count(" | ") for line in (lines[0], *lines[2:])}) == 1
    assert "**1**" in lines[2]
    odd = [result("a|b*c*<script>&amp;\n_d_")]
    line = as_markdown(Board.of(odd, headline_columns(odd))).splitlines()[2]
    assert r"a\|b\*c\*\<script\>&amp;amp; \_d\_" in line


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
    ],
)
def test_counts_for_people(n, text):
    assert count(n) == text
