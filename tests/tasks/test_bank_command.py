"""`backbench cache`: what is kept, what may go, what is harmed."""

import json
import os

import pytest
from backbench.benchmarks.cli import code
from backbench.tasks import Bank
from backbench.tasks.entry import Entry


@pytest.fixture
def kept(home, make_backbone, make_split):
    """The features folder of a home that keeps three splits of one backbone."""
    for seed in range(3):
        Bank(home / "features").features(make_backbone(), make_split(50, seed), "embedding")
    return home / "features"


@pytest.fixture
def call(capfd):
    """`code, out = call("list", …)`."""

    def run(*words):
        capfd.readouterr()
        ended = code(["cache", *words])
        out, err = capfd.readouterr()
        return ended, out or err

    return run


def test_list_has_stable_keys(kept, call):
    rows = json.loads(call("list", "--format", "json")[1])
    assert [list(row) for row in rows] == [["entry", "backbone", "split", "what", "rows", "mb", "used", "state"]] * 3
    assert {(row["backbone"], row["what"], row["rows"], row["state"]) for row in rows} == {
        ("tiny", "embedding", 50, "ready")
    }


def test_an_empty_home_is_no_mistake(home, call):
    assert json.loads(call("list", "--format", "json")[1]) == []
    assert call("verify")[0] == 0
    assert "0 of 0 entries removed" in call("prune", "--to", "1MB")[1]


def test_prune(kept, call):
    oldest = min(Entry.all(kept), key=lambda entry: entry.used)
    os.utime(oldest.place / "index.json", (1e9, 1e9))
    assert "0 of 3 entries removed" in call("prune", "--to", "1 GiB")[1]
    assert "0 of 3 entries removed" in call("prune", "--backbone", "another")[1]
    assert "1 of 3 entries removed" in call("prune", "--older-than", "30d")[1]
    assert not oldest.place.exists()
    assert "1 of 2 entries removed" in call("prune", "--to", f"{next(Entry.all(kept)).size + 10}b")[1]
    assert "1 of 1 entries removed" in call("prune", "--backbone", "tiny")[1]


def test_verify_names_what_is_harmed(kept, call):
    assert call("verify") == (0, "3 entries, 0 harmed\n")
    first, second, _ = Entry.all(kept)
    (first.place / "index.json").write_text("{}")
    data = bytearray((second.place / "embedding.safetensors").read_bytes())
    data[-1] ^= 1
    (second.place / "embedding.safetensors").write_bytes(data)
    ended, out = call("verify", "--format", "json")
    assert ended == 1
    states = {row["entry"]: row["state"] for row in json.loads(out)}
    assert states[first.key[:12]] == "unreadable"
    assert states[second.key[:12]] == "harmed"
    assert sorted(states.values()) == ["harmed", "ready", "unreadable"]
    assert "3 entries, 2 harmed" in call("verify")[1]


def test_what_is_not_finished_is_shown(kept, call):
    first = next(Entry.all(kept))
    first.place.rename(f"{first.place}.part")
    rows = json.loads(call("list", "--format", "json")[1])
    assert sorted(row["state"] for row in rows) == ["ready", "ready", "unfinished"]
    assert call("verify")[0] == 0


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["prune"], "say what may go: --to 10GB"),
        (["prune", "--to", "10"], "--to 10: not a size, such as 500MB"),
        (["prune", "--to", "ten GB"], "--to ten GB: not a size"),
        (["prune", "--older-than", "30 GB"], "--older-than 30 GB: not an age, such as 12h or 30d"),
        (["list", "--format", "jsn"], "json"),
        (["lst"], "lst"),
    ],
)
def test_a_mistake_is_one_line(home, call, words, hint):
    ended, said = call(*words)
    assert ended == 2
    assert hint in said
    assert said.count("\n") == 1


def test_nothing_heavy_is_imported(cli):
    program = """
import sys
from backbench.benchmarks.cli import code
for words in (["cache", "--help"], ["cache", "list"], ["cache", "prune", "--to", "1GB"], ["cache", "verify"]):
    assert code(words) == 0
print(*sorted({"torch", "timm", "sqlalchemy", "pyarrow", "scipy"} & set(sys.modules)), file=sys.stderr)
"""
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""


def test_run_takes_a_bound_and_a_fast_way(home, capfd):
    run = ["run", "knn", "--backbone", "mini/cnn-supervised", "--limit", "40"]
    assert code([*run, "--fast", "--cache-size", "1kB"]) == 0
    assert len(list(Entry.all(home / "features"))) == 3  # all in use when the last of them was written
    path = next((home / "runs").glob("*/result.json"))
    backbone = json.loads(path.read_text())["backbone"]
    assert backbone["loading"]["decoder"] == "fast"
    assert backbone["loading"]["channels_last"] is True
    assert backbone["transform"]["decoder"] == "fast"
    capfd.readouterr()
    for words, hint in (
        (["--cache-size", "much"], "--cache-size much: not a size"),
        (["--fast", "--channels-last"], "--fast sets --precision and --channels-last itself"),
    ):
        assert code([*run, *words]) == 2
        assert hint in capfd.readouterr().err
