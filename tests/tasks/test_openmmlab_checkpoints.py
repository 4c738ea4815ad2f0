"""Resuming a run of mmengine from its own checkpoints: the same end as an undisturbed run, and no code from a file."""

import os
import pickle

import numpy as np
import pytest
import torch
from backbench.tasks.openmmlab.checkpoints import own_checkpoints
from backbench.tasks.openmmlab.gate import openmmlab
from torch.serialization import get_safe_globals

pytest.importorskip("mmengine")


class Killed(Exception):
    """What ends a run in the middle."""


def runner(folder, killed=False, resume=False):
    """A real Runner of four epochs: dropout, momentum, a learning rate that falls, shuffled data, validation.

    `killed`: in the middle of the third.
    """
    from backbench.tasks.openmmlab.hooks import SeedEachEpoch

    BaseModel = openmmlab("mmengine.model").BaseModel

    class Small(BaseModel):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)
            )

        def forward(self, x, y, mode):
            error = ((self.layers(x)[:, 0] - y) ** 2).mean()
            return {"loss": error} if mode == "loss" else [error]

    class Error(openmmlab("mmengine.evaluator").BaseMetric):
        def process(self, data_batch, data_samples):
            self.results.append(float(data_samples[0]))

        def compute_metrics(self, results):
            return {"error": np.mean(results)}

    class Kill(openmmlab("mmengine.hooks").Hook):
        def after_train_iter(self, runner, batch_idx, **_):
            if killed and (runner.epoch, batch_idx) == (2, 1):
                raise Killed

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, 4, generator=generator)
    rows = [{"x": x[i], "y": x[i].sum()} for i in range(24)]
    data = {"dataset": rows, "batch_size": 6, "num_workers": 0, "collate_fn": {"type": "default_collate"}}
    torch.manual_seed(0)
    return openmmlab("mmengine.runner").Runner(
        model=Small(),
        work_dir=str(folder),
        train_dataloader=data | {"sampler": {"type": "DefaultSampler", "shuffle": True}},
        val_dataloader=data | {"sampler": {"type": "DefaultSampler", "shuffle": False}},
        val_evaluator=openmmlab("mmengine.evaluator").Evaluator(Error()),
        train_cfg={"by_epoch": True, "max_epochs": 4, "val_interval": 1},
        val_cfg={},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.05, "momentum": 0.9}},
        param_scheduler={"type": "StepLR", "step_size": 1, "gamma": 0.7},
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 1, "save_best": "error", "rule": "less"}},
        custom_hooks=[SeedEachEpoch(7), Kill()],
        randomness={"seed": 7},
        resume=resume,
        log_level="ERROR",
        experiment_name=f"{folder.name}-{killed}-{resume}",
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that was killed in its third epoch of four."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.raises(Killed):
        runner(folder, killed=True).train()
    return folder


def test_a_resumed_run_ends_as_an_undisturbed_one(run, tmp_path):
    whole = runner(tmp_path / "whole")
    whole.train()
    with own_checkpoints(run):
        resumed = runner(run, resume=True)
        resumed.train()
    assert resumed.epoch == 4
    for ours, theirs in zip(resumed.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    losses, expected = (r.message_hub.get_scalar("train/loss").data[0] for r in (resumed, whole))
    assert losses.tolist() == expected.tolist()  # the log of the epochs before, too
    assert type(resumed.message_hub.get_scalar("train/loss")) is openmmlab("mmengine.logging").HistoryBuffer
    assert resumed.message_hub.get_scalar("train/loss").mean() == pytest.approx(np.mean(expected))
    # What a resumed run writes can be resumed from again.
    with own_checkpoints(run):
        openmmlab("mmengine.runner").CheckpointLoader.load_checkpoint(str(run / "epoch_4.pth"))


def load(file):
    return openmmlab("mmengine.runner").CheckpointLoader.load_checkpoint(str(file), map_location="cpu")


def test_outside_of_the_context_or_the_folder_nothing_is_opened(run, tmp_path):
    known = set(map(str, get_safe_globals()))
    file = run / "epoch_1.pth"
    with pytest.raises(pickle.UnpicklingError):
        load(file)
    elsewhere = tmp_path / "downloaded.pth"
    elsewhere.write_bytes(file.read_bytes())
    inside = run / "link.pth"
    inside.symlink_to(elsewhere)
    with own_checkpoints(run):
        assert load(file)["meta"]["epoch"] == 1
        for outside in (elsewhere, inside):
            with pytest.raises(pickle.UnpicklingError):
                load(outside)
        with pytest.raises(pickle.UnpicklingError):
            torch.load(file)  # another reader of the same process
        assert set(map(str, get_safe_globals())) == known
    with pytest.raises(pickle.UnpicklingError):
        load(file)
    inside.unlink()


def test_what_somebody_else_allowed_stays_allowed(run):
    with torch.serialization.safe_globals([np.dtype]):
        with own_checkpoints(run):
            load(run / "epoch_1.pth")
        assert np.dtype in get_safe_globals()


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *words):
        self.call = function, words

    def __reduce__(self):
        return self.call


def hostile(proof):
    history = openmmlab("mmengine.logging").HistoryBuffer
    touch = f"touch {proof}"
    return {
        "os.system": Calls(os.system, touch),
        "eval": Calls(eval, f"open({str(proof)!r}, 'w')"),
        "numpy loads": Calls(np.load, str(proof), None, True),
        "a history with something of its own": Calls(history, [Calls(os.system, touch)], [1]),
    }


@pytest.mark.parametrize("write", [torch.save, lambda found, file: file.write_bytes(pickle.dumps(found, protocol=2))])
@pytest.mark.parametrize("name", ["os.system", "eval", "numpy loads", "a history with something of its own"])
def test_a_hostile_pickle_is_refused_even_in_the_runs_own_folder(name, write, tmp_path):
    proof, file = tmp_path / "proof", tmp_path / "epoch_1.pth"
    write({"meta": {"epoch": 1}, "message_hub": hostile(proof)[name]}, file)
    with own_checkpoints(tmp_path), pytest.raises(pickle.UnpicklingError):
        load(file)
    assert not proof.exists()


def test_getattr_reaches_nothing(tmp_path):
    """What mmengine pickles as `getattr(HistoryBuffer, "min")` is read as None, whatever it is asked of."""
    file = tmp_path / "epoch_1.pth"
    torch.save({"found": Calls(getattr, torch.Tensor, "__init__"), "meta": {}}, file)
    with own_checkpoints(tmp_path):
        assert load(file)["found"] is None


def test_a_history_brings_no_functions(tmp_path):
    history = openmmlab("mmengine.logging").HistoryBuffer
    file, buffer = tmp_path / "epoch_1.pth", history([1.0, 2.0], [1, 1])
    methods = dict(history._statistics_methods)
    buffer.extra = 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "_statistics_methods", methods | {"mean": torch.Size})
        torch.save({"history": buffer}, file)
    buffer.__dict__.pop("statistics_methods", None)
    with own_checkpoints(tmp_path):
        found = load(file)["history"]
    assert found.statistics("mean") == 1.5
    assert history._statistics_methods == methods
    assert not hasattr(found, "extra")
