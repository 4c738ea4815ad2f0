"""`--wandb`: finished cells as runs of Weights & Biases, in real processes, sent to a server of our own on loopback."""

import getpass
import gzip
import json
import re
import socket
import subprocess
import sys
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from backbench import run
from backbench.backbones import Unavailable
from backbench.leaderboard import Result, Store, track

pytest.importorskip("wandb")

KEY = "0123456789abcdef" * 3  # of nobody
CURVE = [{"epoch": 0, "loss": 2.5, "val_top1": 20.0}, {"epoch": 1, "loss": 1.25, "val_top1": 60.0}]


class Server(ThreadingHTTPServer):
    """As much of wandb's server as `wandb sync` asks for; `said` keeps what it was told, word by word."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.said, self.queries, self.uploads = [], defaultdict(list), {}
        self.history = defaultdict(list)

    def handle_error(self, *_):
        """Connections that the client drops at its end are no news."""

    def answer(self, operation, variables):
        given = variables.get("input", variables)
        made = {"id": "made", "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        if operation == "UpsertBucket":
            project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "someone"}}
            bucket = {"id": "b", "name": given["name"], "project": project, "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if operation == "CreateArtifact":
            return {"createArtifact": {"artifact": made | {"id": given["artifactCollectionName"]}}}
        if operation in ("CreateArtifactManifest", "UpdateArtifactManifest"):
            file = {"id": "f", "name": given["name"], "uploadUrl": f"{self.url}/manifest", "uploadHeaders": []}
            return {operation[0].lower() + operation[1:]: {"artifactManifest": {"id": "m", "file": file}}}
        if operation == "CreateArtifactFiles":
            nodes = [
                {"storagePath": f["name"], "uploadUrl": f"{self.url}/{f['artifactID']}/{f['name']}"}
                | {"uploadHeaders": [], "artifact": {"id": f["artifactID"]}}
                for f in given["artifactFiles"]
            ]
            return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}
        if operation == "CommitArtifact":
            return {"commitArtifact": {"artifact": {"id": "made", "digest": "d"}}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/files/{name}"} for name in given["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        if operation == "Viewer":
            return {"viewer": {"id": "v", "entity": "someone", "username": "someone", "teams": {"edges": []}}}
        return {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.said.append(f"{self.path} {self.headers} ".encode() + body)
        answer = {}
        if self.path == "/graphql":
            asked = json.loads(body)
            found = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            self.server.queries[found[1]].append(asked.get("variables") or {})
            answer = {"data": self.server.answer(found[1], asked.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            for name, sent in (json.loads(body).get("files") or {}).items():
                self.server.history[name] += [json.loads(line) for line in sent["content"]]
        else:
            self.server.uploads[self.path] = body
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = do_POST


@pytest.fixture
def server():
    server = Server()
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def nobody(tmp_path, monkeypatch):
    """No account of whoever runs the tests is found, and none of theirs is used."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, command):
    """One small cell, run by a command whose wandb fails: its words, how it ended, its result and predictions."""
    base = tmp_path_factory.mktemp("finished")
    card = base / "tiny.yaml"
    card.write_text("source: timm\nmodel: test_resnet\npretrained: false\ninput: {size: 64}\n")
    words = ("run", "knn", "--limit", "60", "--backbone", card, "--wandb")
    ended = command(*words, home=base / "home", PYTHONPATH=broken(base, "raise RuntimeError('no such luck')"))
    [result] = Store(base / "home" / "leaderboard.db").all()
    return words, ended, result, (base / "home" / result.predictions.path).read_bytes()


@pytest.fixture
def cell(finished, home):
    """A home in which that cell is finished, and seems to have been trained for two epochs."""
    _, _, result, predictions = finished
    path = home / result.predictions.path
    training = path.parent / "training" / "rate-0.1"
    training.mkdir(parents=True)
    path.write_bytes(predictions)
    (training / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CURVE))
    Store(home / "leaderboard.db").add(result)
    return result


def offline_runs(home):
    return sorted(path.name for path in (home / "wandb").glob("offline-run-*"))


def broken(folder, fault):
    """A folder for PYTHONPATH in which `wandb.init` fails."""
    (folder / "broken").mkdir()
    settings = "class Settings:\n    def __init__(self, **_): pass\n"
    (folder / "broken" / "wandb.py").write_text(f"{settings}def init(**_): {fault}\n")
    return str(folder / "broken")


def test_a_fault_of_wandb_changes_nothing(finished):
    _, ended, *_ = finished
    assert ended.code == 0
    assert "1 cells: 1 run" in ended.out
    [said] = ended.err.splitlines()
    assert said.startswith("warning: wandb: not logged (RuntimeError: no such luck)")


@pytest.mark.slow
def test_the_same_command_tries_again_and_logs_once(finished, cell, cli, home):
    again = cli(*finished[0])
    assert again.code == 0
    assert "1 cells: 0 run" in again.out
    [said] = again.err.splitlines()
    assert "1 cells logged, 1 not sent (No API key" in said
    assert f"`cd {home} && wandb sync wandb`" in said
    [name] = offline_runs(home)
    assert cell.id in name
    assert "0 cells logged" in track([cell], "knn", home)
    assert offline_runs(home) == [name]


def test_everything_arrives_at_the_server(cell, home, server, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    assert "WANDB_MODE is offline" in track([cell], "quick", home)
    assert not server.said
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    assert track([cell], "quick", home) == "wandb: 0 cells logged, all sent"

    told = server.queries["UpsertBucket"][0]
    assert (told["project"], told["groupName"]) == ("ours", "quick")
    assert set(told["tags"]) == {"tiny", "knn", "digit-scenes", "classification"}
    config = {key: value["value"] for key, value in json.loads(told["config"]).items() if key != "_wandb"}
    assert (config["backbone"], config["task"], config["dataset"], config["family"]) == (
        "tiny", "knn", "digit-scenes", "classification",
    )  # fmt: skip
    assert config["recipe"] == json.loads(cell.to_json())["recipe"]
    assert config["id"] == cell.id

    rows = server.history["wandb-history.jsonl"]
    assert [row["rate-0.1/loss"] for row in rows] == [2.5, 1.25]
    assert [row["rate-0.1/val_top1"] for row in rows] == [20.0, 60.0]
    summary = server.history["wandb-summary.json"][-1]
    top1 = cell.scores["top1"]
    assert [summary[key] for key in ("top1", "top1/low", "top1/high")] == [top1.value, top1.low, top1.high]
    assert summary["cost/images"] == cell.cost.images

    [result] = [body for path, body in server.uploads.items() if path.endswith("/result.json")]
    [predictions] = [body for path, body in server.uploads.items() if path.endswith("/predictions.parquet")]
    assert Result.from_json(result) == cell
    assert predictions == (home / cell.predictions.path).read_bytes()

    before = len(server.said)
    assert track([cell], "quick", home) == "wandb: all was logged and sent before"
    assert len(server.said) == before


def test_nothing_of_the_machine_or_the_person_is_told(cell, home, server, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    assert track([cell], "quick", home).endswith("all sent")
    told = b"\n".join(server.said)
    assert cell.id.encode() in told
    for private in (f'"{socket.gethostname()}"', str(home), str(home.parent), f"/home/{getpass.getuser()}", "/root"):
        at = told.find(private.encode())
        assert at < 0, told[max(at - 300, 0) : at + 100]
    assert all(not given.get(key) for given in server.queries["UpsertBucket"] for key in ("host", "repo", "commit"))


@pytest.mark.slow
def test_another_suite_or_project_is_another_run(cell, home, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for suite, project in (("quick", "a"), ("frozen", "a"), ("quick", "b")):
        monkeypatch.setenv("WANDB_PROJECT", project)
        track([cell], suite, home)
    assert len(offline_runs(home)) == 3


def test_a_run_that_was_cut_short_is_written_anew(cell, home, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    track([cell], "quick", home)
    [name] = offline_runs(home)
    (home / "wandb" / "logged" / name.removeprefix("offline-run-")[16:]).unlink()
    assert "1 cells logged" in track([cell], "quick", home)
    assert len(offline_runs(home)) == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("import os; os.kill(os.getpid(), 9)", "exit code -9"), ("raise SystemExit(3)", "exit code 3")],
)
def test_a_process_that_dies_is_one_line(cell, home, tmp_path, monkeypatch, fault, reason):
    monkeypatch.setenv("PYTHONPATH", broken(tmp_path, fault))
    said = track([cell], "quick", home)
    assert said == f"warning: wandb: not logged ({reason}); results are safe, the same command tries again"


@pytest.mark.slow
def test_a_server_that_does_not_answer_holds_up_nothing(cell, home, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    said = track([cell], "quick", home)
    assert "1 cells logged, 1 not sent (Failed to authenticate" in said
    assert "\n" not in said


def test_without_the_package_nothing_runs(tiny, home, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(Unavailable, match=r"pip install 'backbench\[wandb\]'"):
        run("knn", [str(tiny)], limit=60, wandb=True)
    assert not Store(home / "leaderboard.db").all()


def test_who_asks_does_not_import_it(cell, home):
    code = (
        "import sys; from pathlib import Path; from backbench.leaderboard import Result, track\n"
        "track([Result.from_json(sys.stdin.read())], 'quick', Path(sys.argv[1]))\n"
        "assert 'wandb' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(home)], input=cell.to_json(), text=True, check=True)
    assert offline_runs(home)
