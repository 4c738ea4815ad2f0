"""Submitting: checked, estimated, run, and bundled so that a receiver can compute every score again."""

import json

import pytest
from backbench.backbones import BadInput
from backbench.benchmarks.cli import code
from backbench.benchmarks.plan import find_backbones, plan, resolve
from backbench.benchmarks.submit import verify


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(
        "description: two quick tasks\n"
        "entries:\n"
        "  - {task: knn, dataset: digit-scenes}\n"
        "  - {task: zero-shot, dataset: digit-scenes, ranked: false}\n"
    )
    return str(path)


@pytest.fixture
def bundle(home, tiny, suite, tmp_path, capfd):
    assert code(["submit", str(tiny), "--suite", suite, "--to", str(tmp_path / "out")]) == 0
    said = capfd.readouterr().out
    assert "points of conformance passed" in said
    assert "MB disk" in said
    return tmp_path / "out" / "tiny"


@pytest.fixture
def cells(bundle, home, tiny, suite):
    return plan(resolve(suite), find_backbones([str(tiny)]), home)


def test_a_bundle_holds_card_results_and_predictions(bundle, cells):
    names = sorted(p.suffix for p in bundle.iterdir())
    assert names == [".json", ".json", ".parquet", ".yaml"]
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert set(manifest["sha256"]) == {p.name for p in bundle.iterdir()} - {"manifest.json"}
    assert verify(bundle, cells) == 1


@pytest.mark.parametrize("suffix", [".json", ".parquet", ".yaml"])
def test_a_changed_file_is_caught(bundle, cells, suffix):
    path = next(p for p in bundle.glob(f"*{suffix}") if p.name != "manifest.json")
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(BadInput, match="was changed"):
        verify(bundle, cells)


def test_an_edited_score_with_fresh_digests_is_caught(bundle, cells):
    from backbench.backbones.card import file_digest
    from backbench.leaderboard import Result

    path = next(p for p in bundle.glob("knn-*.json"))
    record = json.loads(path.read_text())
    record["scores"]["top1"]["value"] += 0.5
    record["scores"]["top1"]["high"] += 0.5
    forged = Result.of(**{k: v for k, v in record.items() if k not in ("id", "created", "trust")})
    path.write_text(forged.to_json())
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["sha256"][path.name] = file_digest(path)
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match=r"scores\.top1.*does not follow"):
        verify(bundle, cells)


def test_estimate_counts_shared_splits_once_and_leaves_nothing_behind(home, tiny, suite, capsys):
    assert code(["estimate", "linear-probe", "--backbone", str(tiny), "--limit", "60", "--format", "json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert list(row) == ["backbone", "task", "dataset", "seconds", "images", "disk_mb", "memory_mb"]
    assert row["images"] == 3 * 60
    assert row["seconds"] > 0
    assert row["memory_mb"] > 0
    assert not list(home.glob("probe-*"))
    assert code(["estimate", suite, "--backbone", str(tiny), "--limit", "60", "--format", "json"]) == 0
    assert [r["task"] for r in json.loads(capsys.readouterr().out)] == ["knn"]
