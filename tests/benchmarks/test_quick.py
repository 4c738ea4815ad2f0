"""The quick suite, whole, once: do its numbers make sense? On intervals, not on constants."""

import json
import subprocess
import sys
import time

import pytest
from backbench import leaderboard
from backbench.leaderboard import Store

PRETRAINED = ("cnn-supervised", "vit-supervised", "vit-contrastive", "vit-masked", "cnn-image-text")
CHANCE = 10.0  # percent, of ten digits


@pytest.fixture(scope="module")
def scores(quick):
    """scores[backbone][task][score], a Score with its interval."""
    table = {}
    for r in Store(quick / "leaderboard.db").all():
        if r.dataset.limit is None and r.backbone.name.startswith("mini/"):
            table.setdefault(r.backbone.name.removeprefix("mini/"), {})[r.task.name] = r.scores
    return table


def above(a, b):
    """Beyond both 95 % intervals."""
    return a.low > b.high


@pytest.mark.parametrize("name", PRETRAINED)
@pytest.mark.parametrize(("task", "score"), [("linear-probe", "top1"), ("knn", "top1"), ("retrieval", "map")])
def test_pretraining_beats_random_weights(scores, name, task, score):
    assert above(scores[name][task][score], scores["cnn-random"][task][score])


def test_supervised_backbones_lead_the_probe(scores):
    probe = {name: tasks["linear-probe"]["top1"].value for name, tasks in scores.items()}
    order = sorted(probe, key=probe.get, reverse=True)
    assert set(order[:2]) == {"cnn-supervised", "vit-supervised"}


def test_zero_shot_is_far_above_chance_and_only_for_a_text_tower(scores):
    assert scores["cnn-image-text"]["zero-shot"]["top1"].low > 4 * CHANCE
    assert [name for name, tasks in scores.items() if "zero-shot" in tasks] == ["cnn-image-text"]


def test_accuracy_falls_under_shift(scores):
    for name in PRETRAINED:
        shifted, clean = scores[name]["ood-shift"]["shift_top1"], scores[name]["ood-shift"]["clean_top1"]
        assert shifted.value < clean.value, name
    for name in ("cnn-supervised", "vit-supervised"):
        assert above(scores[name]["ood-shift"]["clean_top1"], scores[name]["ood-shift"]["shift_top1"])
        assert scores[name]["ood-shift"]["shift_top1"].low > CHANCE


@pytest.mark.parametrize(
    ("task", "score"), [("detection", "ap50"), ("instance-segmentation", "ap50"), ("semantic-segmentation", "miou")]
)
def test_dense_tasks_tell_pretrained_from_random(scores, task, score):
    best = max((tasks[task][score] for name, tasks in scores.items() if name in PRETRAINED), key=lambda s: s.value)
    assert above(best, scores["cnn-random"][task][score])
    assert best.value > 1.5 * scores["cnn-random"][task][score].value


def test_ood_detection_is_above_a_coin_for_the_supervised(scores):
    for name in ("cnn-supervised", "vit-supervised"):
        assert scores[name]["ood-detection"]["auroc"].low > 50


def test_random_weights_rank_last(quick):
    board = leaderboard("quick", home=quick).board
    ranked = [row.backbone for row in board.rows if row.standing]
    assert len([name for name in ranked if name.startswith("mini/")]) == 6
    assert [name for name in ranked if name.startswith("mini/")][-1] == "mini/cnn-random"


def test_a_second_run_is_through_at_once(quick, cli):
    ended = cli("run", "quick", "--home", quick)
    assert ended.code == 0, ended.err
    assert "54 cells: 0 run" in ended.out
    assert "54 done before" in ended.out


def test_every_format_of_the_board(quick, cli, tmp_path):
    table = cli("leaderboard", "--suite", "quick", "--home", quick).out
    assert "mini/cnn-supervised" in table
    assert json.loads(cli("leaderboard", "--suite", "quick", "--format", "json", "--home", quick).out)
    for format in ("csv", "markdown"):
        path = tmp_path / f"board.{format}"
        ended = cli("leaderboard", "--suite", "quick", "--format", format, "--output", path, "--home", quick)
        assert ended.code == 0, ended.err
        assert "mini/vit-masked" in path.read_text()
    ended = cli("leaderboard", "--format", "html", "--output", tmp_path / "page", "--home", quick)
    assert ended.code == 0, ended.err
    assert ended.out.strip() == f"leaderboard: {tmp_path / 'page' / 'index.html'}"
    assert "mini/vit-masked" in (tmp_path / "page" / "boards" / "0.js").read_text()
    ended = cli("leaderboard", "--format", "html", "--output", tmp_path / "board.html", "--home", quick)
    assert ended.code == 2
    assert "name a folder" in ended.err


def test_compare_finds_the_trained_one_better(quick, cli):
    ended = cli(
        "compare", "mini/cnn-supervised", "mini/cnn-random", "--suite", "quick", "--format", "json", "--home", quick
    )
    assert ended.code == 0, ended.err
    rows = {row["task"]: row for row in json.loads(ended.out)}
    assert rows["linear-probe"]["better"] == "mini/cnn-supervised"
    assert rows["linear-probe"]["low"] > 0
    assert 0 < rows["linear-probe"]["p_holm"] < 0.05


def test_a_mistyped_column_or_backbone_of_the_board(quick, cli):
    for words in (
        ["leaderboard", "--sort", "nothing"],
        ["leaderboard", "--family", "clasification"],
        ["compare", "mini/cnn-supervised", "mini/cnn-randon"],
        ["leaderboard", "--format", "htm"],
    ):
        ended = cli(*words, "--home", quick)
        assert (ended.code, len(ended.lines)) == (2, 1), ended.err


@pytest.mark.slow
def test_quick_killed_again_and_again_ends_in_the_same_scores(quick, tmp_path):
    """kill -9 in the middle of the whole suite, the same command until it is through."""
    command = [sys.executable, "-c", "from backbench.benchmarks.cli import main; main()", "run", "quick"]
    command += ["--home", str(tmp_path / "killed")]
    for wait in (15, 30, 45, 60):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(wait)
        process.kill()
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    def scores(home):
        found = [r for r in Store(home / "leaderboard.db").all() if r.backbone.name.startswith("mini/")]
        return {r.cell_id: ({n: s.value for n, s in r.scores.items()}, r.predictions.sha256) for r in found}

    undisturbed = scores(quick)
    assert {cell: undisturbed[cell] for cell in scores(tmp_path / "killed")} == scores(tmp_path / "killed")
    assert len(scores(tmp_path / "killed")) == 49  # 54 cells, five of them zero-shot without a text tower
