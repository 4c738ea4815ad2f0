"""Boards of published figures: their columns, their ranks, and the commands that bring them in and show them."""

import csv
import io
import json

import numpy as np
import pytest
from backbench.leaderboard import Board, Store
from backbench.leaderboard.listing import fields
from backbench.leaderboard.published import Figure, published_columns
from backbench.leaderboard.snapshot import Snapshot
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

SOURCE = {"name": "a-table", "title": "A table", "files": {"table.csv": "0" * 64}}


def figure(backbone="a", dataset="cub", value=50.0, metric="mrr", **change):
    facts = {"task": "retrieval", "family": "retrieval", "dataset": dataset, "metric": metric, "unit": "%"}
    facts |= {"higher_is_better": True, "range_low": 0.0, "range_high": 100.0, "value": value}
    facts |= {"backbone": {"name": backbone, "card": {"family": "cnn"}}, "source": SOURCE, "file": "table.csv"}
    return Figure(**facts | change)


def board_of(figures, source="a-table"):
    snapshot = Snapshot.of((), figures)
    return Board.of(snapshot, published_columns(snapshot, source), source=source)


def test_columns_are_data_sets_and_say_more_where_that_is_not_enough():
    found = [
        figure(dataset="cub"),
        figure(dataset="inat", metric="mrr"),
        figure(dataset="inat", metric="map"),
        figure(dataset="rank"),  # a board calls a column of its own so
        figure(dataset="flickr", metric="r1", task="to-text"),
        figure(dataset="flickr", metric="r1", task="to-image"),
        figure(dataset="clean", use="shown"),
        figure(dataset="cub", metric="recall", use="kept"),
    ]
    columns = {c.key: c for c in board_of(found).columns}
    assert set(columns) == {
        *("cub", "mrr@inat", "map@inat", "mrr@rank", "to-text:r1@flickr", "to-image:r1@flickr", "clean"),
    }
    assert [key for key, c in columns.items() if not c.ranked] == ["clean"]
    row = board_of(found).rows[0]
    assert set(row.cells) == set(columns)
    keys = [f.key for f in fields(board_of(found))]
    assert len(keys) == len(set(keys))


def test_several_metrics_of_a_data_set_stay_apart():
    found = [
        figure(name, metric=m, value=v) for name, m, v in (("a", "r1", 10.0), ("b", "r1", 30.0), ("a", "r5", 60.0))
    ]
    rows = {row.backbone: row for row in board_of(found).rows}
    assert {key: cell.value for key, cell in rows["a"].cells.items()} == {"r1@cub": 10.0, "r5@cub": 60.0}
    assert rows["b"].missing == ("r5@cub",)
    assert (rows["a"].standing.rank, rows["b"].standing) == (1, None)


def test_a_board_is_of_one_source():
    other = SOURCE | {"name": "another"}
    found = [figure("a"), figure("b", value=60.0), figure("c", source=other)]
    assert [row.backbone for row in board_of(found).rows] == ["b", "a"]
    assert [row.backbone for row in board_of(found, "another").rows] == ["c"]


@given(st.lists(st.lists(st.integers(0, 100).map(float), min_size=3, max_size=3), min_size=2, max_size=8), st.randoms())
def test_ranks_are_those_of_the_mean_z_score(rows, random):
    names = [f"net{i}" for i in range(len(rows))]
    signs = np.array([1, 1, -1])
    found = [
        figure(name, f"set{j}", value, higher_is_better=bool(signs[j] > 0))
        for name, values in zip(names, rows, strict=True)
        for j, value in enumerate(values)
    ]
    random.shuffle(found)
    values = np.array(rows)
    spread = values.std(axis=0)
    scores = signs * (values - values.mean(axis=0)) / np.where(spread, spread, 1)
    standing = {row.backbone: row.standing for row in board_of(found).rows}
    assert np.allclose([standing[name].overall for name in names], scores.mean(axis=1), atol=1e-12)
    assert all(s.rank_low is None and s.overall_low is None and s.ties == () for s in standing.values())


@pytest.mark.parametrize(
    "change",
    [
        {"value": 101.0},
        {"value": float("nan")},
        {"low": 60.0, "high": 70.0},
        {"file": "other.csv"},
        {"use": "hidden"},
        {"source": SOURCE | {"name": "A Table"}},
        {"source": SOURCE | {"url": "javascript:alert(1)"}},
        {"source": SOURCE | {"files": {}}},
        {"source": SOURCE | {"files": {"table.csv": "0"}}},
        {"metric": ""},
        {"dataset": "two\nlines"},
    ],
)
def test_what_is_no_figure(change):
    with pytest.raises(ValidationError):
        figure(**change)


def test_a_figure_is_itself_whatever_else_its_source_has():
    more = SOURCE | {"title": "Renamed", "files": SOURCE["files"] | {"b.csv": "1" * 64}}
    assert figure(source=more).id == figure().id
    assert len({figure().id, figure(value=51.0).id, figure("b").id, figure(source=SOURCE | {"name": "b"}).id}) == 4


@pytest.fixture(scope="module")
def imported(tmp_path_factory, command):
    """A home with a table of three rows, one of them incomplete, and what the import said."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "mine.csv").write_text(
        "backbone,cub,inat,note\ntimm/resnet50.a1_in1k,0.5,0.4,x\n<b>net</b>,0.7,0.3,y\nhalf,0.9,,z\n"
    )
    said = ["--source", "mine", "--title", "My table", "--url", "https://example.org/t", "--license", "cc-by-4.0"]
    said += ["--family", "retrieval", "--metric", "mrr"]
    ended = command("import", "csv", folder / "mine.csv", *said, home=folder / "home")
    assert ended.code == 0, ended.err
    return folder, said, ended


def test_an_import_says_what_it_did(imported):
    _, _, ended = imported
    assert ended.lines == [
        "mine.csv: 3 rows, 5 figures on cub, inat",
        "  left out: note",
        "  backbones are in column 'backbone'",
        "  all figures are within 0..1: read as shares, kept in percent",
        "mine: 5 figures added, 5 in all; `backbench leaderboard --published mine`",
    ]


def test_its_board_in_every_form(imported, command):
    folder, _, _ = imported
    show = ["leaderboard", "--published", "mine"]
    table = command(*show, home=folder / "home")
    assert table.code == 0, table.err
    assert "half is not ranked: no inat" in table.out
    assert "mine" in table.lines[-1]
    rows = list(csv.DictReader(io.StringIO(command(*show, "--format", "csv", home=folder / "home").out)))
    assert {row["backbone"] for row in rows[:2]} == {"timm/resnet50.a1_in1k", "<b>net</b>"}
    assert rows[2]["backbone"] == "half"
    data = json.loads(command(*show, "--format", "json", home=folder / "home").out)
    assert data["source"]
    assert len(data["rows"]) == 3
    ended = command(*show, "--format", "html", "--output", folder / "page", home=folder / "home")
    assert ended.code == 0, ended.err
    pages = [path.read_text() for path in folder.rglob("*.html")]
    assert pages
    assert not any("<b>net</b>" in page for page in pages)


def test_a_board_of_runs_does_not_have_them(imported, command):
    folder, _, _ = imported
    ended = command("leaderboard", home=folder / "home")
    assert ended.code == 2
    assert "nothing to rank" in ended.err
    [source] = Store(folder / "home" / "leaderboard.db").sources()
    assert (source.title, source.url, source.license) == ("My table", "https://example.org/t", "cc-by-4.0")


def test_commands_say_what_is_wrong_in_one_line(imported, command):
    folder, said, _ = imported
    bad = folder / "bad.csv"
    bad.write_text("backbone,cub\na,0.5\nb,oops\n")
    for words, told in (
        (("leaderboard", "--published", "mne"), "did you mean 'mine'"),
        (("leaderboard", "--published", "mine", "--suite", "quick"), "give one of --suite and --published"),
        (("import", "cvs", bad, *said), "did you mean 'csv'"),
        (("import", "csv", bad, *said), "bad.csv:3: column 'cub': 'oops' is not a number"),
    ):
        ended = command(*words, home=folder / "home")
        assert ended.code == 2
        assert [told in line for line in ended.lines] == [True]


def test_a_dry_run_keeps_nothing_and_a_database_may_be_named(tmp_path, command):
    table = tmp_path / "results-imagenet.csv"
    table.write_text(
        "model,img_size,top1,top1_err,top5,top5_err,param_count,crop_pct,interpolation\n"
        "resnet50.a1_in1k,224,80.1,19.9,94.9,5.1,25.56,0.950,bicubic\n"
    )
    where = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    importing = ["import", "timm", table, "--database", where, "--format", "json"]
    dry = command(*importing, "--dry-run", home=tmp_path / "home")
    assert dry.code == 0, dry.err
    facts = json.loads(dry.out)
    assert facts["files"][0] | {"notes": []} == {
        **{"file": "results-imagenet.csv", "source": "timm", "rows": 1, "figures": 2, "datasets": ["imagenet-1k"]},
        **{"ignored": ["top1_err", "top5_err"], "notes": []},
    }
    assert [(s["name"], s["added"], s["removed"]) for s in facts["sources"]] == [("timm", 2, 0)]
    assert Store(where).figures() == []
    assert json.loads(command(*importing, home=tmp_path / "home").out) == facts | {"dry_run": False}
    assert len(Store(where).figures("timm")) == 2
    shown = command("leaderboard", "--published", "timm", "--database", where, home=tmp_path / "home")
    assert "timm/resnet50.a1_in1k" in shown.out
