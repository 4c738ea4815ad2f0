"""Results that are kept in a database of one's own: the same commands, with --database."""

import json

from backbench import run
from backbench.benchmarks.cli import code
from backbench.benchmarks.rerun import rerun_result
from backbench.leaderboard import Store


def test_a_run_and_its_rerun_in_postgresql(postgres, home, tiny, capsys):
    knn = {"dataset": "digit-scenes", "limit": 60, "home": home, "database": postgres}
    report = run("knn", [str(tiny)], device="cpu", **knn)
    assert report.ok
    [result] = report.results.values()
    assert Store(postgres).all() == [result]
    assert run("knn", [str(tiny)], **knn).skipped == {result.cell_id}
    verdict = rerun_result(result.id[:8], home, "cpu", postgres)
    assert (verdict.reproduced, verdict.text) == (True, "reproduced, bit for bit")
    capsys.readouterr()
    assert code(["show", result.id[:8], "--database", postgres, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == result.id
    words = ["run", "knn", "-b", str(tiny), "-d", "digit-scenes", "--limit", "60", "--dry-run", "--database", postgres]
    assert code(words) == 0
    assert "1 cells, 0 to run" in capsys.readouterr().out
    assert not (home / "leaderboard.db").exists()


def test_a_wrong_database_is_told_in_one_line(home, capsys):
    assert code(["leaderboard", "--database", "postgresql://ada:se@cret@localhost/db"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("backbench: --database postgresql:…: write special characters")
    assert "cret" not in line
