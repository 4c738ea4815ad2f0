"""Effective robustness against scipy, over boards of runs' kind and over the published tables of timm."""

import csv
import json
import math

import numpy as np
import pytest
from backbench.backbones import BadInput
from backbench.leaderboard import Board, effective_robustness, shifts_of, write_robustness_picture
from backbench.leaderboard.importing.collecting import About
from backbench.leaderboard.importing.registry import read_files
from backbench.leaderboard.published import published_columns
from backbench.leaderboard.robustness import fitted, from_axis, on_axis
from backbench.leaderboard.snapshot import Snapshot
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import linregress, norm

AXES = {"probit": (norm.ppf, norm.cdf), "logit": (logit, expit)}
HEAD = "model,img_size,top1,top5,param_count,crop_pct,interpolation\n"
accuracies = st.floats(0.5, 99.5)


@given(st.lists(st.tuples(accuracies, accuracies), min_size=3, max_size=30), st.sampled_from(list(AXES)))
def test_the_line_is_scipys(points, axis):
    x, y = np.array(points).T
    to, back = AXES[axis]
    if np.ptp(x) < 1e-3:
        return
    line, expected = fitted(x, y, axis), linregress(to(x / 100), to(y / 100))
    assert line.n == len(x)
    assert line.slope == pytest.approx(expected.slope, rel=1e-6, abs=1e-6)
    assert line.intercept == pytest.approx(expected.intercept, rel=1e-6, abs=1e-6)
    if np.ptp(y) > 1e-3:
        assert line.r2 == pytest.approx(expected.rvalue**2, abs=1e-6)
    assert line.expected(x) == pytest.approx(100 * back(line.slope * to(x / 100) + line.intercept), rel=1e-6)
    np.testing.assert_allclose(from_axis(on_axis(x, axis), axis), x, rtol=1e-9)
    low, high = line.slope_interval
    assert low <= line.slope <= high


def test_drawn_lines_are_those_of_drawn_networks():
    rng = np.random.default_rng(0)
    x = rng.uniform(50, 90, 40)
    y = 100 * norm.cdf(1.2 * norm.ppf(x / 100) - 0.7 + rng.normal(0, 0.1, 40))
    line = fitted(x, y, seed=3)
    counts = np.random.default_rng(3).multinomial(40, np.full(40, 1 / 40), 1000)
    for draw in (0, 500, 999):
        rows = np.repeat(np.arange(40), counts[draw])
        expected = linregress(norm.ppf(x[rows] / 100), norm.ppf(y[rows] / 100))
        assert line.drawn[draw] == pytest.approx([expected.slope, expected.intercept])
    np.testing.assert_array_equal(line.drawn, fitted(x, y, seed=3).drawn)


def test_intervals_of_the_slope_cover_the_truth():
    held = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x = rng.uniform(-1, 2, 60)
        line = fitted(100 * norm.cdf(x), 100 * norm.cdf(0.9 * x - 0.4 + rng.normal(0, 0.2, 60)))
        low, high = line.slope_interval
        held.append(low <= 0.9 <= high)
    assert 0.9 <= np.mean(held) <= 0.99


@pytest.mark.parametrize("points", [[], [(50, 40)], [(50, 40), (60, 50)], [(50, 40), (50, 50), (50, 60)]])
def test_too_few_networks_or_equal_ones_have_no_line(points):
    x, y = np.array(points, float).reshape(-1, 2).T
    assert fitted(x, y) is None


# -- boards --------------------------------------------------------------------------------------------------------


def timm_tables(folder, rows):
    """Tables as timm writes them: {file: {model: top1}}. `net5` is the largest."""
    for file, figures in rows.items():
        lines = [
            f"{model},224,{top1},99.0,{50 if model == 'net5' else 10},0.9,bicubic" for model, top1 in figures.items()
        ]
        (folder / f"results-{file}.csv").write_text(HEAD + "\n".join(lines) + "\n")
    return sorted(folder.glob("*.csv"))


def board_of(files):
    given = read_files("timm", files, About())
    snapshot = Snapshot.of((), [figure for one in given for figure in one.figures])
    return Board.of(snapshot, published_columns(snapshot, "timm"), "timm", source="timm")


@pytest.fixture
def tables(tmp_path):
    """Twelve networks on a line on probit axes, one of them 10 points above it, one at 100 %."""
    clean = {f"net{i}": round(60 + 2.5 * i, 3) for i in range(12)} | {"perfect": 100.0}
    shifted = {n: round(100 * norm.cdf(1.1 * norm.ppf(c / 100) - 0.5), 3) for n, c in clean.items() if n != "perfect"}
    shifted["net5"] += 10
    return timm_tables(tmp_path, {"imagenet": clean, "sketch": shifted | {"perfect": 90.0}})


def test_a_network_above_the_line_is_so_many_points_above_it(tables):
    board = board_of(tables)
    assert shifts_of(board) == [("imagenet-1k", "imagenet-sketch")]
    found = effective_robustness(board, "imagenet-1k", "imagenet-sketch")
    assert found.line.n == 12  # without the one at 100 %, which has no place on the axis
    first = found.rows[0]
    assert (first.backbone, first.kind) == ("timm/net5@224px", "unknown")
    clean = np.array([row.clean for row in found.rows])
    shifted = np.array([row.shifted for row in found.rows])
    fit = linregress(norm.ppf(clean / 100), norm.ppf(shifted / 100))
    expected = 100 * norm.cdf(fit.slope * norm.ppf(clean / 100) + fit.intercept)
    assert [row.effective for row in found.rows] == pytest.approx(shifted - expected)
    assert first.effective == pytest.approx(10, abs=1.5)
    assert all(row.low <= row.effective <= row.high for row in found.rows)
    assert found.groups[0].effective == pytest.approx(np.mean(shifted - expected))
    # Over the smaller ones the line is exact, and the one is ten points above it.
    others = effective_robustness(board, "imagenet-1k", "imagenet-sketch", line_of=["params=..20M"])
    assert (others.line.n, len(others.rows)) == (11, 12)
    assert (others.line.slope, others.line.intercept) == pytest.approx((1.1, -0.5), abs=1e-3)
    assert others.rows[0].effective == pytest.approx(10, abs=0.01)
    assert others.line.r2 > 0.99999
    with pytest.raises(BadInput, match="there is no key 'colour'"):
        effective_robustness(board, "imagenet-1k", "imagenet-sketch", line_of=["colour=red"])


def test_a_shift_has_its_own_clean_counterpart_where_there_is_one(tmp_path):
    names = {f"net{i}": 50.0 + i for i in range(4)}
    files = ("imagenet", "imagenet-real", "imagenet-a", "imagenet-a-clean", "imagenetv2-matched-frequency")
    board = board_of(timm_tables(tmp_path, dict.fromkeys(files, names)))
    assert sorted(shifts_of(board)) == [("imagenet-1k", "imagenet-v2"), ("imagenet-a-clean", "imagenet-a")]


def test_columns_that_make_no_line(tables, board):
    published = board_of(tables)
    with pytest.raises(BadInput, match="there is no column 'imagenet-skitch'; did you mean"):
        effective_robustness(published, "imagenet-1k", "imagenet-skitch")
    with pytest.raises(BadInput, match="two different columns"):
        effective_robustness(published, "imagenet-1k", "imagenet-1k")
    assert effective_robustness(board, "linear-probe", "zero-shot") is None  # of one network alone
    runs = effective_robustness(board, "linear-probe", "knn")
    assert {row.backbone for row in runs.rows} == {row.backbone for row in board.rows if "knn" in row.cells}


def test_the_picture_is_the_same_for_the_same_board(tables, tmp_path):
    found = [effective_robustness(board_of(tables), "imagenet-1k", "imagenet-sketch")]
    for name in ("a.svg", "b.svg", "c.png", "d.pdf"):
        write_robustness_picture(found, tmp_path / "new" / name)
    drawn = [(tmp_path / "new" / name).read_bytes() for name in ("a.svg", "b.svg")]
    assert drawn[0] == drawn[1]
    assert b"imagenet-sketch" in drawn[0] or b"<path" in drawn[0]
    with pytest.raises(BadInput, match="ends in"):
        write_robustness_picture(found, tmp_path / "a.gif")


def test_the_command_tells_lines_and_networks(tables, home, tmp_path, capsys):
    from backbench.benchmarks.cli import code

    assert code(["import", "timm", *map(str, tables)]) == 0
    capsys.readouterr()
    words = ["leaderboard", "--published", "timm", "--show", "robustness"]
    assert code([*words, "--plot", str(tmp_path / "lines.png")]) == 0
    told = capsys.readouterr().out
    assert "imagenet-sketch" in told
    assert "R² logit" in told
    assert (tmp_path / "lines.png").read_bytes().startswith(b"\x89PNG")
    assert code([*words, "--objective", "imagenet-1k", "--objective", "imagenet-sketch", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert (rows[0]["backbone"], rows[0]["shift"], len(rows)) == ("timm/net5@224px", "imagenet-sketch", 12)
    for more in (["--objective", "imagenet-1k"], ["--line", "params"], ["--plot", "a.gif"]):
        assert code([*words, *more]) == 2
    assert code(["leaderboard", "--published", "timm", "--plot", "a.png"]) == 2
    assert "goes with --show robustness" in capsys.readouterr().err


# -- the published tables ------------------------------------------------------------------------------------------


@pytest.mark.real
def test_timms_1556_published_networks(real_data, tmp_path):
    """Line, R² and effective robustness from the files themselves, by scipy, beside those of the board."""
    folder = real_data / "results" / "peer_result_tables" / "timm"
    board = board_of(sorted(folder.glob("*.csv")))
    files = {
        ("imagenet-1k", "imagenet-v2"): ("imagenet", "imagenetv2-matched-frequency"),
        ("imagenet-1k", "imagenet-sketch"): ("imagenet", "sketch"),
        ("imagenet-r-clean", "imagenet-r"): ("imagenet-r-clean", "imagenet-r"),
        ("imagenet-a-clean", "imagenet-a"): ("imagenet-a-clean", "imagenet-a"),
    }
    assert set(shifts_of(board)) == set(files)
    found = {pair: effective_robustness(board, *pair) for pair in files}
    for pair, names in files.items():
        read = []
        for name in names:
            with (folder / f"results-{name}.csv").open(newline="") as file:
                read.append({(r["model"], r["img_size"]): float(r["top1"]) for r in csv.DictReader(file)})
        both = np.array(
            [(x, read[1][key]) for key, x in read[0].items() if key in read[1] and min(x, read[1][key]) > 0]
        )
        fit = linregress(*norm.ppf(both / 100).T)
        one = found[pair]
        assert one.line.n == len(both) >= 1555
        assert (one.line.slope, one.line.intercept) == pytest.approx((fit.slope, fit.intercept), rel=1e-9)
        assert one.line.r2 == pytest.approx(fit.rvalue**2)
        rest = both[:, 1] - 100 * norm.cdf(fit.slope * norm.ppf(both[:, 0] / 100) + fit.intercept)
        assert sorted(row.effective for row in one.rows) == pytest.approx(sorted(rest))
    v2, sketch, r = (found[pair] for pair in list(files)[:3])
    assert v2.line.r2 > 0.98  # as Recht et al. 2019 found
    assert max(abs(row.effective) for row in v2.rows) < 6
    for one in (sketch, r):  # what began on pairs of images and texts is far above what saw ImageNet alone
        groups = {group.kind: group for group in one.groups}
        assert groups["laion-2b"].low > 10 > groups["imagenet-1k"].high
        assert groups["wit-400m"].low > 5
        assert not math.isnan(groups["all"].effective)
    write_robustness_picture([*found.values()], tmp_path / "timm.png")
    assert (tmp_path / "timm.png").stat().st_size > 50_000
