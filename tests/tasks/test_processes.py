"""Training in several processes: the weights of one, whoever fails, and what the disk holds."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput, Unavailable
from backbench.tasks import Context
from backbench.tasks.training import processes
from backbench.tasks.training.loop import CURVE, Diverged, Plan, Trainee, train
from hypothesis import given
from hypothesis import strategies as st
from timm.scheduler import CosineLRScheduler
from torch import nn

EPOCHS, STEPS = 3, 4


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
def test_weights_and_losses_are_those_of_one_process(tmp_path, count, batch, micro, in_processes):
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


def test_dropout_differs_between_processes_and_weights_do_not(tmp_path, in_processes):
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
def test_stopped_and_started_again_it_ends_in_the_same_bits(tmp_path, step, in_processes):
    whole = in_processes(lambda: trained(tmp_path / "whole", norm=True))
    for error in in_processes(lambda: trained(tmp_path / "t", stopping_at(step), norm=True)):
        assert isinstance(error, Stopped)
    again = in_processes(lambda: trained(tmp_path / "t", norm=True))
    assert same(again[0][0], whole[0][0])
    assert again[0][1] == whole[0][1]


def test_another_number_of_processes_goes_on_where_the_first_stood(tmp_path, in_processes):
    weights, curve, _, _ = trained(tmp_path / "one")
    for folder, first, second in (("a", 2, 1), ("b", 1, 3)):
        in_processes(lambda folder=folder: trained(tmp_path / folder, stopping_at(9)), first)
        for found, lines, seen, _ in in_processes(lambda folder=folder: trained(tmp_path / folder), second):
            assert close(found, weights)
            assert [row["loss"] for row in lines] == pytest.approx([row["loss"] for row in curve])
            assert len(seen) == STEPS


def test_only_the_first_process_needs_the_folder(tmp_path, in_processes):
    """As on another machine: the second has an empty folder, and still goes on with the first's checkpoint."""

    def here(*how):
        return trained(tmp_path / f"process-{processes.rank()}", *how)

    in_processes(lambda: here(stopping_at(9)))
    assert not (tmp_path / "process-1").exists()
    one, two = in_processes(here)
    assert same(one[0], two[0])
    assert close(one[0], trained(tmp_path / "one")[0])


# -- failing ---------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_in_one_stops_all_with_the_same_words(tmp_path, in_processes):
    at = {"nan": in_second(lambda toy: toy.step == 5)}
    one, two = in_processes(lambda: trained(tmp_path, at=at))
    assert isinstance(one, Diverged)
    assert isinstance(two, Diverged)
    assert str(one) == str(two)
    assert "the loss is nan at step 6 of 12 (epoch 2)" in str(one)


def test_full_memory_in_one_halves_the_parts_in_all(tmp_path, in_processes):
    at = {"loss": in_second(lambda toy: toy.seen[-1] > 2 and fails(torch.OutOfMemoryError, "full")(toy))}
    found = in_processes(lambda: trained(tmp_path / "small", at=at))
    for weights, curve, seen, _ in found:
        assert {row["micro_batch"] for row in curve} == {2}
        assert max(seen) == 2
        assert close(weights, trained(tmp_path / "one")[0])
    none = in_processes(lambda: trained(tmp_path / "none", at={"loss": in_second(fails(torch.OutOfMemoryError))}))
    assert [type(error) for error in none] == [Unavailable, Unavailable]


@pytest.mark.parametrize("what", ["made", "read", "loss"])
def test_what_fails_in_one_process_fails_in_all(tmp_path, what, in_processes):
    at = {what: in_second(lambda toy: toy.step in (-1, 6) and fails(BadInput, "image 7 cannot be read")(toy))}
    one, two = in_processes(lambda: trained(tmp_path, at=at))
    assert type(one) is type(two) is BadInput
    assert str(one) == "in process 1: image 7 cannot be read"
    assert str(two) == "image 7 cannot be read"


@pytest.mark.parametrize("what", ["validate", "disk"])
def test_what_only_the_first_does_and_cannot_stops_all(tmp_path, what, in_processes):
    folder = tmp_path / "t"
    if what == "disk":
        folder.write_text("no folder")
    at = {"validate": fails(ZeroDivisionError, "of nothing")} if what == "validate" else {}
    one, two = in_processes(lambda: trained(folder, at=at))
    assert isinstance(one, ZeroDivisionError if what == "validate" else OSError)
    assert str(two).startswith(f"in process 0: {type(one).__name__}")
    assert "Traceback" in two.__notes__[0]


def test_who_fails_alone_is_met_by_the_others_wherever_they_are(tmp_path, in_processes):
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


def test_the_others_find_what_the_first_left_on_disk(tmp_path, in_processes):
    path = tmp_path / "features"

    def made():
        found = path.exists()
        path.touch()
        return found

    assert in_processes(lambda: processes.first_then_others(made), 3) == [False, True, True]


def test_one_gpu_is_not_shared_by_two(in_processes):
    one, two = in_processes(lambda: processes.check_device("cuda:0"))
    assert "--device cuda:0: several processes would share it" in str(one)
    assert isinstance(two, BadInput)
    assert in_processes(lambda: processes.check_device(f"cuda:{processes.rank()}")) == [None, None]
    assert in_processes(lambda: processes.check_device("cpu")) == [None, None]
