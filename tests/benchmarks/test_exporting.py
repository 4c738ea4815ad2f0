"""The commands that write for others, in this process, over results that were put in the store."""

import csv
import json
from io import BytesIO, StringIO

import pytest
import yaml
from backbench.benchmarks.cli import code
from backbench.leaderboard import Result, Store
from pyarrow import parquet

NAMES = ["mini/cnn-random", "mini/cnn-supervised"]


def sha(letter: str) -> str:
    return letter * 64


@pytest.fixture
def say(home, capsys):
    """Runs a command over two backbones with two seeds of k-NN each: exit code, stdout, stderr."""
    store = Store(home / "leaderboard.db")
    score = {"unit": "%", "range_low": 0.0, "range_high": 100.0, "higher_is_better": True}
    for i, name in enumerate(NAMES):
        for seed in range(2):
            value = 40.0 + 20 * i + seed
            network = {
                "card_digest": sha(str(i)),
                "weights_digest": sha(str(i)),
                "parameters": 448_020,
                "embed_dim": 128,
            }
            store.add(
                Result.of(
                    cell_id=f"{i}{seed}" * 8,
                    backbone={"name": name, "card": {"source": "mini"}, "transform": {}, **network},
                    task={"name": "knn", "family": "classification", "version": 2, "headline": "top1"},
                    dataset={
                        **{"name": "digit-scenes", "kind": "classification", "limit": None},
                        **{"fingerprints": {"test": sha("a")}, "sizes": {"test": 100}},
                    },
                    **{"recipe": {}, "seed": seed, "chosen": {}, "environment": {}, "code_version": "0.1.0"},
                    scores={"top1": score | {"value": value, "low": value - 3, "high": value + 3}},
                    cost={"seconds": 1.0, "images": 100, "peak_memory_mb": 1.0, "device": "cpu"},
                    predictions={"path": "runs/a.parquet", "sha256": sha("b"), "rows": 100},
                )
            )

    def call(*words):
        exit_code = code([*map(str, words)])
        return exit_code, *capsys.readouterr()

    return call


@pytest.mark.parametrize("format", ["table", "json", "csv", "markdown", "latex"])
def test_a_board_in_every_format_that_is_text(say, tmp_path, format):
    exit_code, out, err = say("leaderboard", "--format", format)
    assert (exit_code, err) == (0, "")
    assert out.index(NAMES[1]) < out.index(NAMES[0])
    path = tmp_path / "new" / "board"
    assert say("leaderboard", "--format", format, "--output", path)[1] == f"leaderboard: {path}\n"
    if format != "table":
        assert path.read_text(encoding="utf-8") == out


def test_formats_for_programs_are_read_by_them(say, tmp_path):
    board = json.loads(say("leaderboard", "--format", "json")[1])
    rows = list(csv.DictReader(StringIO(say("leaderboard", "--format", "csv")[1])))
    path = tmp_path / "board.parquet"
    assert say("leaderboard", "--format", "parquet", "--output", path)[0] == 0
    table = parquet.read_table(BytesIO(path.read_bytes())).to_pylist()
    names = [[r["backbone"] for r in of] for of in (board["rows"], rows, table)]
    assert names == [NAMES[::-1]] * 3
    assert [float(r["knn"]) for r in rows] == [r["knn"] for r in table] == [60.5, 40.5]


def test_what_is_no_text_needs_a_file(say):
    exit_code, out, err = say("leaderboard", "--format", "parquet")
    assert (exit_code, out) == (2, "")
    assert err == "backbench: --format parquet: is not for a terminal; name a file with --output\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("leaderboard", "--format", "latx"), "did you mean 'latex'?"),
        (("export", NAMES[0], "--format", "model-indx"), "did you mean 'model-index'?"),
        (("export", "mini/cnn-randm"), "did you mean 'mini/cnn-random'"),
        (("export", NAMES[0], "--format", "eval-results"), "not digit-scenes; use model-index"),
        (("export", NAMES[0], "--format", "every-eval-ever"), "these are 2 files; name a folder with --output"),
        (("schema", "bord"), "did you mean 'board'?"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(say, words, said):
    exit_code, out, err = say(*words)
    assert (exit_code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_results_of_one_backbone(say, tmp_path):
    index = yaml.safe_load(say("export", NAMES[1])[1])["model-index"]
    assert index[0]["name"] == NAMES[1]
    assert index[0]["results"][0]["metrics"][0]["value"] == 60.5
    exit_code, out, _ = say("export", NAMES[1], "--format", "every-eval-ever", "--output", tmp_path / "out")
    assert exit_code == 0
    files = sorted((tmp_path / "out").rglob("*.json"))
    assert sorted(out.split()) == [str(path) for path in files]
    assert [json.loads(f.read_text())["evaluation_results"][0]["score_details"]["score"] for f in files] in (
        [60.0, 61.0],
        [61.0, 60.0],
    )


def test_results_on_data_of_the_hub(say, home, tmp_path, monkeypatch):
    from backbench.benchmarks import origin

    class Card:
        name, hub = "digit-scenes", "someone/digit-scenes@0123"

    monkeypatch.setattr(origin, "cards_of", lambda result, home: (None, Card))
    [entry] = yaml.safe_load(say("export", NAMES[0], "--format", "eval-results")[1])
    assert entry["dataset"] == {"id": "someone/digit-scenes", "task_id": "knn", "revision": "0123"}
    say("export", NAMES[0], "--format", "eval-results", "--output", tmp_path)
    assert [p.name for p in (tmp_path / ".eval_results").iterdir()] == ["digit-scenes.yaml"]


def test_the_schema_of_a_record(say):
    exit_code, out, _ = say("schema")
    assert exit_code == 0
    assert json.loads(out)["title"] == "Result"
