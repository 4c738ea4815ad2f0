"""`backbench list`: filters, orders and forms of the roster."""

import csv
import json
from functools import partial
from io import StringIO

import pytest
from backbench.benchmarks.cli import code, listing, output


@pytest.fixture
def listed(capsys):
    def run(*words):
        assert code(["list", "backbones", *words]) == 0
        return capsys.readouterr().out

    return run


def test_filters_work_together(listed):
    words = ["--family", "vit", "--method", "self-supervised", "--params", "20M..90M", "--source", "timm"]
    rows = json.loads(listed(*words, "--grep", "DINOv3", "--format", "json"))
    assert "timm/vit_base_patch16_dinov3.lvd1689m" in {row["name"] for row in rows}
    for row in rows:
        assert (row["family"], row["method"], row["source"]) == ("vit", "self-supervised", "timm")
        assert 20e6 <= row["params"] <= 90e6
        assert "dinov3" in row["name"]


def test_sorted_by_name_or_as_asked(listed):
    names = [row["name"] for row in json.loads(listed("--format", "json"))]
    assert names == sorted(names)
    sizes = [row["params"] for row in json.loads(listed("--sort", "params", "--format", "json"))]
    known = [size for size in sizes if size is not None]
    assert known == sorted(known)
    assert sizes == known + [None] * (len(sizes) - len(known))


def test_every_form_tells_the_same(listed):
    words = ["--data", "lvd-142m", "--format"]
    rows = json.loads(listed(*words, "json"))
    assert len(rows) > 5
    lines = list(csv.DictReader(StringIO(listed(*words, "csv"))))
    assert [line["name"] for line in lines] == [row["name"] for row in rows]
    assert [line["params"] for line in lines] == ["" if row["params"] is None else str(row["params"]) for row in rows]
    header, rule, *body = listed(*words, "markdown").splitlines()
    assert header.count("|") == rule.count("|") == body[0].count("|")
    assert [line.split("|")[1].strip() for line in body] == [row["name"] for row in rows]
    table = listed(*words, "table")
    assert all(row["name"] in table for row in rows)
    assert f"{len(rows)} of " in table


def test_names_of_libraries_come_when_asked(listed):
    words = ["--grep", "/resnet50.ra_in1k", "--format", "json"]
    assert json.loads(listed(*words)) == []
    [row] = json.loads(listed(*words, "--all"))
    assert (row["name"], row["data"], row["params"]) == ("timm/resnet50.ra_in1k", "imagenet-1k", None)


def test_a_narrow_terminal_keeps_names_whole(listed, monkeypatch):
    for module in (listing, output):
        monkeypatch.setattr(module, "console", partial(output.console, width=80))
    table = listed("--grep", "dinov3").splitlines()
    assert max(map(len, table[:-3])) <= 80
    assert "timm/vit_huge_plus_patch16_dinov3.lvd1689m" in [line.split()[0] for line in table if line]


MISTAKES = {
    "family": (["backbones", "--family", "vitt"], "did you mean 'vit'"),
    "method": (["backbones", "--method", "selfsupervised"], "did you mean 'self-supervised'"),
    "data": (["backbones", "--data", "imagenet1k"], "did you mean 'imagenet-1k'"),
    "source": (["backbones", "--source", "tim"], "did you mean 'timm'"),
    "params": (["backbones", "--params", "30M"], "20M..90M"),
    "sort": (["backbones", "--sort", "parameters"], "did you mean 'params'"),
    "format": (["backbones", "--format", "cvs"], "did you mean 'csv'"),
    "not of tasks": (["tasks", "--family", "vit"], "--family is for backbones"),
    "not of suites": (["suites", "--all"], "--all is for backbones"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(mistake, capfd):
    words, hint = MISTAKES[mistake]
    assert code(["list", *words]) == 2
    [line] = "".join(capfd.readouterr()).splitlines()
    assert hint in line
