"""`backbench serve` and `backbench token`: handed in, ranked, looked at in a browser, run again from there."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest
from backbench.benchmarks.cli import code

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'backbench[serve]'")
SUITE = "description: one column\nentries:\n  - {task: knn, dataset: digit-scenes}\n"


@contextmanager
def serving(home, *words):
    """The URL of `backbench serve`, and its process."""
    call = [sys.executable, "-c", "from backbench.benchmarks.cli import main\nif __name__ == '__main__': main()"]
    process = subprocess.Popen(
        [*call, "serve", "--port", "0", "--home", home, *words], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        said = process.stdout.readline()
        yield re.search(r"http://[\d.:]+", said)[0], process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def typed(home, capsys):
    """`typed("token", "list")`: a command in this process, how it ended and what it said."""

    def call(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        ended = code(list(words))
        return ended, "".join(capsys.readouterr()).strip()

    return call


def until_up(url: str) -> None:
    """Waits until it answers."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with suppress(httpx.HTTPError):
            httpx.get(f"{url}/health")
            return
        time.sleep(0.1)


@pytest.mark.parametrize("words", [["--host", "no host"], ["--upload-limit", "much"], ["--reads", "0"]])
def test_what_cannot_be_served_is_told_in_one_line(typed, words):
    ended, said = typed("serve", *words)
    assert (ended, said.count("\n")) == (2, 0)
    assert words[0] in said


def test_a_port_that_is_taken_is_told(typed):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"--host 127.0.0.1 --port {taken.getsockname()[1]}"
        ended, said = typed("serve", *where.split())
    assert (ended, said) == (
        2,
        f"backbench: {where}: Address already in use; is another server there? Take another --port",
    )


def test_it_says_where_it_is_and_goes_in_good_order(tmp_path):
    with serving(tmp_path / "board") as (url, process):
        until_up(url)
        health = httpx.get(f"{url}/health").json()
        assert (health["status"], health["results"]) == ("ok", 0)
        assert "token create NAME" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)


def test_without_the_extra_it_says_how_to_get_it(monkeypatch):
    from backbench.backbones import Unavailable
    from backbench.benchmarks.cli import serving as commands

    monkeypatch.setattr(commands, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match=re.escape("pip install 'backbench[serve]'")):
        commands.serve("127.0.0.1", 0, "1MB", 1, 1, 1, None, None)


def test_tokens_are_made_listed_and_revoked(typed, home):
    ended, secret = typed("token", "create", "coral", "--expires", "90d")
    assert (ended, len(secret.split())) == (0, 1)
    assert typed("token", "create", "coral")[1].startswith("backbench: there is a token 'coral' already")
    assert typed("token", "create", "reef", "--scope", "maintan")[0] == 2
    assert typed("token", "create", "reef", "--expires", "soon")[1].startswith("backbench: --expires soon: not an age")
    assert "'coral' opens nothing" in typed("token", "revoke", "coral")[1]
    [listed] = json.loads(typed("token", "list", "--format", "json")[1])
    assert (listed["name"], listed["scope"], listed["state"]) == ("coral", "submit", "revoked")
    assert secret.encode() not in (home / "leaderboard.db").read_bytes()


@pytest.fixture
def submitted(tmp_path, command):
    """A server that a bundle was handed in to: its home, its URL, its process, the result's id."""
    home, suite = tmp_path / "board", tmp_path / "one.yaml"
    suite.write_text(SUITE)
    made = command("token", "create", "coral", home=home)
    assert made.code == 0, made.err
    (tmp_path / "token").write_text(made.out)
    with serving(home) as (url, process):
        words = ["submit", "mini/cnn-random", "--suite", suite, "--limit", "40", "--to", url]
        sent = command(*words, "--token-file", tmp_path / "token", home=tmp_path / "mine")
        assert sent.code == 0, sent.out + sent.err
        [result] = httpx.get(f"{url}/api/v1/results").json()["results"]
        yield home, url, process, result["id"]


@pytest.mark.slow
def test_handed_in_looked_at_and_run_again(submitted, tmp_path, command, request):
    home, url, process, id = submitted
    known = httpx.get(f"{url}/api/v1/results/{id}").json()
    assert (known["result"]["trust"], known["history"][0]["by"]) == ("rescored", "coral")
    board = httpx.get(f"{url}/api/v1/ranking").json()["board"]
    assert [row["backbone"] for row in board["rows"]] == ["mini/cnn-random"]
    assert httpx.get(f"{url}/api/v1/compare?backbone=mini/cnn-random&backbone=mini/x").status_code == 400

    page = request.getfixturevalue("chromium").new_page()
    faults, asked = [], []
    page.on("console", lambda message: message.type in ("error", "warning") and faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda one: asked.append(one.url))
    page.goto(url)
    page.wait_for_url("**/board/*/**")
    page.get_by_text("mini/cnn-random").first.wait_for()
    at = page.url
    page.goto(f"{url}/docs")
    page.get_by_text("/api/v1/submissions", exact=False).first.wait_for()
    page.close()
    assert faults == []
    assert {httpx.URL(one).host for one in asked} == {"127.0.0.1"}

    # What the page has to be copied: the record comes from the server, everything else from here.
    again = command("rerun", id, "--from", at.partition("#")[0], home=tmp_path / "fresh")
    assert again.code == 0, again.out + again.err
    assert "reproduced" in again.out
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) in (0, -signal.SIGTERM)
    assert list((home / "incoming").iterdir()) == []
