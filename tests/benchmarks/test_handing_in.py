"""The whole way with a real server: handed in, scored again, run again by a keeper elsewhere, and seen so."""

import os
import socket
import subprocess
import sys
import time

import pytest

httpx = pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'backbench[serve]'")


@pytest.fixture
def board(tmp_path, command):
    """The address of a server in a process of its own, and files with tokens to submit and to maintain."""
    home = tmp_path / "board"
    home.mkdir()
    files = {}
    for scope in ("submit", "maintain"):
        ended = command("token", "create", f"{scope}-ann", "--scope", scope, home=home)
        assert ended.code == 0, ended.err
        files[scope] = tmp_path / scope
        files[scope].write_text(max(ended.out.split(), key=len))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        sys.executable,
        "-m",
        "backbench",
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--home",
        str(home),
    ]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ.copy())
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 120
        while True:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < end, "the server never answered"
            try:
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield url, files
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_from_a_card_to_a_reproduced_row(board, tiny, command, tmp_path):
    url, tokens = board
    suite = tmp_path / "one.yaml"
    suite.write_text("description: one\nentries:\n  - {task: knn, dataset: digit-scenes}\n")
    words = ["submit", tiny, "--suite", suite, "--limit", "30", "--to", url, "--token-file", tokens["submit"]]
    sent = command(*words, home=tmp_path / "sender")
    assert sent.code == 0, sent.out + sent.err
    assert sent.lines[-1].endswith(" accepted")
    [row] = httpx.get(f"{url}/api/v1/results").json()["results"]
    assert row["trust"] == "rescored"

    again = command(*words, home=tmp_path / "sender")  # a new manifest of the same results
    assert again.code == 1
    assert "nothing is new" in again.err

    keeper = ["verify", "--rerun", "--server", url, "--token-file", tokens["maintain"]]
    own = command(*keeper, home=tmp_path / "sender")
    assert "was handed in from this very home" in own.out
    done = command(*keeper, home=tmp_path / "keeper")
    assert done.code == 0, done.out + done.err
    assert done.lines[-1] == f"{row['id']}: reproduced, bit for bit; marked reproduced"
    whole = httpx.get(f"{url}/api/v1/results/{row['id']}").json()
    assert whole["result"]["trust"] == "reproduced"
    [last] = [event for event in whole["history"] if event["action"] == "trust"]
    assert all(score["then"] == score["now"] for score in last["detail"]["scores"])
    assert command(*keeper, home=tmp_path / "keeper").lines == ["nothing to run again here"]

    elsewhere = command("rerun", row["id"], "--from", url, home=tmp_path / "anybody")
    assert elsewhere.lines[-1] == f"{row['id']}: reproduced, bit for bit"
