"""Keepers of a board run a drawn cell again: it comes out the same, or both numbers stay in the history."""

import json
from datetime import UTC, datetime

import pytest
from backbench.benchmarks import verify
from backbench.benchmarks.cli import code
from backbench.benchmarks.home import store_of
from backbench.benchmarks.runner import run
from backbench.leaderboard import Result
from backbench.leaderboard.submission import receive, waiting
from backbench.leaderboard.tables import checks


@pytest.fixture
def bundle(home, tiny, tmp_path, capfd):
    """A small network's k-NN, handed in from a home of its own."""
    suite = tmp_path / "one.yaml"
    suite.write_text("description: one\nentries:\n  - {task: knn, dataset: digit-scenes}\n")
    words = ["submit", str(tiny), "--suite", str(suite), "--limit", "30", "--to", str(tmp_path / "out")]
    assert code([*words, "--home", str(tmp_path / "sender")]) == 0
    capfd.readouterr()
    return tmp_path / "out" / "tiny"


def queue(store, result):
    """A drawn check of a result that somebody handed in."""
    with store.begin() as connection:
        row = {"submission_id": None, "state": "queued", "queued": "2026-01-01", "detail": {}}
        connection.execute(checks.insert().values(result_id=result.id, **row))


def forged(result, **change):
    """The result as somebody might have made it up, so that it is its own record all the same."""
    content = json.loads(result.to_json())
    for key, value in change.items():
        content[key] |= value
    return Result.of(
        **{k: v for k, v in content.items() if k not in ("id", "trust", "created")}, created=datetime.now(UTC)
    )


def test_from_bundle_to_reproduced_and_withdrawn(bundle, home, capfd):
    assert code(["verify", str(bundle), "--accept"]) == 0
    said = capfd.readouterr().out
    assert "1 results of tiny, 1 scored again" in said
    store = store_of(home)
    [result] = store.all()
    assert code(["verify", "--rerun"]) == 0
    assert f"{result.id}: reproduced, bit for bit; marked reproduced" in capfd.readouterr().out
    assert store.by_id(result.id).trust == "reproduced"
    assert waiting(store) == []
    assert code(["verify", "--rerun"]) == 0
    assert "nothing to run again here" in capfd.readouterr().out
    assert code(["verify", str(bundle), "--accept"]) == 2
    assert "manifest.json: $: was handed in before" in capfd.readouterr().err

    assert code(["withdraw", result.id[:8], "--reason", "the licence was wrong"]) == 0
    assert store.all() == []
    assert store.by_id(result.id).trust == "reproduced"
    events = [
        (event.action, event.detail.get("to") or event.detail.get("reason")) for event in store.history(result.id)
    ]
    assert events == [("submit", "rescored"), ("trust", "reproduced"), ("withdraw", "the licence was wrong")]
    assert code(["withdraw", result.id, "--reason", "again"]) == 2
    assert "was withdrawn already: the licence was wrong" in capfd.readouterr().err
    assert code(["leaderboard"]) == 2


def test_a_cell_that_comes_out_otherwise_is_contested_with_both_numbers(bundle, home, capfd):
    store = store_of(home)
    receive(bundle, store, home, "ann")
    [honest] = store.all()
    with store.begin() as connection:
        connection.execute(checks.delete())
    top1 = honest.scores["top1"].model_dump() | {"value": 90.0, "low": 85.0, "high": 95.0}
    lie = forged(honest, scores={"top1": top1})
    store.add(lie)
    queue(store, lie)
    assert code(["verify", "--rerun"]) == 1
    assert "NOT reproduced: top1 % outside tolerance" in capfd.readouterr().out
    assert store.by_id(lie.id).trust == "contested"
    detail = store.history(lie.id)[-1].detail
    [row] = [row for row in detail["scores"] if row["score"] == "top1 %"]
    assert (row["then"], row["now"], row["verdict"]) == (90.0, round(honest.scores["top1"].value, 4), "OUTSIDE")


@pytest.mark.parametrize(
    "part", [{"low": 0.0, "high": 100.0}, {"low": "value", "high": "value"}], ids=["wide", "narrow"]
)
def test_an_interval_that_is_made_up_does_not_pass(bundle, home, part):
    store = store_of(home)
    receive(bundle, store, home, "ann")
    [honest] = store.all()
    with store.begin() as connection:
        connection.execute(checks.delete())
    score = honest.scores["top1"].model_dump()
    lie = forged(honest, scores={"top1": score | {k: score.get(v, v) for k, v in part.items()}})
    store.add(lie)
    queue(store, lie)
    done = verify.rerun_next(verify.Here(store, "ann"), home, "cpu")
    assert done is not None
    assert done.outcome == "contested"


def test_code_is_not_run_for_a_stranger(home, tmp_path, capfd, monkeypatch):
    """Neither by a drawn check, nor because somebody says so: the code has to be here, from one's own card of it."""
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "def make():\n"
        "    open('ran', 'w').close()\n"
        "    flat = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 8, 8), *flat)\n"
    )
    card = tmp_path / "net.yaml"
    card.write_text(
        "source: python\nmodel: net.py:make\ninput: {size: 64, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}\n"
    )
    monkeypatch.chdir(tmp_path)  # where the code leaves its mark
    report = run("knn", [str(card)], limit=20, home=tmp_path / "sender")
    (tmp_path / "ran").unlink()
    [result] = report.results.values()
    store = store_of(home)
    store.add(result)
    queue(store, result)
    assert code(["verify", "--rerun", "--allow-code"]) == 0
    assert not (tmp_path / "ran").exists()
    said = capfd.readouterr().out
    assert "is of a backbone that is its submitter's own code, which is not here" in said
    assert [check.result.id for check in waiting(store)] == [result.id]
    again = store_of(tmp_path / "sender")
    queue(again, result)
    assert code(["verify", "--rerun", "--home", str(tmp_path / "sender")]) == 0
    assert "--allow-code runs it" in capfd.readouterr().out
    assert code(["verify", "--rerun", "--allow-code", "--home", str(tmp_path / "sender")]) == 0
    assert "marked reproduced" in capfd.readouterr().out


def test_nobody_is_the_judge_of_what_was_handed_in_from_the_same_home(bundle, tmp_path, capfd):
    sender = str(tmp_path / "sender")
    assert code(["verify", str(bundle), "--accept", "--home", sender]) == 0
    assert code(["verify", "--rerun", "--home", sender]) == 0
    assert "was handed in from this very home; somebody else should run it" in capfd.readouterr().out


def test_what_cannot_be_run_is_noted_and_marks_nothing(bundle, home, capfd):
    store = store_of(home)
    receive(bundle, store, home, "ann")
    [honest] = store.all()
    with store.begin() as connection:
        connection.execute(checks.delete())
    elsewhere = forged(honest, dataset={"name": "private-data"})
    store.add(elsewhere)
    queue(store, elsewhere)
    assert code(["verify", "--rerun"]) == 1
    assert "cannot be run here: " in capfd.readouterr().out
    assert store.by_id(elsewhere.id).trust == "rescored" or store.by_id(elsewhere.id).trust == "reported"
    assert store.history(elsewhere.id)[-1].action == "rerun failed"
    assert waiting(store) == []


def test_an_interrupted_check_is_there_for_the_next(bundle, home, monkeypatch):
    store = store_of(home)
    [id] = receive(bundle, store, home, "ann").checks

    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "rerun_record", stopped)
    with pytest.raises(KeyboardInterrupt):
        verify.rerun_next(verify.Here(store, "ann"), home, "cpu")
    assert [check.result.id for check in waiting(store)] == [id]


def test_either_a_bundle_or_a_rerun(home, capfd):
    assert code(["verify"]) == 2
    assert "give a bundle to check, or --rerun" in capfd.readouterr().err
    assert code(["withdraw", "00000000", "--reason", "a\nb"]) == 2
    assert "--reason: say in one line why" in capfd.readouterr().err
