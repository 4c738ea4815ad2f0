"""`leaderboard --where … --show …` and `compare A B C`, in this process, over results that were put in the store."""

import csv
import json
from io import StringIO

import pytest
from backbench.benchmarks.cli import code
from backbench.leaderboard import Result, Store
from backbench.tasks.measure import Measure

NETS = {  # name → family, method, parameters, k-NN, retrieval
    "cnn-a": ("cnn", "supervised", 1_000_000, 70.0, 30.0),
    "cnn-b": ("cnn", "random", 1_000_000, 20.0, 11.0),
    "vit-a": ("vit", "supervised", 3_000_000, 60.0, 42.0),
    "vit-b": ("vit", "self-supervised", 9_000_000, 50.0, 25.0),
}


@pytest.fixture
def say(home, capsys):
    """Runs a command: exit code, stdout, stderr."""
    store = Store(home / "leaderboard.db")
    score = {"unit": "%", "range_low": 0.0, "range_high": 100.0, "higher_is_better": True}
    for i, (name, (family, method, parameters, *values)) in enumerate(NETS.items()):
        card = {"source": "mini", "family": family, "pretraining": {"method": method, "data": "imagenet-1k"}}
        network = {"card_digest": str(i) * 64, "weights_digest": str(i) * 64, "embed_dim": 128, "transform": {}}
        for task, value in zip(("knn", "retrieval"), values, strict=True):
            store.add(
                Result.of(
                    cell_id=f"{i}{len(task)}" * 8,
                    backbone={"name": name, "card": card, "parameters": parameters, **network},
                    task={"name": task, "family": task, "version": 1, "headline": "top1"},
                    dataset={
                        **{"name": "digit-scenes", "kind": "classification", "limit": None},
                        **{"fingerprints": {"test": "a" * 64}, "sizes": {"test": 100}},
                    },
                    **{"recipe": {}, "seed": 0, "chosen": {}, "environment": {}, "code_version": "0.1.0"},
                    scores={"top1": score | {"value": value, "low": value - 3, "high": value + 3}},
                    cost={"seconds": 1.0, "images": 100, "peak_memory_mb": 1.0, "device": "cpu"},
                    predictions={"path": "runs/a.parquet", "sha256": "b" * 64, "rows": 100},
                )
            )

    def call(*words):
        exit_code = code([*map(str, words)])
        return exit_code, *capsys.readouterr()

    return call


def names(out):
    return [row["backbone"] for row in json.loads(out)["rows"]]


def test_ranks_are_among_what_is_asked_for(say):
    assert names(say("leaderboard", "--format", "json")[1]) == ["vit-a", "cnn-a", "vit-b", "cnn-b"]
    _, out, _ = say("leaderboard", "--where", "family=vit", "--where", "params=..5M", "--format", "json")
    assert names(out) == ["vit-a"]
    assert json.loads(out)["rows"][0]["standing"]["rank"] == 1
    _, out, _ = say("leaderboard", "--same", "method", "--as", "cnn-a", "--format", "json")
    assert names(out) == ["cnn-a", "vit-a"]  # equal among themselves


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--where", "famly=vit"], "--where: there is no key 'famly'"),
        (["--same", "method"], "--same and --as go together"),
        (["--show", "paretto"], "did you mean 'pareto'?"),
        (["--objective", "knn"], "goes with --show pareto"),
        (["--show", "pareto", "--objective", "overal", "--objective", "parameters"], "did you mean 'overall'?"),
        (["--show", "sizes", "--format", "latex"], "--format latex: use table, json, csv, markdown"),
        (["--where", "family=vit", "--format", "html"], "the page filters and plots by itself"),
    ],
)
def test_a_slip_is_one_line(say, words, said):
    exit_code, out, err = say("leaderboard", *words)
    assert (exit_code, out, len(err.splitlines())) == (2, "", 1)
    assert said in err


def test_the_front(say):
    exit_code, out, _ = say("leaderboard", "--show", "pareto", "--format", "json")
    assert exit_code == 0
    assert {row["backbone"]: row["front"] for row in json.loads(out)} == {
        **{"cnn-a": True, "vit-a": True},
        **{"cnn-b": False, "vit-b": False},
    }
    _, out, _ = say("leaderboard", "--show", "pareto", "--objective", "knn", "--objective", "parameters")
    assert "cnn-a" in out
    assert "vit-a" not in out


def test_correlations_as_a_matrix_and_as_pairs(say, tmp_path):
    _, out, _ = say("leaderboard", "--show", "correlations")
    assert out.splitlines()[-1].split() == ["knn", "0.8"]
    path = tmp_path / "pairs.csv"
    exit_code, out, _ = say("leaderboard", "--show", "correlations", "--format", "csv", "--output", path)
    assert (exit_code, out) == (0, f"correlations: {path}\n")
    (pair,) = csv.DictReader(StringIO(path.read_text()))
    assert (pair["a"], pair["b"], pair["n"]) == ("retrieval", "knn", "4")
    assert float(pair["rho"]) == pytest.approx(0.8)
    assert float(pair["low"]) < 0.8 < float(pair["high"])


def test_scores_with_sizes(say):
    _, out, _ = say("leaderboard", "--show", "sizes", "--format", "json")
    found = {(c["a"], c["b"], c["among"]): c for c in json.loads(out)}
    assert found["knn", "parameters", "all"]["n"] == 4
    assert found["knn", "images", "all"]["rho"] is None  # all the same
    _, out, _ = say("leaderboard", "--show", "sizes", "--where", "family=vit")
    assert "too few backbones or tasks for sizes" in out


@pytest.fixture
def measured(monkeypatch):
    """Instead of stored predictions: measures of 100 examples of which as many are right as the score says."""
    import numpy as np
    from backbench.benchmarks.board import Leaderboard

    def measure_of(_, result):
        right = (np.random.default_rng(0).random(100) < result.headline.value / 100).astype(float)
        return Measure(
            examples=100, scores=lambda w: {"top1": 100 * float(np.average(right, weights=w))}, replicates=200
        )

    monkeypatch.setattr(Leaderboard, "measure", property(lambda board: lambda result: measure_of(board, result)))


def test_three_in_pairs_with_a_picture(say, measured, tmp_path):
    path = tmp_path / "ranks.svg"
    exit_code, out, err = say("compare", "cnn-a", "vit-a", "cnn-b", "--plot", path, "--format", "json")
    assert exit_code == 0, err
    rows = json.loads(out)
    assert len(rows) == 3 * 2
    assert {(row["backbone_a"], row["backbone_b"]) for row in rows} == {
        ("cnn-a", "vit-a"),
        ("cnn-a", "cnn-b"),
        ("vit-a", "cnn-b"),
    }
    assert next(row for row in rows if row["backbone_b"] == "cnn-b")["better"] == "cnn-a"
    assert "vit-a" in path.read_text()
    exit_code, out, _ = say("compare", "cnn-a", "vit-a", "cnn-b", "--plot", path)
    assert exit_code == 0
    assert out.rstrip().endswith(f"average ranks: {path}")
    assert "p Holm-corrected for all 6" in " ".join(out.split())


def test_two_are_named_once(say, measured):
    _, out, _ = say("compare", "cnn-a", "cnn-b")
    assert "a = cnn-a, b = cnn-b" in " ".join(out.split())
    assert "backbone_a" not in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cnn-a"], "name two backbones or more"),
        (["cnn-a", "vit-a", "cnn-a"], "cnn-a is named twice"),
        (["cnn-a", "vit-c"], "no backbone on this board 'vit-c'"),
        (["cnn-a", "vit-a", "cnn-b", "--plot", "a.gif"], "name a file that ends in .svg"),
        (["cnn-a", "vit-a", "--plot", "a.svg"], "2 backbones with 2 ranked tasks in common"),
    ],
)
def test_what_is_not_compared(say, words, said):
    exit_code, _, err = say("compare", *words)
    assert (exit_code, len(err.splitlines())) == (2, 1)
    assert said in err
