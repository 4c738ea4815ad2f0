"""Tables as people save them, and as they break: what is read, and where a complaint points."""

import csv
import io
from decimal import Decimal

import pytest
from backbench.backbones import BadInput
from backbench.leaderboard.importing import reading
from backbench.leaderboard.importing.reading import read_table
from hypothesis import given
from hypothesis import strategies as st

HEAD = "model,top1\n"


@pytest.fixture
def table(tmp_path):
    """Writes a file and reads it."""

    def write(content: str | bytes):
        path = tmp_path / "table.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(path)

    return write


@pytest.mark.parametrize(
    "content",
    [
        "model,top1\na.x,80.5\nb,-\n",
        "\ufeffmodel,top1\r\na.x,80.5\r\nb,-\r\n",
        'model,"top1"\n"a.x","80.5"\n"b","-"',
        "\n model , top1 \n\n  a.x ,80.5\n,\nb,–\n",
    ],
)
def test_the_same_table_saved_in_other_ways(table, content):
    found = table(content)
    assert found.columns == ("model", "top1")
    assert [line.name("model") for line in found.lines] == ["a.x", "b"]
    assert [line.figure("top1", 0, 100) for line in found.lines] == [Decimal("80.5"), None]


def test_a_cell_may_have_commas_and_a_row_several_lines(table):
    found = table('model,note,params\na,"one,\ntwo","1,014.45"\nb,,0.27\n')
    assert [line.number for line in found.lines] == [2, 4]
    assert [line.figure("params", 0, 1e6, grouped=True) for line in found.lines] == [
        Decimal("1014.45"),
        Decimal("0.27"),
    ]


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        ("nan", "leave the cell empty"),
        ("-inf", "leave the cell empty"),
        ("Infinity", "leave the cell empty"),
        ('"80,5"', "has a comma"),
        ('"1,014.45"', "is not a number"),
        ("80.5%", "percent sign"),
        ("eighty", "is not a number"),
        ("8e", "is not a number"),
        ("٨", "is not a number"),
        ("0x10", "is not a number"),
        ("1_000", "is not a number"),
        ("100.001", "not within 0..100"),
        ("-0.1", "not within 0..100"),
        ("1e999", "not within 0..100"),
        ("1e9999999", "is not a number"),
    ],
)
def test_what_is_no_figure_is_told_with_its_place(table, cell, complaint):
    found = table(f"{HEAD}a,1\nb,{cell}\n")
    with pytest.raises(BadInput, match=r"table\.csv:3: column 'top1': ") as raised:
        found.lines[1].figure("top1", 0, 100)
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("cell", ["", '"a\nb"', "a\x1b[31mb", "a\u202eb", "x" * 151])
def test_what_is_no_name_is_told_with_its_place(table, cell):
    found = table(f"{HEAD}{cell},1\n")
    with pytest.raises(BadInput, match=r"table\.csv:2: column 'model': ") as raised:
        found.lines[0].name("model")
    assert "\n" not in str(raised.value)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "table.csv: empty"),
        (b"\xef\xbb\xbf\r\n\r\n", "table.csv: empty"),
        (b"model,top1\n", "table.csv: no rows"),
        (b"model,top1\na,1\nb,2,3\n", "table.csv:3: 3 cells in a table of 2 columns"),
        (b"model,top1\na\n", "table.csv:2: 1 cells"),
        (b"model,model\na,1\n", "table.csv:1: two columns are named 'model'"),
        (b"model,\na,1\n", "table.csv:1: column 2 has no proper name"),
        (b"model;top1\na;1\n", "table.csv:1: columns are separated by ';'"),
        (b"model\ttop1\na\t1\n", "save the table with commas"),
        (b"model,top1\na,1\n\xff\xfe,2\n", "table.csv:3: not UTF-8"),
        ("model,top1\na,1\n".encode("utf-16"), "table.csv:1: not UTF-8"),
        (b"model,top1\na,1\n\0,2\n", "table.csv:3: not a text"),
        (b'model,top1\na,"1\n', "table.csv:2: not comma-separated values"),
        (b'model,top1\na,"1"2\n', "table.csv:2: not comma-separated values"),
        (b"model,top1\n" + b"a" * 200_000 + b",1\n", "table.csv:2: not comma-separated values"),
    ],
)
def test_what_is_no_table(table, content, complaint):
    with pytest.raises(BadInput) as raised:
        table(content)
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_cannot_be_a_table_of_backbones_is_not_read(table, tmp_path, monkeypatch):
    for path, complaint in ((tmp_path, "not a file"), (tmp_path / "none.csv", "no such file")):
        with pytest.raises(BadInput, match=complaint):
            read_table(path)
    monkeypatch.setattr(reading, "MOST_ROWS", 2)
    assert len(table(HEAD + "a,1\n" * 2).lines) == 2
    with pytest.raises(BadInput, match="csv:4: more than 2 rows"):
        table(HEAD + "a,1\n" * 3)
    monkeypatch.setattr(reading, "LARGEST", 1 << 20)
    with pytest.raises(BadInput, match="over 1 MiB"):
        table(b"x" * ((1 << 20) + 1))


words = st.text(st.characters(exclude_categories=("C", "Z")).filter(str.isprintable), min_size=1, max_size=8)
cells = st.one_of(words, st.sampled_from(["", "-", "1.5", "nan", "a,b", 'a"b', "a\nb", "é, ü"]))


@given(st.lists(words, min_size=1, max_size=4, unique=True), st.data())
def test_what_a_csv_writer_writes_is_read_back(tmp_path_factory, columns, data):
    row = st.lists(cells, min_size=len(columns), max_size=len(columns)).filter(any)
    rows = data.draw(st.lists(row, min_size=1, max_size=4))
    text = io.StringIO()
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    csv.writer(text, lineterminator=end).writerows([columns, *rows])
    path = tmp_path_factory.getbasetemp() / "written.csv"
    path.write_text(text.getvalue(), encoding=data.draw(st.sampled_from(["utf-8", "utf-8-sig"])), newline="")
    if len(columns) == 1 and any(mark in columns[0] for mark in ";|"):
        with pytest.raises(BadInput, match="separated"):
            read_table(path)
        return
    found = read_table(path)
    assert found.columns == tuple(columns)
    assert [[line.cells[column] for column in columns] for line in found.lines] == [
        [c.strip() for c in r] for r in rows
    ]


@given(st.binary(max_size=80) | st.text('model,top1"\r\n;0.5', max_size=60).map(str.encode))
def test_anything_is_a_table_or_a_complaint_of_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "anything.csv"
    path.write_bytes(content)
    complaint = None
    try:
        found = read_table(path)
    except BadInput as error:
        complaint = str(error)
    if complaint is None:
        assert all(line.cells.keys() == set(found.columns) for line in found.lines)
        assert all(line.number > 1 for line in found.lines)
    else:
        assert complaint.startswith(str(path))
        assert "\n" not in complaint


@given(st.decimals(0, 100, allow_nan=False, places=4))
def test_a_figure_is_the_number_that_is_written(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "number.csv"
    path.write_text(f"{HEAD}a,{value}\n")
    assert read_table(path).lines[0].figure("top1", 0, 100) == value
