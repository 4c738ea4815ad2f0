"""Training in several processes: the weights of one, whoever fails or is killed, and one voice."""

import gc
import json
import multiprocessing
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from backbench import load_backbone, run
from backbench.backbones import BadInput, Unavailable
from backbench.leaderboard import Store
from backbench.tasks import Context, read_predictions
from backbench.tasks.training import processes
from backbench.tasks.training.loop import CURVE, Diverged, Plan, Trainee, train
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from timm.scheduler import CosineLRScheduler
from torch import nn

EPOCHS, STEPS = 3, 4


def in_processes(action, count=2):
    """What `action()` gives, or the error that it raises, in each of some processes that were launched together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context, told = multiprocessing.get_context("fork"), []

    def work(rank, pipe):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        os.environ.update({k: str(v) for k, v in place.items()}, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        torch.set_num_threads(1)
        gc.freeze()  # full memory has garbage collected, in which all that pytest holds need not be looked through
        try:
            if count > 1:
                processes.join()
            pipe.send(action())
        except Exception as error:
            pipe.send(error)
        pipe.recv()  # nobody leaves before all have answered

    for rank in range(count):
        ours, theirs = context.Pipe()
        told.append((context.Process(target=work, args=(rank, theirs), daemon=True), ours))
        told[-1][0].start()
    try:
        assert all(ours.poll(60) for _, ours in told), "a process waits for ever"
        return [ours.recv() for _, ours in told]
    finally:
        for process, _ in told:
            process.kill()
            process.join()


class Toy(Trainee):
    """A regression on noise, mixed as timm mixes; with `norm`, batch norm and dropout too."""

    def __init__(self, batch=8, norm=False, at=None):
        torch.manual_seed(processes.rank())  # the first's weights are everyone's
        layers = [nn.Linear(5, 16), *([nn.BatchNorm1d(16), nn.Dropout(0.3)] if norm else []), nn.Linear(16, 1)]
        self.model = nn.ModuleDict({"net": nn.Sequential(*layers), "unused": nn.Linear(2, 2)})
        self.batch, self.at, self.step = batch, at or {}, -1
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 0.01)
        self.schedule = CosineLRScheduler(self.optimizer, EPOCHS * STEPS, warmup_t=2, t_in_epochs=False)
        self.seen = []
        self.happens("made")

    def happens(self, what):
        """What the test wants to go wrong: {what: action}."""
        if action := self.at.get(what):
            return action(self)

    def batches(self, first):
        for self.step in range(first * STEPS, EPOCHS * STEPS):
            self.happens("read")
            x = torch.randn(self.batch, 5, generator=torch.Generator().manual_seed(self.step))
            yield (torch.stack(processes.own_rows(list(x))),)

    def prepare(self, x):
        y = x.sum(1)
        part = random.random()
        return part * x + (1 - part) * x.flip(0), y

    def loss(self, x, y):
        self.seen.append(len(x))
        self.happens("loss")
        error = (self.model["net"](x)[:, 0] - y).square().mean()
        return error * torch.nan if self.happens("nan") else error

    def validate(self):
        self.happens("validate")
        return {"val_error": self.model["net"](torch.ones(2, 5)).sum().item()}


def trained(folder, progress=lambda *_: None, micro_batch=8, batch=8, **toy):
    """Weights, curve, sizes of the parts, and images seen, of a toy trained in this process and those beside it."""
    plan = Plan("toy", EPOCHS, STEPS, batch, micro_batch, {}, "batch 8", clip_grad=0.5)
    context = Context(None, folder, progress=progress)
    done = train(lambda: Toy(batch, **toy), plan, folder, context)
    weights = {name: tensor.numpy() for name, tensor in done.trainee.model.state_dict().items()}
    return weights, done.curve, done.trainee.seen, context.images


def close(one, other, tolerance=1e-5):
    return all(np.allclose(one[name], other[name], atol=tolerance, rtol=0) for name in {**one, **other})


def same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in {**one, **other})


def in_second(action):
    """Of what happens, only in the second process."""
    return lambda toy: processes.rank() == 1 and action(toy)


def fails(kind, *words):
    def action(_toy):
        raise kind(*words)

    return action


# -- one step --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 9))
def test_each_row_is_one_processs_and_so_is_the_row_it_is_mixed_with(size, count):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "count", lambda: count)
        shares = []
        for rank in range(count):
            patch.setattr(processes, "rank", lambda rank=rank: rank)
            shares.append(processes.own_rows(range(size)))
    if size < 2 * count:
        assert shares == [list(range(size))] * count
    else:
        assert Counter(row for share in shares for row in share) == Counter(range(size))
        assert all(share for share in shares)
        assert all(row + other == size - 1 for share in shares for row, other in zip(share, share[::-1], strict=True))
        assert max(map(len, shares)) - min(map(len, shares)) <= 2


@pytest.mark.parametrize(("count", "batch", "micro"), [(2, 8, 8), (2, 7, 2), (3, 8, 1), (2, 3, 2)])
def test_weights_and_losses_are_those_of_one_process(tmp_path, count, batch, micro):
    weights, curve, _, _ = trained(tmp_path / "one", batch=batch)
    several = in_processes(lambda: trained(tmp_path / "several", batch=batch, micro_batch=micro), count)
    for found, lines, seen, images in several:
        assert close(found, weights)
        assert lines == several[0][1]
        assert [row["loss"] for row in lines] == pytest.approx([row["loss"] for row in curve])
        assert max(seen) <= micro
        assert images == EPOCHS * STEPS * (batch if batch >= 2 * count else batch * count)
    assert [path.name for path in sorted((tmp_path / "several").iterdir())] == [
        "checkpoint.json", CURVE, "epoch-0003.safetensors",
    ]  # fmt: skip


def test_dropout_differs_between_processes_and_weights_do_not(tmp_path):
    one, two = in_processes(lambda: trained(tmp_path, norm=True))
    assert same(one[0], two[0])
    assert "net.1.running_mean" in one[0]


# -- going on --------------------------------------------------------------------------------------------------------


class Stopped(RuntimeError):
    pass


def stopping_at(step):
    def progress(_what, done, _total):
        if done == step:
            raise Stopped

    return progress


@pytest.mark.parametrize("step", [5, 8])
def test_stopped_and_started_again_it_ends_in_the_same_bits(tmp_path, step):
    whole = in_processes(lambda: trained(tmp_path / "whole", norm=True))
    for error in in_processes(lambda: trained(tmp_path / "t", stopping_at(step), norm=True)):
        assert isinstance(error, Stopped)
    again = in_processes(lambda: trained(tmp_path / "t", norm=True))
    assert same(again[0][0], whole[0][0])
    assert again[0][1] == whole[0][1]


def test_another_number_of_processes_goes_on_where_the_first_stood(tmp_path):
    weights, curve, _, _ = trained(tmp_path / "one")
    for folder, first, second in (("a", 2, 1), ("b", 1, 3)):
        in_processes(lambda folder=folder: trained(tmp_path / folder, stopping_at(9)), first)
        for found, lines, seen, _ in in_processes(lambda folder=folder: trained(tmp_path / folder), second):
            assert close(found, weights)
            assert [row["loss"] for row in lines] == pytest.approx([row["loss"] for row in curve])
            assert len(seen) == STEPS


def test_only_the_first_process_needs_the_folder(tmp_path):
    """As on another machine: the second has an empty folder, and still goes on with the first's checkpoint."""

    def here(*how):
        return trained(tmp_path / f"process-{processes.rank()}", *how)

    in_processes(lambda: here(stopping_at(9)))
    assert not (tmp_path / "process-1").exists()
    one, two = in_processes(here)
    assert same(one[0], two[0])
    assert close(one[0], trained(tmp_path / "one")[0])


# -- failing ---------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_in_one_stops_all_with_the_same_words(tmp_path):
    at = {"nan": in_second(lambda toy: toy.step == 5)}
    one, two = in_processes(lambda: trained(tmp_path, at=at))
    assert isinstance(one, Diverged)
    assert isinstance(two, Diverged)
    assert str(one) == str(two)
    assert "the loss is nan at step 6 of 12 (epoch 2)" in str(one)


def test_full_memory_in_one_halves_the_parts_in_all(tmp_path):
    at = {"loss": in_second(lambda toy: toy.seen[-1] > 2 and fails(torch.OutOfMemoryError, "full")(toy))}
    found = in_processes(lambda: trained(tmp_path / "small", at=at))
    for weights, curve, seen, _ in found:
        assert {row["micro_batch"] for row in curve} == {2}
        assert max(seen) == 2
        assert close(weights, trained(tmp_path / "one")[0])
    none = in_processes(lambda: trained(tmp_path / "none", at={"loss": in_second(fails(torch.OutOfMemoryError))}))
    assert [type(error) for error in none] == [Unavailable, Unavailable]


@pytest.mark.parametrize("what", ["made", "read", "loss"])
def test_what_fails_in_one_process_fails_in_all(tmp_path, what):
    at = {what: in_second(lambda toy: toy.step in (-1, 6) and fails(BadInput, "image 7 cannot be read")(toy))}
    one, two = in_processes(lambda: trained(tmp_path, at=at))
    assert type(one) is type(two) is BadInput
    assert str(one) == "in process 1: image 7 cannot be read"
    assert str(two) == "image 7 cannot be read"


@pytest.mark.parametrize("what", ["validate", "disk"])
def test_what_only_the_first_does_and_cannot_stops_all(tmp_path, what):
    folder = tmp_path / "t"
    if what == "disk":
        folder.write_text("no folder")
    at = {"validate": fails(ZeroDivisionError, "of nothing")} if what == "validate" else {}
    one, two = in_processes(lambda: trained(folder, at=at))
    assert isinstance(one, ZeroDivisionError if what == "validate" else OSError)
    assert str(two).startswith(f"in process 0: {type(one).__name__}")
    assert "Traceback" in two.__notes__[0]


def test_who_fails_alone_is_met_by_the_others_wherever_they_are(tmp_path):
    """And they are in step afterwards."""

    def action():
        said = []
        for failing in (0, 1, 2):

            def cell(failing=failing):
                if processes.rank() == failing:
                    raise ValueError(f"no {failing}")
                return trained(tmp_path / f"{failing}")

            try:
                processes.together(cell)
            except Exception as error:
                said.append(str(error))
        return said, processes.from_first(lambda: "in step")

    for rank, (said, last) in enumerate(in_processes(action, 3)):
        told = [f"no {f}" if f == rank else f"in process {f}: ValueError: no {f}" for f in (0, 1, 2)]
        assert (said, last) == (told, "in step")


def test_the_others_find_what_the_first_left_on_disk(tmp_path):
    path = tmp_path / "features"

    def made():
        found = path.exists()
        path.touch()
        return found

    assert in_processes(lambda: processes.first_then_others(made), 3) == [False, True, True]


def test_one_gpu_is_not_shared_by_two():
    one, two = in_processes(lambda: processes.check_device("cuda:0"))
    assert "--device cuda:0: several processes would share it" in str(one)
    assert isinstance(two, BadInput)
    assert in_processes(lambda: processes.check_device(f"cuda:{processes.rank()}")) == [None, None]
    assert in_processes(lambda: processes.check_device("cpu")) == [None, None]


# -- cells -----------------------------------------------------------------------------------------------------------

RECIPE = {"epochs": 2, "batch": 16, "learning_rate": [1e-4, 1e-3]}
VIT = """\
source: timm
model: test_vit
model_args: {img_size: 32}
pretrained: false
input: {size: 32}
"""  # without batch norm, which would see a part of a batch
STRANGE = """\
import os
import torch


def make():
    if os.environ.get("RANK") == "1" and {fails}:
        raise RuntimeError("no such layer")
    return Strange()


class Strange(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 8, 16, 16)

    def forward(self, images):
        found = self.layer(images)
        return found * torch.nan if os.environ.get("RANK") == "1" and {diverges} and self.training else found
"""


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """The card of a small random ViT."""
    path = tmp_path_factory.mktemp("card") / "vit.yaml"
    path.write_text(VIT)
    return path


@pytest.fixture
def strange(tmp_path):
    """`strange(name, …)`: the card of a network that fails, or gives no numbers, in the second process alone."""

    def card(name, fails=False, diverges=False):
        (tmp_path / f"{name}.py").write_text(STRANGE.format(fails=fails, diverges=diverges))
        path = tmp_path / f"{name}.yaml"
        stats = "{size: 32, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}"
        path.write_text(f"source: python\nmodel: {name}.py:make\nlevels: [layer]\ninput: {stats}\n")
        return path

    return card


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The card of handwritten digits, 60 a split."""
    folder, splits = tmp_path_factory.mktemp("digits"), ("train", "val", "test")
    scans = load_digits()
    for i, split in enumerate(splits):
        rows = slice(60 * i, 60 * (i + 1))
        np.savez(folder / f"{split}.npz", images=(15 * scans.images[rows]).astype(np.uint8), labels=scans.target[rows])
    card = folder / "digits.yaml"
    names, files = [f"a {digit}" for digit in range(10)], {split: f"{split}.npz" for split in splits}
    card.write_text(json.dumps({"kind": "classification", "source": "arrays", "classes": names, "splits": files}))
    load_backbone("mini/cnn-random")  # imported before processes part
    return str(card)


def ran(task, cards, data, home, **settings):
    """What a run in this process, and in those beside it, reports: results, reasons and failures by backbone."""
    report = run(task, [str(card) for card in cards], dataset=data, settings=settings, home=home)
    names = {cell.id: cell.card.name for cell in report.cells}
    return [
        {names[id]: said for id, said in of.items()} for of in (report.results, report.not_applicable, report.failed)
    ]


def stored(home):
    """The only result, and its predictions."""
    [result] = Store(home / "leaderboard.db").all()
    return result, read_predictions(home / result.predictions.path)


def assert_alike(home, other):
    """Scores and predictions within 1e-4; all else the same."""
    (one, seen), (two, as_seen) = stored(home), stored(other)
    for name, score in one.scores.items():
        assert two.scores[name].value == pytest.approx(score.value, abs=1e-4)
    assert seen.keys() == as_seen.keys()
    for name, column in seen.items():
        text = np.asarray(column).dtype.kind in "OU"
        assert np.array_equal(column, as_seen[name]) if text else np.allclose(column, as_seen[name], atol=1e-4, rtol=0)
    assert one.chosen["learning_rate"] == two.chosen["learning_rate"]
    assert one.cell_id == two.cell_id


@pytest.fixture(scope="module")
def one(tmp_path_factory, vit, digits):
    """The home where one process has fine-tuned; final weights are kept."""
    home = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backbench.benchmarks.cell.forget_checkpoints", lambda _folder: None)
        [(_, _, failed)] = in_processes(lambda: ran("finetune", [vit], digits, home, **RECIPE), 1)
    assert failed == {}
    return home


def farthest(name, one, other):
    """The largest difference. A key's bias changes no attention: its gradient is rounding, which Adam makes a step."""
    parts = (0, 2) if name.endswith("qkv.bias") else (0, 1, 2)
    return max((one.chunk(3)[i] - other.chunk(3)[i]).abs().max().item() for i in parts if len(one.chunk(3)) > i)


def test_a_fine_tuning_in_two_processes_is_that_of_one(tmp_path, vit, digits, one, monkeypatch):
    monkeypatch.setattr("backbench.benchmarks.cell.forget_checkpoints", lambda _folder: None)
    two = tmp_path / "two"
    first, second = in_processes(lambda: ran("finetune", [vit], digits, two, **RECIPE))
    assert first == second
    assert_alike(one, two)
    costs = [stored(home)[0].cost for home in (one, two)]
    assert (costs[1].images, costs[1].device) == (costs[0].images, f"{costs[0].device} x 2")
    found = [{p.parent.name: load_file(p) for p in (home / "runs").rglob("*.safetensors")} for home in (one, two)]
    assert len(found[0]) == 3  # a rate each, and the better on all
    for training, weights in found[0].items():
        apart = {name: farthest(name, tensor, found[1][training][name]) for name, tensor in weights.items()}
        assert max(apart.values()) < 1e-4
    assert in_processes(lambda: ran("finetune", [vit], digits, two, **RECIPE)) == [first, first]
    stored(two)  # one result, not two


def test_what_fails_in_one_process_fails_the_cell_and_no_other(tmp_path, vit, digits, strange):
    cards = [strange("broken", fails=True), strange("nans", diverges=True), vit]
    first, second = in_processes(
        lambda: ran("finetune", cards, digits, tmp_path / "home", epochs=1, head="xavier", learning_rate=1e-3)
    )
    assert first == second
    results, _, failed = first
    assert set(results) == {"vit"}
    assert re.match(r"in process 1: broken: .*broken.py:\d+: RuntimeError: no such layer", failed["broken"])
    assert "the loss is nan at step 1 of " in failed["nans"]


def test_frozen_tasks_are_run_by_the_first_process(tmp_path, vit, digits, strange):
    first, second = in_processes(lambda: ran("knn", [vit, strange("broken", fails=True)], digits, tmp_path / "home"))
    assert first == second
    assert set(first[0]) == {"vit", "broken"}
    assert first[0]["vit"].cost.images == 3 * 60


@pytest.mark.parametrize(("task", "settings"), [("zero-shot", {}), ("finetune", {"trainable": "last-99"})])
def test_what_is_not_applicable_is_not_tried_again(tmp_path, vit, digits, task, settings):
    both = in_processes(lambda: ran(task, [vit], digits, tmp_path / "home", **settings))
    assert both[0] == both[1]
    assert set(both[0][1]) == {"vit"}
    assert in_processes(lambda: ran(task, [vit], digits, tmp_path / "home", **settings)) == both


def test_processes_that_plan_other_cells_say_so(tmp_path, vit, digits):
    one, two = in_processes(
        lambda: run("finetune", [str(vit)], dataset=digits, limit=50 + processes.rank(), home=tmp_path / "home")
    )
    assert type(one) is type(two) is BadInput
    assert "vit · finetune · digits: the first process plans it otherwise" in str(two)


# -- launchers -------------------------------------------------------------------------------------------------------

BIN = Path(sys.executable).parent
TORCHRUN = [BIN / "torchrun", "--standalone", "--nproc-per-node", "2", "-m", "backbench"]
ALIKE = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0"
ACCELERATE = [BIN / "accelerate", "launch", *ALIKE.split(), "-m", "backbench"]  # --multi_gpu: or it starts one process


@pytest.fixture
def launch():
    """`launch(launcher, data, …)`: the process of a launcher whose processes fine-tune; none is left running."""
    started = []

    def call(launcher, data, *words, home, **settings):
        if not launcher[0].exists():
            pytest.skip(f"{launcher[0].name} is not installed")
        command = [*launcher, "run", "finetune", "--device", "cpu", "--dataset", data, "--home", home, *words]
        for key, value in settings.items():
            command += ["--set", f"{key}={json.dumps(value)}"]
        quiet = os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        running = subprocess.Popen([str(word) for word in command], stdout=pipe, stderr=pipe, text=True, env=quiet)
        started.append(running)
        return running

    yield call
    for running in started:
        if running.poll() is None:
            for process in [*psutil.Process(running.pid).children(recursive=True), running]:
                process.kill()


def test_accelerate_launches_a_run_that_is_heard_once(tmp_path, vit, digits, strange, one, launch):
    nans = strange("nans", diverges=True)
    launched = launch(ACCELERATE, digits, "-b", vit, "-b", nans, home=tmp_path / "two", **RECIPE)
    out, err = launched.communicate(timeout=300)
    assert launched.returncode == 1
    assert out.count("2 cells: 2 run") == 1
    [line] = [line for line in err.splitlines() if "failed: " in line and "nans" in line]
    assert "the loss is nan at step 1 of " in line
    assert "Traceback" not in err.split("ChildFailedError")[0].replace("Traceback (most recent call last)", "", 1)
    assert_alike(one, tmp_path / "two")


@pytest.mark.slow
def test_killed_under_torchrun_it_goes_on_in_one_process(tmp_path, vit, digits, launch):
    recipe = {"epochs": 30, "batch": 16, "learning_rate": 1e-4}
    in_processes(lambda: ran("finetune", [vit], digits, tmp_path / "one", **recipe), 1)
    for killed in (0, 1):
        home = tmp_path / f"home-{killed}"
        launcher = launch(TORCHRUN, digits, "-b", vit, home=home, **recipe)
        while not (marks := list(home.rglob("checkpoint.json"))):
            assert launcher.poll() is None, launcher.communicate()
            time.sleep(0.02)
        started = {int(p.environ()["RANK"]): p for p in psutil.Process(launcher.pid).children()}
        started[killed].send_signal(signal.SIGKILL)
        launcher.communicate(timeout=60)
        assert launcher.returncode == 1
        assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in started.values())
        epoch = json.loads(marks[0].read_text())["epoch"]
        assert epoch < 30
        context = [len(path.read_text().splitlines()) for path in home.rglob(CURVE)]
        assert context == [epoch]
        for count in (1, 2):  # and then nothing is left to do
            assert (
                in_processes(lambda home=home: ran("finetune", [vit], digits, home, **recipe)[2], count) == [{}] * count
            )
        assert stored(home)[0].cost.images < stored(tmp_path / "one")[0].cost.images  # it went on
        assert_alike(tmp_path / "one", home)


@pytest.mark.slow
def test_one_wrong_word_is_told_once(tmp_path, digits, launch):
    launched = launch(TORCHRUN, digits, "--set", "epocs=3", home=tmp_path)
    out, err = launched.communicate(timeout=120)
    assert launched.returncode == 1
    assert len(re.findall("backbench: .*did you mean 'epochs'", err)) == 1
    assert out == ""
