"""Running: finished cells stay finished, a broken one stops nothing, a killed run goes on to the same scores."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from backbench import load_backbone, run
from backbench.leaderboard import Store

SUITE = """
description: three quick tasks
backbones: [{backbones}]
entries:
  - {{task: linear-probe, dataset: digit-scenes}}
  - {{task: knn, dataset: digit-scenes}}
  - {{task: zero-shot, dataset: digit-scenes, ranked: false}}
"""


@pytest.fixture
def suite(tmp_path, tiny):
    other = tmp_path / "other.yaml"
    other.write_text(tiny.read_text() + "init_seed: 7\n")
    path = tmp_path / "three.yaml"
    path.write_text(SUITE.format(backbones=f"{tiny}, {other}"))
    return path


def scores(home):
    """Every score of every cell, in full precision, with the digest of its predictions."""
    return {
        r.cell_id: ({n: (s.value, s.low, s.high) for n, s in r.scores.items()}, r.predictions.sha256)
        for r in Store(home / "leaderboard.db").all()
    }


def test_a_second_run_does_nothing_again(cli, suite, home):
    first = cli("run", suite, "--limit", "60")
    assert first.code == 0, first.err
    assert "not applicable: zero-shot" in first.out
    before = scores(home)
    assert len(before) == 4
    second = cli("run", suite, "--limit", "60")
    assert second.code == 0
    assert "6 cells: 0 run" in second.out
    assert scores(home) == before


def test_dry_run_runs_nothing(cli, suite, home):
    ended = cli("run", suite, "--limit", "60", "--dry-run")
    assert ended.code == 0
    assert "6 to run; nothing was run" in ended.out
    assert scores(home) == {}


def test_scores_do_not_depend_on_workers_or_run(suite, tmp_path):
    runs = [run(str(suite), limit=60, home=tmp_path / f"h{w}{i}", workers=w) for w, i in ((1, 0), (1, 1), (2, 0))]
    assert all(r.ok for r in runs)
    first, again, spread = (scores(tmp_path / f"h{w}{i}") for w, i in ((1, 0), (1, 1), (2, 0)))
    assert first == again == spread


def test_a_failed_cell_is_reported_and_the_rest_complete(cli, suite, tiny, tmp_path, home):
    broken = tmp_path / "broken.py"
    broken.write_text("import torch\n\ndef make():\n    raise RuntimeError('no such layer')\n")
    card = tmp_path / "broken.yaml"
    stats = "{size: 64, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}"
    card.write_text(f"source: python\nmodel: broken.py:make\ninput: {stats}\n")
    ended = cli("run", "knn", "--limit", "60", "--backbone", card, "--backbone", tiny)
    assert ended.code == 1
    assert "broken" in ended.err
    assert "no such layer" in ended.err
    assert "Traceback" not in ended.err
    assert "1 failed" in ended.out
    assert len(scores(home)) == 1
    mended = broken.read_text().replace("raise RuntimeError('no such layer')", "return torch.nn.Conv2d(3, 8, 4, 4)")
    broken.write_text(mended)
    ended = cli("run", "knn", "--limit", "60", "--backbone", tiny)
    assert ended.code == 0


def test_weights_out_of_reach_are_one_line_that_names_the_fix(cli):
    ended = cli("run", "knn", "--limit", "60", "--backbone", "timm/resnet18.a1_in1k", HF_HUB_OFFLINE="1")
    assert ended.code == 1
    assert len(ended.err.strip().splitlines()) == 1
    assert "checkpoint" in ended.err
    assert "pretrained: false" in ended.err


def test_a_worker_that_dies_fails_its_cell_only(cli, tiny, tmp_path, home):
    (tmp_path / "dying.py").write_text("import os\n\ndef make():\n    os.kill(os.getpid(), 9)\n")
    card = tmp_path / "dying.yaml"
    stats = "{size: 64, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}"
    card.write_text(f"source: python\nmodel: dying.py:make\ninput: {stats}\n")
    ended = cli("run", "knn", "--limit", "60", "--backbone", card, "--backbone", tiny)
    assert ended.code == 1
    assert "worker process died (signal 9" in ended.err
    assert len(scores(home)) == 1


def test_killed_runs_end_in_the_same_scores(suite, tmp_path):
    """kill -9 at several moments, the same command again until it is through: equal to an undisturbed run."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert run(str(suite), limit=300, home=undisturbed).ok
    command = [sys.executable, "-c", "from backbench.benchmarks.cli import main; main()", "run", str(suite)]
    command += ["--limit", "300", "--home", str(killed)]
    for wait in (4.0, 6.0, 7.0):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)  # the parent alone: its workers must notice
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert scores(killed) == scores(undisturbed)
    assert not list(killed.rglob("*.part"))


def test_python_takes_backbones_in_memory(home, tiny):
    backbone = load_backbone(str(tiny))
    report = run("knn", [backbone], limit=60)
    assert report.ok
    [result] = report.results.values()
    assert result.backbone.weights_digest == backbone.weights_digest
    # Other weights in the same object are another cell.
    with __import__("torch").no_grad():
        next(backbone.parameters()).add_(0.1)
    fresh = load_backbone(str(tiny))
    next(fresh.parameters()).data.add_(0.1)
    assert run("knn", [fresh], limit=60).skipped == set()


def test_results_carry_what_it_takes_to_doubt_them(home, tiny):
    [result] = run("linear-probe", [str(tiny)], limit=60).results.values()
    assert result.cost.images == 60 * 3
    assert result.dataset.sizes == {"train": 60, "val": 60, "test": 60}
    assert result.environment["torch"]
    assert result.backbone.transform["mean"]
    stored = json.loads((home / "runs" / result.cell_id[:16] / "result.json").read_text())
    assert stored["id"] == result.id
    assert (home / result.predictions.path).is_file()


def test_rerun_reproduces_bit_for_bit(cli, home, tiny):
    assert cli("run", "knn", "--limit", "60", "--backbone", tiny).code == 0
    [result] = Store(home / "leaderboard.db").all()
    ended = cli("rerun", result.id[:8])
    assert ended.code == 0, ended.err
    assert "reproduced, bit for bit" in ended.out
    tiny.write_text(tiny.read_text() + "init_seed: 3\n")
    # The card was kept beside the result: a later edit of the file is no part of it.
    assert cli("rerun", result.id).code == 0


def test_precision_is_kept_in_the_result_and_used_by_its_rerun(cli, home, tiny):
    for options in ((), ("--precision", "bfloat16", "--channels-last")):
        assert cli("run", "linear-probe", "--limit", "60", "--backbone", tiny, *options).code == 0
    full, half = sorted(Store(home / "leaderboard.db").all(), key=lambda result: result.created)
    assert full.backbone.loading == {}
    assert half.backbone.loading == {"precision": "bfloat16", "channels_last": True}
    assert half.backbone.weights_digest == full.backbone.weights_digest
    assert half.predictions.sha256 != full.predictions.sha256  # the bank kept their features apart
    ended = cli("rerun", half.id)
    assert ended.code == 0, ended.err
    assert "reproduced, bit for bit" in ended.out


def test_a_result_of_other_scores_is_not_reproduced(home, tiny):
    from backbench.benchmarks.rerun import judge

    [old] = run("knn", [str(tiny)], limit=60).results.values()
    content = old.model_dump(mode="json", exclude={"id", "created", "trust"})
    score = content["scores"]["top1"]
    score["value"] = score["high"] = min(100.0, score["value"] + 30.0)
    claimed = type(old).of(**content)
    verdict = judge(claimed, old)
    assert not verdict.reproduced
    assert "top1" in verdict.text
