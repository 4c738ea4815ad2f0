"""The page's folder: what is in it, how it is written, and what is kept of strangers' texts."""

import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest
from backbench.backbones.errors import BadInput
from backbench.leaderboard import Board, Result, as_json, headline_columns, write_page
from backbench.leaderboard import page as page_module
from backbench.leaderboard.columnar import columnar

ASSETS = Path(page_module.__file__).parent / "page"
EVIL = '</script><script>window.hit=1</script><img src=x onerror="window.hit=1">"\' onclick="window.hit=1" {{7*7}}'


@pytest.fixture
def write(tmp_path, gauntlet):
    """Writes the page of boards over the gauntlet's results, and gives its folder."""

    def call(*boards, results=gauntlet, folder=tmp_path / "page", **more):
        known = {r.id: r for r in results}
        assert write_page(boards, folder, lambda ids: [known[id] for id in ids], **more) == folder / "index.html"
        return folder

    return call


def data_of(path: Path, name: str):
    text = path.read_text(encoding="utf-8")
    head, tail = f"backbench.{name}(", ");\n"
    assert text.startswith(head)
    assert text.endswith(tail)
    return json.loads(text[len(head) : -len(tail)])


class Outline(HTMLParser):
    """Tags with their attributes, and what stands between script tags."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.inside = [], [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1] += data


def test_libraries_are_the_ones_that_the_readme_names():
    listed = re.findall(r"^\| `([^`]+)` .* `([0-9a-f]{64})` \|$", (ASSETS / "vendor" / "README.md").read_text(), re.M)
    assert {name for name, _ in listed} == {p.name for p in (ASSETS / "vendor").glob("*.min.*")}
    for name, digest in listed:
        assert sha256((ASSETS / "vendor" / name).read_bytes()).hexdigest() == digest, name
    for licence in ("tabulator", "plotly"):
        assert (
            "Permission is hereby granted, free of charge" in (ASSETS / "vendor" / f"LICENSE.{licence}.txt").read_text()
        )


def test_the_folder_is_whole_the_same_each_time_and_asks_for_nothing_beyond_it(write, board, tmp_path):
    folder, again = write(board), write(board, folder=tmp_path / "again")
    files = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert files == {p.relative_to(again): p.read_bytes() for p in again.rglob("*") if p.is_file()}
    assert {p.name for p in folder.iterdir()} == {
        *("index.html", "app.js", "tabulator.min.js", "plotly.min.js", "boards", "rows"),
        *("LICENSE.tabulator.txt", "LICENSE.plotly.txt"),
    }
    outline = Outline((folder / "index.html").read_text(encoding="utf-8"))
    loads = [(tag, v) for tag, attrs in outline.tags for k, v in attrs.items() if k in ("src", "href")]
    assert [v for _, v in loads if not v.startswith(("#", "data:"))] == []
    assert not re.search(r"@import|url\((?!\"?data:)", (folder / "index.html").read_text(encoding="utf-8"))
    [policy] = [a["content"] for tag, a in outline.tags if a.get("http-equiv") == "Content-Security-Policy"]
    digest = b64encode(sha256(outline.scripts[-1].encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{digest}' 'strict-dynamic';")
    assert "http" not in policy


def test_records_are_files_of_results_found_by_id(write, board, gauntlet):
    folder = write(board)
    index = json.loads((folder / "rows" / "index.json").read_text())
    shown = {id for row in board.rows for cell in row.cells.values() for id in cell.results}
    assert set(index) == shown == {r.id for r in gauntlet}
    for r in gauntlet:
        records = data_of(folder / "rows" / f"{index[r.id]}.js", "row")
        [found] = [Result.from_json(json.dumps(one)) for one in records if one["id"] == r.id]
        assert found == r
        assert {one["backbone"]["name"] for one in records} == {r.backbone.name}
    assert len(list((folder / "rows").glob("*.js"))) == len(board.rows)


def test_columns_say_what_the_board_says(write, board, gauntlet):
    folder = write(board)
    assert json.loads((folder / "boards" / "0.json").read_text()) == json.loads(as_json(board))
    data = data_of(folder / "boards" / "0.js", "board")
    assert data["name"] == [row.backbone for row in board.rows]
    assert data["results"] == len(gauntlet)
    assert data["newest"] == max(r.created for r in gauntlet).isoformat()
    for i, row in enumerate(board.rows):
        assert data["standing"]["rank"][i] == (row.standing and row.standing.rank)
        words, at = data["facts"]["method"]["words"], data["facts"]["method"]["at"]
        assert words[at[i]] == row.facts.fact("method")
        for column in data["columns"]:
            cell = row.cells.get(column["key"])
            value = column["value"][i]
            assert value is None if cell is None else value == pytest.approx(cell.value, rel=1e-5)
            if cell:
                assert column["low"][i] <= value <= column["high"][i]
                runs = column["runs"] if not isinstance(column["runs"][0], list) else column["runs"][i]
                records = data_of(folder / "rows" / f"{data['record'][i]}.js", "row")
                assert [records[at]["id"] for at in runs] == list(cell.results)


def test_a_result_on_several_boards_is_kept_once(write, board):
    folder = write(board, board.only("ood"))
    listing = json.loads(Outline((folder / "index.html").read_text()).scripts[0])["boards"]
    assert [one["key"] for one in listing] == ["quick", "quick-1"]
    everything, some = (data_of(folder / "boards" / f"{n}.js", "board") for n in (0, 1))
    assert len(everything["columns"]) > len(some["columns"]) == 2
    records = [one for path in (folder / "rows").glob("*.js") for one in data_of(path, "row")]
    assert len(records) == len({one["id"] for one in records})


def test_published_boards_carry_their_source_and_no_records(write, published, figures):
    folder = write(published, sources=[figures[0].source])
    data = data_of(folder / "boards" / "0.js", "board")
    assert data["published"] is True
    assert data["source"]["title"] == "A published table"
    assert data["standing"]["rank_low"] is None
    assert data["columns"][0]["low"] is None
    assert data["card"][0] == published.rows[0].facts.card
    assert json.loads((folder / "rows" / "index.json").read_text()) == {}
    listing = json.loads(Outline((folder / "index.html").read_text()).scripts[0])["boards"]
    assert listing == [{"key": "a-table", "title": "A published table", "published": True}]


@pytest.mark.parametrize("keep", [0, 1, 20])
def test_pages_of_few_results(write, gauntlet, board, keep):
    few = Board.of(gauntlet[:keep], headline_columns(gauntlet[:keep]), "few")
    data = data_of(write(few) / "boards" / "0.js", "board")
    assert len(data["name"]) == len(few.rows)


def test_a_page_replaces_a_page_and_nothing_else(write, board, tmp_path):
    folder = write(board)
    (folder / "old.txt").touch()
    assert not (write(board) / "old.txt").exists()
    (tmp_path / "empty").mkdir()
    write(board, folder=tmp_path / "empty")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "index.html").write_text("<h1>mine</h1>")
    with pytest.raises(BadInput, match="holds something else"):
        write(board, folder=theirs)
    assert (theirs / "index.html").read_text() == "<h1>mine</h1>"
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="name an empty or a new folder"):
        write(board, folder=tmp_path / "file")


def test_a_page_that_fails_leaves_the_old_one(write, board, tmp_path):
    folder = write(board)
    before = (folder / "index.html").read_bytes()

    def broken(ids):
        raise RuntimeError("the store is gone")

    with pytest.raises(RuntimeError, match="the store is gone"):
        write_page([board], folder, broken)
    assert (folder / "index.html").read_bytes() == before
    assert not [p for p in tmp_path.iterdir() if p.is_dir() and p.name.startswith(".")]


def test_what_strangers_write_stays_data(write, board):
    evil = Board(**{**vars(board), "title": EVIL})
    text = (write(evil) / "index.html").read_text(encoding="utf-8")
    outline = Outline(text)
    assert len(outline.scripts) == 2
    assert json.loads(outline.scripts[0])["boards"][0]["title"] == EVIL
    assert "img" not in {tag for tag, _ in outline.tags}
    assert columnar(evil)["title"] == EVIL
