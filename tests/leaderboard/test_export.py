"""The board in every format: read back by those who read it, and harmless whatever the names are."""

import csv
import json
import re
from io import BytesIO, StringIO

import pyarrow as pa
import pytest
from backbench.leaderboard import Board, as_csv, as_json, as_latex, as_markdown, as_parquet, headline_columns
from backbench.leaderboard.export import as_data
from backbench.leaderboard.export.csv import FORMULA, harmless
from backbench.leaderboard.export.latex import SPECIAL, escaped
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

FORMATS = [as_json, as_csv, as_markdown, as_latex, as_parquet]


@pytest.fixture
def hostile(result, content):
    """A board of names that are formulas, commands and markup elsewhere."""
    names = [
        "=1+1",
        "+SUM(A1)",
        "-2+3",
        "@cmd",
        "＝1",
        r"\input{/etc/passwd} & % $x$ #1 _a ^b ~c",
        "a|b*c*<script>&amp; _d_",
    ]
    facts = {"task": {"name": "=task%_", "family": "=family&", "version": 1, "headline": "top1"}}
    odd = [result(name, value=50.0 + i, **facts) for i, name in enumerate(names)]
    return Board.of(odd, headline_columns(odd), r"\title{%}")


@pytest.mark.parametrize("write", FORMATS)
def test_the_same_board_gives_the_same_file(board, published, gauntlet, write):
    again = Board.of(list(reversed(gauntlet)), board.columns, "quick")
    assert write(board) == write(again)
    assert write(published)
    assert write(Board.of([], board.columns))


def test_json_has_all_and_stable_keys(board, gauntlet):
    data = json.loads(as_json(board))
    assert list(data) == ["schema_version", "title", "source", "columns", "rows", "left_out"]
    assert data == json.loads(json.dumps(as_data(board)))
    assert [r["backbone"] for r in data["rows"]] == [r.backbone for r in board.rows]
    ids = {id for row in data["rows"] for score in row["scores"].values() for id in score["results"]}
    assert ids == {r.id for r in gauntlet}
    row = data["rows"][0]
    facts = {key: row[key] for key in ("family", "method", "data", "license", "architecture", "macs", "trust")}
    told = {"family": "cnn", "method": "supervised", "data": "digit-scenes", "license": "apache-2.0"}
    assert facts == told | {"architecture": "cnn-supervised", "macs": None, "trust": "reported"}
    assert row["standing"]["win_rate"] == board.rows[0].standing.win_rate
    assert [r["backbone"] for r in json.loads(as_json(board, sort="backbone"))["rows"]] == sorted(
        r.backbone for r in board.rows
    )


def test_json_of_a_published_table_has_no_intervals(published):
    data = json.loads(as_json(published))
    assert data["source"] == "a-table"
    assert {row["trust"] for row in data["rows"]} == {"published"}
    assert {score["low"] for row in data["rows"] for score in row["scores"].values()} == {None}
    assert {row["standing"] and row["standing"]["rank_low"] for row in data["rows"]} == {None}
    assert data["rows"][-1]["missing"] == ["sketch"]
    assert data["rows"][-1]["weights_digest"] is None


def test_csv_reads_back(board):
    rows = list(csv.DictReader(StringIO(as_csv(board))))
    assert [r["backbone"] for r in rows] == [r.backbone for r in board.rows]
    for text, row in zip(rows, board.rows, strict=True):
        assert int(text["rank"]) == row.standing.rank
        assert float(text["overall"]) == row.standing.overall
        assert float(text["win-rate"]) == row.standing.win_rate
        for key in ("linear-probe", "retrieval"):
            cell = row.cells[key]
            assert [float(text[k]) for k in (f"{key}_low", key, f"{key}_high")] == [cell.low, cell.value, cell.high]
    assert rows[0]["zero-shot"] == ""
    assert as_csv(Board.of([], board.columns)) == as_csv(board).splitlines()[0] + "\n"


def test_no_cell_of_csv_is_a_formula(hostile, board):
    cells = [cell for b in (hostile, board) for row in csv.reader(StringIO(as_csv(b))) for cell in row]
    for cell in cells:
        assert not cell.startswith(FORMULA) or float(cell) < 0
    assert any(cell.startswith("-") for cell in cells)  # z-scores below the mean stay numbers
    assert {"'=1+1", "'-2+3", "'=task%_", "'=task%__low"} <= set(cells)


@given(st.text(max_size=6) | st.floats() | st.integers() | st.none())
def test_only_text_is_made_harmless(value):
    made = harmless(value)
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        assert made == "'" + value
    elif not isinstance(value, str):
        assert made is value
    assert str(made).removeprefix("'") == str(value).removeprefix("'")


@pytest.mark.parametrize("name", ["board", "published", "hostile"])
def test_parquet_says_what_csv_says(name, request):
    board = request.getfixturevalue(name)
    table = parquet.read_table(BytesIO(as_parquet(board)))
    read = csv.reader(StringIO(as_csv(board)))
    assert [harmless(n) for n in table.column_names] == next(read)
    for row, line in zip(table.to_pylist(), read, strict=True):
        assert ["" if value is None else str(harmless(value)) for value in row.values()] == line
    assert table.schema.field("rank").type == pa.int64()
    assert table.schema.field("overall").type == pa.float64()
    assert table.schema.field("macs").type == pa.int64()
    about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert (about["title"], about["source"]) == (board.title, board.source)
    assert [c["key"] for c in json.loads(about["columns"])] == [c.key for c in board.columns]


def test_a_task_may_be_called_as_a_column_of_ours(result):
    odd = [result("a", "rank", value=30.0), result("b", "rank", value=40.0)]
    rows = list(csv.DictReader(StringIO(as_csv(Board.of(odd, headline_columns(odd))))))
    assert [(r["rank"], r["rank@score"]) for r in rows] == [("1", "40.0"), ("2", "30.0")]


def test_markdown_is_a_table_whatever_the_names(board, hostile):
    lines = as_markdown(board).splitlines()
    assert len({line.count(" | ") for line in (lines[0], *lines[2:])}) == 1
    assert "**1**" in lines[2]
    assert r"a\|b\*c\*\<script\>&amp;amp; \_d\_" in as_markdown(hostile)


COMMAND = re.compile(
    r"\\[{}$&#%_]|\\text[a-z]+\{\}|\\symbol\{\d+\}|\$\\(?:pm|downarrow)\$|\$-\$|--|-\{\}|[^\\{}$&#%_^~<>|\"`±–−↓]"
)


@given(st.text(alphabet=st.characters() | st.sampled_from('\\{}$&#%_^~<>|"`-±–−↓ '), max_size=30))
def test_latex_prints_any_text_as_it_is(text):
    """Cut into the few commands that may stand in a cell and plain characters, it says the text again."""
    written = escaped(text)
    tokens = COMMAND.findall(written)
    assert "".join(tokens) == written
    meaning = {command: sign for sign, command in SPECIAL.items()} | {"-{}": "-"}
    plain = "".join(c for c in " ".join(text.split()) if c.isprintable())
    assert "".join(meaning.get(token, token) for token in tokens) == plain


@pytest.mark.parametrize("name", ["board", "published", "hostile"])
def test_latex_is_a_whole_booktabs_table(name, request):
    board = request.getfixturevalue(name)
    text = as_latex(board)
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 1 + len(board.rows)
    widths = {len(re.findall(r"(?<!\\)&", line)) for line in lines}
    columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text).group(1)
    assert widths == {len(columns) - 1}
    plain = re.sub(r"\\[{}\\]", "", text)
    assert plain.count("{") == plain.count("}")
    opened, closed = re.findall(r"\\begin\{(\w+)\}", text), re.findall(r"\\end\{(\w+)\}", text)
    assert opened == closed[::-1] == ["table", "tabular"]
    assert text.count(r"\midrule") == 1 + any(row.missing for row in board.rows)


def test_latex_has_the_best_in_bold_and_marks_ties(board, gauntlet):
    text = as_latex(board)
    best = max(board.rows, key=lambda row: row.cells["retrieval"].value)
    cell = best.cells["retrieval"]
    assert rf"\textbf{{{cell.value:.1f} $\pm${cell.half:.1f}}}" in text
    assert text.count(r"\textbf") >= len(board.columns)
    tied = [row for row in board.rows if row.standing.ties]
    assert tied
    for row in tied:
        assert rf"\textsuperscript{{{''.join(row.standing.ties)}}} & {row.backbone} &" in text
