"""Efficiency: medians and counts against references, memory known by hand, devices that are never compared."""

import gc
import json
import time
from dataclasses import replace
from math import ceil

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput, Unavailable, load_backbone
from backbench.benchmarks import cell as cells
from backbench.benchmarks.cell import Job
from backbench.benchmarks.cli.running import tell
from backbench.benchmarks.plan import find_backbones, plan, resolve
from backbench.benchmarks.rerun import judge, rerun_result
from backbench.benchmarks.runner import Report, run
from backbench.leaderboard import Board, Result, headline_columns
from backbench.leaderboard.pareto import pareto_front
from backbench.tasks import Dataset, estimate, find_task, read_predictions, write_predictions
from backbench.tasks.efficiency.efficiency import middle
from backbench.tasks.efficiency.memory import kept_for_backward, peak_bytes
from backbench.tasks.efficiency.timing import seconds_of, undisturbed
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

TASK = find_task("efficiency")
SMALL = {"batches": [1, 2], "rounds": 3, "calls": 2, "warmup": 1, "high": 96}
PAIR = ["mini/cnn-random", "mini/vit-masked"]


def predictions_of(latency, seconds, batch=(1, 4), **constants):
    latency, seconds = np.asarray(latency, float), np.asarray(seconds, float)
    rounds = len(latency)
    given = {"parameters": 2_000_000, "size": 64, "high": 96} | constants
    columns = {name: np.full(rounds, value) for name, value in given.items()}
    return {"latency": latency, "seconds": seconds, "batch": np.tile(np.array(batch), (rounds, 1))} | columns


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two backbones' results of efficiency and of k-NN, and their home."""
    folder = tmp_path_factory.mktemp("home")
    timed = run("efficiency", PAIR, settings=SMALL, limit=30, home=folder)
    assert not timed.failed
    return folder, [*timed.results.values(), *run("knn", PAIR, limit=30, home=folder).results.values()]


def changed(result, **change):
    content = json.loads(result.to_json()) | change
    return Result.of(**{k: v for k, v in content.items() if k not in ("id", "trust", "created")})


def elsewhere(result, device="another machine"):
    return changed(result, cost=result.cost.model_dump() | {"device": device})


# -- how it is measured ------------------------------------------------------------------------------------------


def test_what_autograd_keeps_is_known_by_hand():
    net, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.ReLU()), torch.ones(2, 4)
    # The linear layer keeps what came in, each ReLU what it gave: 8, 16 and 16 numbers of 4 bytes.
    assert kept_for_backward(net, lambda: net(x)) == 4 * (8 + 16 + 16)
    net.requires_grad_(False)
    assert kept_for_backward(net, lambda: net(x)) == 4 * (8 + 16 + 16)
    assert not any(weight.requires_grad for weight in net.parameters())


@pytest.mark.parametrize("depth", [2, 9])
def test_the_peak_is_known_by_hand_and_does_not_grow_with_depth(depth):
    net, x = nn.Sequential(nn.Linear(4, 8), *[nn.Sigmoid() for _ in range(depth)]), torch.ones(2, 4)
    # The weights (40), the input (8), what goes into a layer and what comes out (16 each).
    assert peak_bytes(net, lambda: net(x), "cpu") == 4 * (40 + 8 + 16 + 16)


def test_a_skip_keeps_what_it_passes_alive():
    net, x = nn.Sequential(nn.Linear(4, 8), nn.Sigmoid()), torch.ones(2, 4)

    def skipped():
        y = net[0](x)
        return net[1](net[1](y)) + y

    assert peak_bytes(net, skipped, "cpu") == 4 * (40 + 8 + 16 + 16 + 16)


def test_timings_are_of_the_call_and_nothing_is_collected_meanwhile():
    before = torch.get_num_threads()

    def failing():
        with undisturbed(before + 1):
            assert not gc.isenabled()
            assert torch.get_num_threads() == before + 1
            assert seconds_of(lambda: time.sleep(0.02), "cpu") >= 0.02
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert gc.isenabled()
    assert torch.get_num_threads() == before


# -- how it is scored --------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0.001, 1e3), st.integers(0, 4)), min_size=1), st.sampled_from([0.5, 0.95]))
def test_a_weight_is_a_number_of_repetitions(pairs, share):
    values, weights = np.array([v for v, _ in pairs]), np.array([w for _, w in pairs], float)
    if not weights.any():
        weights[0] = 1
    expanded = sorted(np.repeat(values, weights.astype(int)))
    assert middle(values, weights, share) == expanded[max(1, ceil(round(share * len(expanded), 9))) - 1]


def test_scores_are_those_of_the_stored_rounds(squares_data):
    latency = [[0.001, 0.002], [0.003, 0.004], [0.100, 0.005]]
    seconds = [[0.01, 0.02], [0.02, 0.02], [0.01, 0.08]]
    found = predictions_of(latency, seconds, macs=3e9, activation=2**20, peak=3 * 2**20) | {
        "load": np.array([1.0, 3, 2])
    }
    scores = TASK.measure(found, squares_data()).scores(np.ones(3))
    assert scores == pytest.approx(
        {
            **{"throughput": 200, "throughput_1": 100, "throughput_4": 200, "latency_p50": 3, "latency_p95": 100},
            **{"load": 2, "parameters": 2, "macs": 3, "activation": 1, "peak": 3},
        }
    )
    assert TASK.measure(found, squares_data()).scores(np.array([0, 0, 1.0]))["latency_p50"] == 5


def test_intervals_are_of_the_rounds(squares_data):
    rng = np.random.default_rng(0)
    slow = rng.random(12) < 0.4
    found = predictions_of(
        np.where(slow, 2e-3, 1e-3)[:, None].repeat(20, 1), np.where(slow, 4e-2, 2e-2)[:, None].repeat(2, 1)
    )
    told = estimate(TASK.measure(found, squares_data()))
    # 240 calls would say it for certain, were they not 12 times 20 that go together.
    assert (told["latency_p50"].value, told["latency_p50"].high) == pytest.approx((1, 2))
    assert (told["throughput"].low, told["throughput"].value) == pytest.approx((100, 200))
    assert told["parameters"].low == told["parameters"].high == 2


@pytest.mark.parametrize(
    ("column", "harm"),
    [
        ("latency", -1.0),
        ("latency", np.nan),
        ("seconds", 0.0),
        ("batch", 3),
        ("batch", -1),
        ("parameters", 1),
        ("peak", 1),
    ],
)
def test_what_is_no_timing_of_one_network_is_refused(column, harm, squares_data):
    found = predictions_of(np.full((3, 2), 0.1), np.full((3, 2), 0.1), peak=5)
    found[column][0] = harm
    with pytest.raises(BadInput, match=f"^predictions: {column}: "):
        TASK.measure(found, squares_data())


# -- on backbones ------------------------------------------------------------------------------------------------


def test_every_kind_of_network_has_all_scores(kind, squares_data, context, tmp_path):
    outcome = TASK.run(kind, squares_data(), TASK.recipe(SMALL), context)
    write_predictions(outcome.predictions, tmp_path / "p.parquet")
    measure = TASK.measure(read_predictions(tmp_path / "p.parquet"), squares_data())
    found = estimate(replace(measure, replicates=20))
    declared = {"throughput", "latency_p50", "latency_p95", "parameters", "macs", "activation", "peak", "load"}
    assert (
        declared | {"throughput_1", "throughput_2"}
        <= found.keys()
        <= declared | {*("throughput_1", "throughput_2", "high_peak")}
    )
    assert all(0 < told.low <= told.value <= told.high for told in found.values())
    assert found["macs"].value == pytest.approx(kind.macs / 1e9)
    weights = sum(p.numel() * p.element_size() for p in kind.parameters()) / 2**20
    assert found["peak"].value > weights
    if "high_peak" in found:
        assert found["high_peak"].value > found["peak"].value
    assert outcome.chosen["batches"] == [1, 2]
    assert outcome.chosen["threads"] == 1
    assert len(TASK.picture(outcome.predictions, squares_data()).axes) == 2


def test_one_that_cannot_be_loaded_anew_has_no_load_time(make_backbone, squares_data, context):
    found = TASK.run(make_backbone(), squares_data(), TASK.recipe(SMALL), context)
    assert "load" not in TASK.measure(found.predictions, squares_data()).scores(np.ones(3))
    other = load_backbone("mini/cnn-random")
    next(other.parameters()).data.add_(1)  # its card would give other weights
    assert "load" not in TASK.run(other, squares_data(), TASK.recipe(SMALL), context).predictions


def test_batches_that_do_not_fit_are_left_out(make_backbone, squares_data, context):
    class Small(make_backbone):
        most = 2

        def extract(self, images, **what):
            if len(images) > self.most:
                raise torch.OutOfMemoryError("no more")
            return super().extract(images, **what)

    backbone, recipe = Small(), TASK.recipe(SMALL | {"batches": [1, 2, 3, 4]})
    found = TASK.run(backbone, squares_data(), recipe, context)
    assert found.chosen["batches"] == [1, 2]
    assert "throughput_3" not in TASK.measure(found.predictions, squares_data()).scores(np.ones(3))
    with pytest.raises(Unavailable, match="4 images do not fit into the memory of cpu"):
        TASK.run(backbone, squares_data(), TASK.recipe(SMALL | {"batches": [4]}), context)


def test_fewer_images_than_a_batch_are_taken_again(make_backbone, make_split, context):
    few = Dataset("few", "classification", ("red", "green", "blue", "grey"), {"test": lambda: make_split(2, 1)})
    found = TASK.run(make_backbone(), few, TASK.recipe(SMALL | {"batches": [5]}), context)
    assert found.chosen["batches"] == [5]


def test_batches_are_given_in_order():
    with pytest.raises(BadInput, match=r"ascending order, each once, such as \[1, 8\]"):
        TASK.recipe({"batches": [8, 1, 8]})


# -- on a board --------------------------------------------------------------------------------------------------


def test_devices_are_never_in_one_column(results):
    timed, knn = ([r for r in results[1] if r.task.name == name] for name in ("efficiency", "knn"))
    other = elsewhere(timed[0])
    board = Board.of([timed[1], other], headline_columns(timed))
    assert len(board.rows) == 1
    assert list(board.left_out.values()) == ["another version, recipe, data or device than most"]
    assert len(Board.of([timed[1], timed[0]], headline_columns(timed)).rows) == 2
    assert elsewhere(knn[0]).protocol == knn[0].protocol  # a score is no device's


def test_what_is_timed_is_another_cell_on_another_device(results, tmp_path, monkeypatch):
    def ids():
        return [
            plan(resolve(name), find_backbones(PAIR[:1]), tmp_path, limit=30)[0].id for name in ("efficiency", "knn")
        ]

    here = ids()
    monkeypatch.setattr(cells, "device_name", lambda _: "another machine")
    there = ids()
    assert (here[0] == there[0], here[1] == there[1]) == (False, True)


def test_a_rerun_forgives_noise_and_nothing_else(results):
    [old] = [r for r in results[1] if r.task.name == "efficiency" and r.backbone.name == PAIR[0]]

    def verdict(name, factor):
        told = old.model_dump()["scores"]
        told[name] |= {end: factor * told[name][end] for end in ("value", "low", "high")}
        return judge(old, changed(old, scores=told))

    assert verdict("throughput", 3).text.startswith("reproduced within tolerance")
    assert "throughput images/s outside tolerance" in verdict("throughput", 6).text
    assert "parameters M outside tolerance" in verdict("parameters", 1.01).text
    assert "peak MiB outside tolerance" in verdict("peak", 1.01).text


def test_a_rerun_on_another_device_is_none(results, monkeypatch):
    folder, found = results
    [old] = [r for r in found if r.task.name == "efficiency" and r.backbone.name == PAIR[0]]
    monkeypatch.setattr("backbench.benchmarks.rerun.device_name", lambda _: "another machine")
    monkeypatch.setattr(cells, "device_name", lambda _: "another machine")
    verdict = rerun_result(old.id, folder, "cpu")
    assert not verdict.ran
    assert verdict.text == f"not reproducible here: it was timed on {old.cost.device}, this is another machine"


def test_a_front_of_score_and_throughput(results):
    found = results[1]
    board = Board.of(found, headline_columns(found, unranked=["efficiency"]))
    front = pareto_front(board, ("overall", "efficiency"))
    assert {c.backbone for c in front} == set(PAIR)
    fastest = max((r for r in found if r.task.name == "efficiency"), key=lambda r: r.headline.value)
    assert front[0].backbone == fastest.backbone.name
    assert front[0].front


def test_scores_that_some_lack_stand_in_columns_of_their_own(results, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    folder, found = results
    suite = resolve("efficiency", settings=SMALL)
    planned = plan(suite, find_backbones(PAIR), folder, limit=30)
    told = {r.cell_id: r for r in found if r.task.name == "efficiency"}
    first = told[planned[0].id]
    told[first.cell_id] = changed(first, scores={n: s.model_dump() for n, s in first.scores.items() if n != "load"})
    tell(Report(suite, planned, told), Job(folder))
    lines = capsys.readouterr().out.splitlines()
    (head,) = [line for line in lines if line.startswith("backbone")]
    rows = {line.split()[0]: line for line in lines if line.startswith("mini/")}
    at = slice(head.index("load s"), head.index("load s") + 4)
    assert [bool(rows[name][at].strip()) for name in PAIR] == [False, True]
