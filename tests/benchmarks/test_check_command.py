"""`backbench check`: rows for people, JSON for programs, an exit code for scripts."""

import io
import json
import re

from backbench.backbones.check import PROMISES
from backbench.benchmarks.cli import code
from rich.console import Console

NAMES = {promise.__name__.replace("_", " ") for promise in PROMISES}
LOGITS = """
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1000))
"""


def test_command_tells_points_and_a_sum(tiny, capsys):
    assert code(["check", str(tiny)]) == 0
    *rows, last = capsys.readouterr().out.splitlines()
    assert len(rows) == len(PROMISES)
    assert {row.split()[0] for row in rows} == {"pass", "n/a"}
    assert last == f"{tiny}: {len(PROMISES) - 2} pass, 2 n/a, 0 fail"


def test_command_shows_progress_on_a_terminal_above_rows_that_stay_whole(tiny, monkeypatch):
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=150, highlight=False)
    monkeypatch.setattr("backbench.benchmarks.cli.looking.console", lambda: terminal)
    assert code(["check", str(tiny)]) == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert f"{len(PROMISES) - 1} of {len(PROMISES)} points" in shown
    rows = re.findall(r"^.*(?:pass|n/a |FAIL)  (.+?)  +(\S.*)$", shown, re.MULTILINE)
    assert {name for name, _ in rows} == NAMES


def test_command_in_json(capsys):
    assert code(["check", "mini/cnn-random", "--format", "json"]) == 0
    points = json.loads(capsys.readouterr().out)
    assert {point["name"] for point in points} == NAMES
    assert all(set(point) == {"name", "state", "detail", "value", "unit"} for point in points)
    [macs] = [point for point in points if point["name"] == "macs are counted"]
    assert (macs["state"], macs["unit"]) == ("pass", "G")
    assert macs["value"] > 0


def test_command_ends_with_1_where_a_point_fails_and_2_where_nothing_loads(tmp_path, capsys):
    (tmp_path / "net.py").write_text(LOGITS)
    card = tmp_path / "card.yaml"
    text = "source: python\nmodel: net.py:make\ninput: {size: 32, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}\n"
    card.write_text(text)
    assert code(["check", str(card)]) == 1
    said = capsys.readouterr().out
    assert "FAIL  embedding is not logits" in said
    assert said.splitlines()[-1].endswith("1 fail")
    assert code(["check", str(card), "--format", "json"]) == 1
    capsys.readouterr()
    card.write_text(text.replace("net.py:make", "net.py:mak"))
    assert code(["check", str(card)]) == 2
    [line] = "".join(capsys.readouterr()).splitlines()
    assert "did you mean 'make'" in line
