"""The command line: quick to answer, JSON with stable keys, one line for every mistake."""

import json
import subprocess
import sys

import pytest
from backbench.backbones import roster
from backbench.benchmarks.cli import code

HEAVY = (
    "torch",
    "timm",
    "transformers",
    "open_clip",
    "torchvision",
    "sklearn",
    "scipy",
    "pyarrow",
    "sqlalchemy",
    "datasets",
)


@pytest.mark.parametrize(
    "words",
    [["--help"], ["run", "--help"], ["list", "tasks"], ["list", "backbones"], ["list", "datasets"], ["list", "suites"]],
)
def test_light_commands_import_nothing_heavy(words):
    program = f"""
import sys
from backbench.benchmarks.cli import code
assert code({words!r}) == 0
print(*sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize(
    ("what", "keys", "one"),
    [
        ("tasks", ["name", "family", "version", "description"], "linear-probe"),
        ("backbones", list(roster.FIELDS), "mini/cnn-supervised"),
        ("datasets", ["name", "kind", "source", "description"], "digit-scenes"),
        ("suites", ["name", "tasks", "backbones", "description"], "quick"),
    ],
)
def test_listings_as_json_have_stable_keys(cli, what, keys, one):
    rows = json.loads(cli("list", what, "--format", "json").out)
    assert [list(row) for row in rows] == [keys] * len(rows)
    assert one in {row["name"] for row in rows}


def test_grep_narrows_a_listing(cli):
    rows = json.loads(cli("list", "tasks", "--grep", "RETRIEVAL", "--format", "json").out)
    assert {row["name"] for row in rows} == {"retrieval", "image-text-retrieval"}
    assert json.loads(cli("list", "tasks", "--grep", "no such text", "--format", "json").out) == []


MISTAKES = {
    "suite": (["run", "quik"], "did you mean 'quick'"),
    "task": (["run", "linear-prob"], "did you mean 'linear-probe'"),
    "backbone": (["run", "knn", "--backbone", "mini/cnn-supervized"], "cnn-supervised'"),
    "bare model name": (["run", "knn", "--backbone", "resnet18"], "timm/resnet18"),
    "library model": (["run", "knn", "--backbone", "timm/resnet81"], "did you mean"),
    "dataset": (["run", "knn", "--dataset", "digit-scene"], "did you mean 'digit-scenes'"),
    "kind of dataset": (["run", "detection", "--dataset", "cifar-10"], "detection"),
    "setting key": (["run", "knn", "--set", "kk=5"], "kk"),
    "setting value": (["run", "knn", "--set", "temperature=warm"], "temperature"),
    "setting form": (["run", "knn", "--set", "k"], "KEY=VALUE"),
    "suite setting without task": (["run", "quick", "--set", "k=5"], "task"),
    "card path": (["run", "knn", "--backbone", "nowhere.yaml"], "nowhere.yaml"),
    "suite path": (["run", "nowhere.yaml"], "nowhere.yaml"),
    "device": (["run", "knn", "--device", "gpu9"], "device 'gpu9'"),
    "listing": (["list", "backbone"], "did you mean 'backbones'"),
    "format": (["list", "tasks", "--format", "jsn"], "json"),
    "thing to show": (["show", "nothing-here"], "nothing-here"),
    "result id": (["rerun", "0123abcd"], "0123abcd"),
    "option": (["run", "quick", "--backbones", "x"], "--backbones"),
    "command": (["rnu", "quick"], "rnu"),
    "no board yet": (["leaderboard"], "backbench run"),
    "bundle to a server": (["submit", "mini/cnn-random", "--to", "https://example.org"], "token"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(home, capfd, mistake):
    words, hint = MISTAKES[mistake]
    assert code(words) == 2
    [line] = "".join(capfd.readouterr()).splitlines()
    assert hint in line


CARDS = {
    "typo in a key": ("source: timm\nmodle: resnet18\n", ":2: modle: unknown key; did you mean 'model'"),
    "typo below": ("source: timm\nmodel: x\ninput:\n  sise: 3\n", ":4: input.sise: unknown key; did you mean 'size'"),
    "unknown source": ("source: tim\nmodel: x\n", ":1: source"),
    "missing key": ("source: timm\n", "model: this key is required"),
    "key twice": ("source: timm\nmodel: a\nmodel: b\n", "line 3: key 'model' is given twice"),
    "not yaml": ("source: [timm\n", "not valid YAML"),
    "not a mapping": ("- timm\n", "mapping"),
    "own weights, no statistics": ("source: timm\nmodel: resnet18\ncheckpoint: w.pth\n", "mean"),
}


@pytest.mark.parametrize("mistake", CARDS)
def test_a_mistake_in_a_card_names_file_line_and_key(home, capfd, tmp_path, mistake):
    text, hint = CARDS[mistake]
    card = tmp_path / "card.yaml"
    card.write_text(text)
    assert code(["run", "knn", "--backbone", str(card)]) == 2
    [line] = "".join(capfd.readouterr()).splitlines()
    assert "card.yaml" in line
    assert hint in line


def test_debug_shows_the_traceback(cli):
    ended = cli("run", "quik", "--debug")
    assert "Traceback" in ended.err
    assert ended.code != 0


def test_a_home_that_cannot_be_written_is_one_line(capfd, tmp_path):
    (tmp_path / "file").write_text("")
    assert code(["doctor", "--home", str(tmp_path / "file" / "home")]) == 2
    assert len("".join(capfd.readouterr()).splitlines()) == 1


def test_show_tells_a_task_its_recipe_and_a_backbone_its_measure(home, capsys):
    def shown(name):
        assert code(["show", name, "--format", "json"]) == 0
        return json.loads(capsys.readouterr().out)

    task = shown("knn")
    assert task["headline"] == "top1"
    assert all(t > 0 for t in task["recipe"]["temperature"])
    backbone = shown("mini/vit-masked")
    assert backbone["measured"]["embed_dim"] > 0
    assert backbone["measured"]["levels"]
    assert shown("digit-scenes")["kind"]
    assert len(shown("quick")["entries"]) == 9


def test_doctor_names_versions_devices_and_caches(cli):
    rows = {row["item"]: row for row in json.loads(cli("doctor", "--format", "json").out)}
    assert rows["torch"]["state"] == "ok"
    assert rows["cpu"]["state"] == "ok"
    assert rows["model hub"]["state"] in ("ok", "unreachable")
    assert {"extra openmmlab", "extra ray", "extra wandb", "features", "disk"} <= rows.keys()
