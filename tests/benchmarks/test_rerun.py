"""A rerun of somebody else's record: from a page, a bundle, a server, a file; nothing that it names is run or read."""

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from backbench.backbones import BadInput, Unavailable
from backbench.benchmarks.cli import code
from backbench.benchmarks.origin import strangers_cards
from backbench.benchmarks.records import record
from backbench.benchmarks.rerun import judge
from backbench.benchmarks.runner import run
from backbench.leaderboard import Result


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A k-NN on a few images, made in a home of somebody else."""
    report = run("knn", ["mini/cnn-supervised"], limit=30, home=tmp_path_factory.mktemp("elsewhere"))
    [found] = report.results.values()
    return found


@pytest.fixture
def page(result, tmp_path):
    """The part of a page that holds records."""
    rows = tmp_path / "page" / "rows"
    rows.mkdir(parents=True)
    (rows / "index.json").write_text(json.dumps({result.id: 7, "0" * 16: 8}))
    (rows / "7.js").write_text(f"backbench.row([{result.to_json()}]);\n")
    (rows.parent / "index.html").write_text("<!doctype html>")
    return rows.parent


def changed(result, **change):
    content = json.loads(result.to_json()) | change
    return Result.of(**{k: v for k, v in content.items() if k not in ("id", "trust", "created")})


def card(result, **change):
    """The result of another card."""
    network = json.loads(result.to_json())["backbone"]
    return changed(result, backbone=network | {"card": change})


def test_a_record_from_a_page_is_reproduced_in_a_fresh_home(page, result, command, tmp_path):
    ended = command("rerun", result.id, "--from", page, home=tmp_path / "fresh")
    assert ended.code == 0, ended.err
    assert ended.lines[-1] == f"{result.id}: reproduced, bit for bit"
    assert not list((tmp_path / "fresh").glob("rerun-*"))


@pytest.mark.parametrize("way", ["page", "index.html", "file", "url"])
def test_it_is_found_wherever_it_is(way, page, result, tmp_path):
    (tmp_path / "record.json").write_text(result.to_json())
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=page))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    ways = {"page": page, "index.html": page / "index.html", "file": tmp_path / "record.json", "url": url}
    try:
        assert record(result.id[:8], str(ways[way])) == result
        with pytest.raises(BadInput, match=r"no result|is there"):
            record("f" * 16, str(ways[way]))
    finally:
        server.shutdown()
        server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        """Says nothing."""


def test_a_server_is_asked_by_its_interface(result, tmp_path):
    folder = tmp_path / "api" / "v1" / "results"
    folder.mkdir(parents=True)
    answer = {"result": json.loads(result.to_json()), "withdrawn": None, "history": []}
    (folder / result.id).write_text(json.dumps(answer))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert record(result.id, f"http://127.0.0.1:{server.server_port}") == result
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(Unavailable):
        record(result.id, "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("index.json", "[", "not valid JSON"),
        ("index.json", '{"ID": "../../secret"}', "is no number of a file"),
        ("7.js", "alert(1)", "not a page's file of records"),
        ("7.js", "backbench.row(alert(1));", "not valid JSON"),
        ("7.js", "backbench.row([{}]);", "there is no result"),
        ("7.js", 'backbench.row([{"id": "ID"}]);', "this key is required"),
    ],
)
def test_a_page_that_is_harmed_or_hostile(name, text, line, page, result):
    (page / "rows" / name).write_text(text.replace("ID", result.id))
    with pytest.raises(BadInput, match=line):
        record(result.id, str(page))


def test_a_record_that_was_changed_is_refused(page, result):
    path = page / "rows" / "7.js"
    path.write_text(path.read_text().replace('"seed":0', '"seed":1'))
    with pytest.raises(BadInput, match="this record was changed"):
        record(result.id, str(page))


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            {"source": "python", "model": "os:system", "input": {"size": 64, "mean": [0, 0, 0], "std": [1, 1, 1]}},
            "own code",
        ),
        ({"source": "transformers", "model": "/home/me/model"}, "leads to a place on the reader's machine"),
        ({"source": "timm", "model": "local-dir:/home/me"}, "leads to a place"),
        ({"source": "timm", "model": "resnet18", "model_args": {"checkpoint_path": "../x.pt"}}, "leads to a place"),
        ({"source": "timm", "model": "resnet18", "model_args": {"trust_remote_code": True}}, "trust_remote_code"),
        (
            {
                "source": "timm",
                "model": "resnet18",
                "checkpoint": {"path": "own.pth"},
                "input": {"size": 64, "mean": [0, 0, 0], "std": [1, 1, 1]},
            },
            "is its submitter's own file, and was not handed in",
        ),
        (
            {
                "source": "timm",
                "model": "resnet18",
                "checkpoint": {"path": "https://example.org/own.pth"},
                "input": {"size": 64, "mean": [0, 0, 0], "std": [1, 1, 1]},
            },
            "sha256: is missing",
        ),
    ],
)
def test_a_record_names_neither_code_nor_files(said, line, result, tmp_path):
    with pytest.raises(BadInput, match=line):
        strangers_cards(card(result, **said), tmp_path)


def test_a_record_names_no_data_set_by_its_path(result, tmp_path):
    (tmp_path / "own.yaml").write_text("kind: [classification]\nsource: digit-scenes\n")
    data = json.loads(result.to_json())["dataset"] | {"name": str(tmp_path / "own.yaml")}
    with pytest.raises(BadInput, match=r"dataset\.name: this machine has no data set"):
        strangers_cards(changed(result, dataset=data), tmp_path)


@pytest.mark.parametrize(
    ("id", "source", "line"),
    [
        ("../x", "page", "is no id of a result"),
        ("0123abcd", "ftp://example.org", "give a folder, a file, or a URL"),
        ("0123abcd", "nowhere", "no such file or folder"),
    ],
)
def test_where_it_should_be_from(id, source, line, home, capfd):
    assert code(["rerun", id, "--from", source]) == 2
    assert line in capfd.readouterr().err


def test_a_seed_that_nobody_has_takes_no_time(result, page, home, capfd):
    lie = changed(result, seed=10**12)
    (page / "rows" / "index.json").write_text(json.dumps({lie.id: 7}))
    (page / "rows" / "7.js").write_text(f"backbench.row([{lie.to_json()}]);")
    assert code(["rerun", lie.id, "--from", str(page)]) == 2
    assert "seeds are 0 to 99" in capfd.readouterr().err


def test_a_verdict_names_what_is_missing(result):
    name, score = next(iter(result.scores.items()))
    more = {n: s.model_dump() for n, s in result.scores.items()} | {"top3": score.model_dump()}
    verdict = judge(changed(result, scores=more), result)
    assert not verdict.reproduced
    assert "top3" in verdict.text
    assert judge(result, result).text == "reproduced, bit for bit"
    assert name in result.scores
