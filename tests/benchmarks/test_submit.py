"""Submitting: checked, estimated, run, bundled, and sent to a folder, to a server, or as a tree for a pull request."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from backbench.backbones import BadInput, Unavailable
from backbench.benchmarks import submit
from backbench.benchmarks.cli import code
from backbench.benchmarks.home import store_of
from backbench.leaderboard.submission import Truth, inspect, receive


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(
        "description: two quick tasks\n"
        "entries:\n"
        "  - {task: knn, dataset: digit-scenes}\n"
        "  - {task: zero-shot, dataset: digit-scenes, ranked: false}\n"
    )
    return str(path)


@pytest.fixture
def words(home, tiny, suite):
    """The command that hands a small network in."""
    return ["submit", str(tiny), "--suite", suite, "--limit", "40"]


@pytest.fixture
def bundle(words, tmp_path, capfd):
    assert code([*words, "--to", str(tmp_path / "out")]) == 0
    said = capfd.readouterr().out
    assert "points of conformance passed" in said
    assert "MB disk" in said
    assert "1 scored again from files" in said
    return tmp_path / "out" / "tiny"


def test_a_bundle_is_whole_and_can_be_sent_otherwise_without_running_anything_again(
    bundle, words, home, tmp_path, capfd
):
    names = sorted(p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file())
    id = next(n for n in names if n.startswith("results/"))[8:-5]
    cards = ["backbone.yaml", "environment.json", "manifest.json"]
    assert names == [*cards, f"predictions/{id}.parquet", f"results/{id}.json"]
    assert set(json.loads((bundle / "manifest.json").read_text())["files"]) == set(names) - {"manifest.json"}
    assert not inspect(bundle, Truth(home)).findings

    assert code([*words, "--to", f"pr:{tmp_path / 'board'}"]) == 0
    assert "2 done before" in capfd.readouterr().out
    text = (tmp_path / "board" / "PULL_REQUEST.md").read_text()
    assert "# tiny on two" in text
    assert f"| `{id}` | scored again |" in text
    assert "backbench verify submissions/tiny" in text
    assert not inspect(tmp_path / "board" / "submissions" / "tiny", Truth(home)).findings

    assert code(["verify", str(bundle)]) == 0
    assert "1 results, all hold" in capfd.readouterr().out
    path = bundle / "results" / f"{id}.json"
    path.write_text(path.read_text().replace('"seed":0', '"seed":1'))
    assert code(["verify", str(bundle), "--format", "json"]) == 1
    [row] = json.loads(capfd.readouterr().out)
    assert row["state"] == "refused"
    assert row["what"] == f"results/{id}.json: sha256: is not the manifest's; the file was changed"


def test_a_failed_bundle_leaves_the_one_before(bundle, words, home, tmp_path, capfd):
    before = (bundle / "manifest.json").read_text()
    for path in home.rglob("predictions.parquet"):
        path.write_bytes(path.read_bytes() + b" ")  # what is kept is not what was scored
    assert code([*words, "--to", str(tmp_path / "out")]) == 0  # then it is handed in as unverified
    said = json.loads((bundle / "manifest.json").read_text())
    assert list(said["unverified"].values()) == ["its predictions are not kept any more"]
    assert before != (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").unlink()
    assert code([*words, "--to", str(tmp_path / "out")]) == 2
    assert "holds something else than a bundle" in capfd.readouterr().err


def test_weights_come_along_where_they_are_asked_for(home, suite, tmp_path, capfd):
    import timm
    from safetensors.torch import save_file

    model = timm.create_model("test_resnet", num_classes=0)
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    card = tmp_path / "own.yaml"
    card.write_text(
        "source: timm\nmodel: test_resnet\ncheckpoint: own.safetensors\n"
        "input: {size: 64, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}\n"
    )
    words = ["submit", str(card), "--suite", suite, "--limit", "40", "--to", str(tmp_path / "out"), "--with-weights"]
    assert code(words) == 0, capfd.readouterr().err
    assert (tmp_path / "out" / "own" / "weights" / "own.safetensors").is_file()
    board = tmp_path / "board"
    [drawn] = receive(tmp_path / "out" / "own", store_of(board), board, "ann").checks
    (tmp_path / "own.safetensors").unlink()
    assert code(["verify", "--rerun", "--home", str(board)]) == 0, capfd.readouterr()
    assert f"{drawn}: reproduced, bit for bit; marked reproduced" in capfd.readouterr().out


def test_weights_that_are_not_there_are_not_promised(words, capfd, tmp_path):
    assert code([*words, "--to", str(tmp_path / "out"), "--with-weights"]) == 2
    assert "--with-weights: its card names no checkpoint of your own" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("to", "line"),
    [
        ("ftp://board.example.org", "give a directory, pr:DIRECTORY, or a server"),
        ("https://user:secret@board.example.org", "give a directory"),
        ("https://", "give a directory"),
    ],
)
def test_destinations_that_are_none(to, line, tmp_path):
    with pytest.raises(BadInput, match=line):
        submit.destination(to, tmp_path, "tiny")


def test_a_token_is_needed_before_anything_runs(words, monkeypatch, tmp_path, capfd):
    monkeypatch.delenv("BACKBENCH_TOKEN", raising=False)
    assert code([*words, "--to", "https://board.example.org"]) == 2
    assert "$BACKBENCH_TOKEN: holds no token" in capfd.readouterr().err
    (tmp_path / "token").write_text("two words")
    assert code([*words, "--to", "https://board.example.org", "--token-file", str(tmp_path / "token")]) == 2
    said = capfd.readouterr().err
    assert "holds no token" in said
    assert "two words" not in said


class Board(BaseHTTPRequestHandler):
    """A server that is busy at first, takes a bundle in, and needs a moment to check it."""

    answers: list  # of (status, headers, body), one a request
    seen: list

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.answer(self.rfile.read(length))

    def do_GET(self):
        self.answer(b"")

    def answer(self, body):
        self.seen.append((self.command, self.path, dict(self.headers), body))
        status, headers, said = self.answers.pop(0)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())

    def log_message(self, *args):
        """Says nothing."""


@pytest.fixture
def board(monkeypatch):
    """`board(answers)`: the address of a server that gives them, and what it was asked."""
    naps = []
    monkeypatch.setattr(submit.time, "sleep", naps.append)
    started = []

    def start(*answers):
        handler = type("Handler", (Board,), {"answers": list(answers), "seen": []})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        started.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", handler.seen, naps

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture
def folder(tmp_path):
    """Something to send."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    return folder


ACCEPTED = {"id": "a1b2", "state": "accepted", "detail": {"receipt": {}}}


def test_sending_waits_for_a_busy_server_and_for_what_it_finds(board, folder):
    busy, slow = (503, {"Retry-After": "7"}, {"detail": "no room"}), (429, {}, {})
    taken, checking = (202, {}, {"id": "a1b2", "state": "queued"}), (200, {}, {"id": "a1b2", "state": "checking"})
    url, seen, naps = board(busy, slow, taken, checking, slow, (200, {}, ACCEPTED))
    assert submit.send(folder, url, "secret-token") == ACCEPTED
    methods = [(method, path) for method, path, _, _ in seen]
    assert methods == [("POST", "/api/v1/submissions")] * 3 + [("GET", "/api/v1/submissions/a1b2")] * 3
    assert {headers["Authorization"] for _, _, headers, _ in seen} == {"Bearer secret-token"}
    assert len({body for method, _, _, body in seen if method == "POST"}) == 1  # whole each time
    assert naps[:2] == [7.0, 1.0]


def test_what_a_server_refuses_is_said_in_a_line(board, folder):
    url, *_ = board((401, {}, {"detail": "the token\nhas expired"}))
    with pytest.raises(BadInput, match=r"^127\.0\.0\.1:\d+: 401 the token has expired$"):
        submit.send(folder, url, "secret-token")
    url, *_ = board((200, {}, ["what"]))
    with pytest.raises(Unavailable, match="is it a backbench server"):
        submit.send(folder, url, "secret-token")
    url, *_ = board(*[(503, {}, {})] * submit.TRIES)
    with pytest.raises(Unavailable, match=r"503 Service Unavailable \(6 tries\); try again later"):
        submit.send(folder, url, "secret-token")
    with pytest.raises(Unavailable, match="6 tries"):
        submit.send(folder, "http://127.0.0.1:9", "secret-token")


def test_findings_of_a_server_reach_the_person(board, words, monkeypatch, capfd):
    monkeypatch.setenv("BACKBENCH_TOKEN", "secret-token")
    line = "results/00.json: seed: is wrong"
    refused = {"id": "a1", "state": "refused", "detail": {"findings": [line]}}
    url, seen, _ = board((202, {}, {"id": "a1", "state": "queued"}), (200, {}, refused))
    assert code([*words, "--to", url]) == 1
    said = capfd.readouterr()
    assert f"{url}: submission a1 refused" in said.out
    assert line in said.err
    assert seen[0][3][:2] == b"PK"
    assert "secret-token" not in said.out + said.err


def test_estimate_counts_shared_splits_once_and_leaves_nothing_behind(home, tiny, suite, capsys):
    assert code(["estimate", "linear-probe", "--backbone", str(tiny), "--limit", "60", "--format", "json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert list(row) == ["backbone", "task", "dataset", "seconds", "images", "disk_mb", "memory_mb"]
    assert row["images"] == 3 * 60
    assert row["seconds"] > 0
    assert row["memory_mb"] > 0
    assert not list(home.glob("probe-*"))
    assert code(["estimate", suite, "--backbone", str(tiny), "--limit", "60", "--format", "json"]) == 0
    assert [r["task"] for r in json.loads(capsys.readouterr().out)] == ["knn"]
