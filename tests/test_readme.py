"""README's own commands and code blocks, run as they stand."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)


def blocks(language):
    return [text for kind, text in BLOCKS if kind == language]


def commands():
    lines = [line for text in blocks("sh") for line in text.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("backbench ")]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with the files that README shows, and the pictures that its dataset card speaks of."""
    folder = tmp_path_factory.mktemp("desk")
    for text in blocks("yaml") + blocks("python"):
        if name := re.match(r"# (\S+\.(?:py|yaml))\n", text):
            (folder / name[1]).write_text(text)
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 6)):
        for index, flower in enumerate(("daisy", "tulip")):
            (folder / "flowers" / split / flower).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 120, (48, 64, 3)) + [[[100 * index, 60, 0]]]
                Image.fromarray(pixels.astype(np.uint8)).save(folder / "flowers" / split / flower / f"{i}.png")
    return folder


def test_the_commands_are_those_of_the_makefile():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    made = [line.split()[1] for text in blocks("sh") for line in text.splitlines() if line.startswith("make ")]
    assert made == ["demo", "test"]
    assert set(made) <= set(targets)


def test_every_command_runs(command, desk, quick, monkeypatch):
    from backbench.leaderboard import Store

    monkeypatch.chdir(desk)
    found = commands()
    assert {words[0] for words in found} >= {"submit", "leaderboard", "compare", "run", "rerun"}
    result = next(r for r in Store(quick / "leaderboard.db").all() if r.task.name == "knn").id
    for words in found:
        ended = command(*[result if w == "RESULT_ID" else w for w in words], home=quick)
        assert ended.code == 0, (words, ended.err)


def test_inline_commands_exist(command, desk, quick, monkeypatch):
    monkeypatch.chdir(desk)
    inline = re.findall(r"`backbench ((?:list|show|check|doctor)[^`]*)`", (ROOT / "README.md").read_text())
    assert len(inline) >= 4
    for line in inline:
        ended = command(*shlex.split(line), home=quick)
        assert ended.code == 0, (line, ended.err)


def test_python_of_the_readme(quick, monkeypatch):
    monkeypatch.setenv("BACKBENCH_HOME", str(quick))
    text = next(t for t in blocks("python") if "load_backbone" in t)
    names = {"some_picture": Image.new("RGB", (80, 60), "red")}
    exec(compile(text, "README.md", "exec"), names)
    assert names["features"].embedding.shape == (1, names["vit"].embed_dim)
    assert len(names["features"].maps) == len(names["vit"].levels)


def test_task_of_the_readme(tmp_path):
    from backbench import load_backbone
    from backbench.tasks import Bank, Context, estimate, load_dataset

    text = next(t for t in blocks("python") if "(Task)" in t)
    names = {}
    exec(compile(text, "README.md", "exec"), names)
    task = names["NearestCentroid"]()
    data = load_dataset("digit-scenes", "classification", limit=200)
    context = Context(Bank(tmp_path / "features"), tmp_path)
    outcome = task.run(load_backbone("mini/cnn-supervised"), data, task.recipe(), context)
    score = estimate(task.measure(outcome.predictions, data))["top1"]
    assert score.low > 10.0  # chance, of ten digits


@pytest.mark.parametrize("room", ["backbones", "tasks", "leaderboard", "benchmarks", "backbones/mini"])
def test_each_room_has_a_page(room):
    text = (ROOT / room / "README.md").read_text()
    assert 10 < len(text.splitlines()) < 120


def test_links_lead_somewhere():
    for page in ROOT.glob("**/README.md"):
        if ".venv" in page.parts:
            continue
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), (page, target)
