"""Runs that were launched in several processes: the scores of one, a voice of one, and whoever is killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from backbench import load_backbone, run
from backbench.backbones import BadInput
from backbench.leaderboard import Store
from backbench.tasks import read_predictions
from backbench.tasks.training import processes
from backbench.tasks.training.loop import CURVE
from safetensors.torch import load_file
from sklearn.datasets import load_digits

EPOCHS, STEPS = 3, 4

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
def one(tmp_path_factory, vit, digits, in_processes):
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


def test_a_fine_tuning_in_two_processes_is_that_of_one(tmp_path, vit, digits, one, monkeypatch, in_processes):
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


def test_what_fails_in_one_process_fails_the_cell_and_no_other(tmp_path, vit, digits, strange, in_processes):
    cards = [strange("broken", fails=True), strange("nans", diverges=True), vit]
    first, second = in_processes(
        lambda: ran("finetune", cards, digits, tmp_path / "home", epochs=1, head="xavier", learning_rate=1e-3)
    )
    assert first == second
    results, _, failed = first
    assert set(results) == {"vit"}
    assert re.match(r"in process 1: broken: .*broken.py:\d+: RuntimeError: no such layer", failed["broken"])
    assert "the loss is nan at step 1 of " in failed["nans"]


def test_frozen_tasks_are_run_by_the_first_process(tmp_path, vit, digits, strange, in_processes):
    first, second = in_processes(lambda: ran("knn", [vit, strange("broken", fails=True)], digits, tmp_path / "home"))
    assert first == second
    assert set(first[0]) == {"vit", "broken"}
    assert first[0]["vit"].cost.images == 3 * 60


@pytest.mark.parametrize(("task", "settings"), [("zero-shot", {}), ("finetune", {"trainable": "last-99"})])
def test_what_is_not_applicable_is_not_tried_again(tmp_path, vit, digits, task, settings, in_processes):
    both = in_processes(lambda: ran(task, [vit], digits, tmp_path / "home", **settings))
    assert both[0] == both[1]
    assert set(both[0][1]) == {"vit"}
    assert in_processes(lambda: ran(task, [vit], digits, tmp_path / "home", **settings)) == both


def test_processes_that_plan_other_cells_say_so(tmp_path, vit, digits, in_processes):
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
def test_killed_under_torchrun_it_goes_on_in_one_process(tmp_path, vit, digits, launch, in_processes):
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
