"""The training loop: it goes on where it stood to the same bits, stops where it must, and fits into memory."""

import json
import random

import numpy as np
import pytest
import timm
import torch
from backbench import load_backbone
from backbench.backbones import NotApplicable, Unavailable
from backbench.tasks import Context
from backbench.tasks.training.checkpoint import forget_checkpoints
from backbench.tasks.training.loop import CURVE, Diverged, Plan, Trainee, train
from backbench.tasks.training.pictures import part_of_each_class, shuffled
from backbench.tasks.training.randomness import own_randomness, seed_all
from backbench.tasks.training.trainable import set_drop_path, set_trainable, train_mode
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import DropPath
from timm.scheduler import CosineLRScheduler
from torch import nn

EPOCHS, STEPS, BATCH = 4, 3, 8


class Toy(Trainee):
    """Noise of the common generators, dropout and a running mean: all that a resumed training could lose."""

    def __init__(self, momentum=True, norm=True, full=None, bad_step=None):
        torch.manual_seed(0)
        layers = [nn.Linear(5, 16), *([nn.BatchNorm1d(16), nn.Dropout(0.3)] if norm else []), nn.Linear(16, 1)]
        self.model, self.full, self.bad_step, self.at = nn.Sequential(*layers), full, bad_step, 0
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 0.01) if momentum else self.plain()
        self.schedule = CosineLRScheduler(self.optimizer, EPOCHS * STEPS, warmup_t=2, t_in_epochs=False)
        self.seen = []

    def plain(self):
        return torch.optim.SGD(self.model.parameters(), 0.01)

    def batches(self, first):
        for step in range(first * STEPS, EPOCHS * STEPS):
            self.at = step
            yield (torch.randn(BATCH, 5, generator=torch.Generator().manual_seed(step)),)

    def prepare(self, x):
        if self.model[-1].in_features and len(self.model) > 2:
            x = x * random.random() + torch.from_numpy(np.random.rand(*x.shape)).float()  # noqa: NPY002
        return x, x.sum(1)

    def loss(self, x, y):
        self.seen.append(len(x))
        if self.full and len(x) > self.full:
            raise torch.OutOfMemoryError("a stub: memory is full")
        if self.at == self.bad_step:
            return self.model(x).sum() * torch.nan
        return (self.model(x)[:, 0] - y).square().mean()

    def validate(self):
        return {"val_error": self.loss(torch.ones(1, 5), torch.ones(1)).item()}


def plan(**changed):
    made_of = {"name": "toy"}
    return Plan(
        **{"name": "toy", "epochs": EPOCHS, "steps": STEPS, "batch": BATCH, "micro_batch": BATCH}
        | {"made_of": made_of, "told": "batch 8"}
        | changed
    )


def weights(trained):
    return {name: t.clone() for name, t in trained.trainee.model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


class Killed(BaseException):
    pass


def stopping_at(step):
    """Progress that ends the process, as it were, once so many steps are done."""

    def progress(_what, done, _total):
        if done == step:
            raise Killed

    return progress


# -- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [True, False])
@pytest.mark.parametrize("precision", ["float32", "float16"])  # with float16, the scaler's state too
def test_stopped_at_any_step_it_goes_on_to_the_same_bits(tmp_path, momentum, precision):
    def made():
        return Toy(momentum)

    how = plan(precision=precision, clip_grad=1.0)
    whole = train(made, how, tmp_path / "whole", Context(None, tmp_path))
    for step in (1, 3, 4, 8, 12):  # in an epoch, at its end, at the very end
        folder = tmp_path / str(step)
        with pytest.raises(Killed):
            train(made, how, folder, Context(None, tmp_path, progress=stopping_at(step)))
        seed_all(step)  # another process has other numbers
        again = train(made, how, folder, Context(None, tmp_path))
        assert same(weights(again), weights(whole))
        assert again.curve == whole.curve
        assert (folder / CURVE).read_text() == (tmp_path / "whole" / CURVE).read_text()
    assert [line["epoch"] for line in map(json.loads, (folder / CURVE).read_text().splitlines())] == [1, 2, 3, 4]


def test_a_finished_training_is_read_back(tmp_path):
    context = Context(None, tmp_path)
    done = train(Toy, plan(), tmp_path / "t", context)
    steps = context.images
    again = train(Toy, plan(), tmp_path / "t", context)
    assert same(weights(again), weights(done))
    assert context.images == steps  # nothing was computed
    assert not again.trainee.model.training


@pytest.mark.parametrize("harm", ["tensors", "mark", "other training", "half a mark", "no tensors"])
def test_a_checkpoint_that_is_harmed_or_of_another_training_is_not_used(tmp_path, harm):
    whole = train(Toy, plan(), tmp_path / "whole", Context(None, tmp_path))
    folder, mark = tmp_path / "t", tmp_path / "t" / "checkpoint.json"
    before = plan(made_of={"name": "other"}) if harm == "other training" else plan()
    with pytest.raises(Killed):
        train(
            lambda: Toy(norm=harm != "other training"), before, folder, Context(None, tmp_path, progress=stopping_at(8))
        )
    [tensors] = folder.glob("*.safetensors")
    if harm == "tensors":
        content = bytearray(tensors.read_bytes())
        content[-3] ^= 1
        tensors.write_bytes(content)
    elif harm == "mark":
        mark.unlink()
    elif harm == "half a mark":
        mark.write_text(mark.read_text()[:50])
    elif harm == "no tensors":
        tensors.unlink()
    again = train(Toy, plan(), folder, Context(None, tmp_path))
    assert same(weights(again), weights(whole))
    assert len(list(folder.glob("*.safetensors"))) == 1


def test_a_finished_cell_keeps_its_curve_alone(tmp_path):
    train(Toy, plan(), tmp_path / "training" / "one", Context(None, tmp_path))
    (tmp_path / "training" / "one" / "left.part").touch()
    forget_checkpoints(tmp_path / "training")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [CURVE]


def test_the_common_generators_go_on_as_before(tmp_path):
    def drawn():
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    for action in (lambda: None, lambda: train(Toy, plan(), tmp_path, Context(None, tmp_path))):
        seed_all(5)
        action()
        found = drawn()
    seed_all(5)
    assert drawn() == found
    seed_all(5)
    with own_randomness():
        seed_all(1)
    assert drawn() == found


def test_another_seed_is_another_training(tmp_path):
    one, two = (train(Toy, plan(), tmp_path / str(s), Context(None, tmp_path, seed=s)) for s in (0, 1))
    assert not same(weights(one), weights(two))


# -- memory and divergence -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("micro", [1, 2, 3, 5, 8])
def test_a_batch_in_parts_is_one_step_of_the_whole(tmp_path, micro):
    def made():
        return Toy(norm=False)

    whole = train(made, plan(clip_grad=0.5), tmp_path / "whole", Context(None, tmp_path))
    parts = train(made, plan(clip_grad=0.5, micro_batch=micro), tmp_path / "parts", Context(None, tmp_path))
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], tensor)
    assert max(parts.trainee.seen) <= micro
    assert [row["loss"] for row in parts.curve] == pytest.approx([row["loss"] for row in whole.curve])


def test_full_memory_halves_the_parts_at_the_same_batch(tmp_path):
    told = []
    context = Context(None, tmp_path, progress=lambda what, *_: told.append(what))
    small = train(lambda: Toy(norm=False, full=3), plan(), tmp_path / "small", context)
    fits = train(lambda: Toy(norm=False), plan(micro_batch=2), tmp_path / "fits", Context(None, tmp_path))
    assert same(weights(small), weights(fits))
    assert [what for what in told if "memory" in what] == [
        "out of memory: from here on 4 of a batch of 8 at once",
        "out of memory: from here on 2 of a batch of 8 at once",
    ]
    assert {row["micro_batch"] for row in small.curve} == {2}


def test_full_memory_in_the_middle_goes_on_from_the_checkpoint(tmp_path):
    """And the smaller parts are remembered by the next process."""
    with pytest.raises(Killed):
        train(lambda: Toy(full=5), plan(), tmp_path / "t", Context(None, tmp_path, progress=stopping_at(7)))
    again = train(Toy, plan(), tmp_path / "t", Context(None, tmp_path))
    assert [row["micro_batch"] for row in again.curve] == [4, 4, 4, 4]
    assert max(again.trainee.seen) == 4
    whole = train(lambda: Toy(full=5), plan(), tmp_path / "whole", Context(None, tmp_path))
    assert same(weights(again), weights(whole))


def test_memory_too_small_for_one_example_is_one_line(tmp_path):
    with pytest.raises(Unavailable, match="toy: out of memory with one example at a time") as told:
        train(lambda: Toy(full=0.5), plan(), tmp_path, Context(None, tmp_path))
    assert "\n" not in str(told.value)


def test_a_loss_that_is_no_number_stops_with_step_recipe_and_advice(tmp_path):
    said = r"toy: the loss is nan at step 8 of 12 \(epoch 3\), with batch 8; try a lower learning rate"
    for _ in range(2):  # and soon, the second time
        with pytest.raises(Diverged, match=said):
            train(lambda: Toy(bad_step=7), plan(), tmp_path / "t", Context(None, tmp_path))
    mended = train(Toy, plan(), tmp_path / "t", Context(None, tmp_path))
    whole = train(Toy, plan(), tmp_path / "whole", Context(None, tmp_path))
    assert same(weights(mended), weights(whole))  # the bad step left no trace


# -- what is trained -------------------------------------------------------------------------------------------------


def trained_names(backbone):
    return {name for name, p in backbone.body.named_parameters() if p.requires_grad}


VIT_END = {"norm.weight", "norm.bias"}


@pytest.mark.parametrize(
    ("name", "choice", "prefixes"),
    [
        ("vit-supervised", "last-1", ("blocks.4.", "norm.")),
        ("vit-supervised", "last-3", ("blocks.2.", "blocks.3.", "blocks.4.", "norm.")),
        ("vit-supervised", "last-5", ("blocks.", "norm.")),
        ("vit-masked", "full", ("",)),
        ("vit-masked", "frozen", ("none",)),
        ("cnn-supervised", "last-1", ("layer4.",)),
        ("cnn-supervised", "last-4", ("layer",)),
        ("cnn-supervised", "full", ("",)),
        ("cnn-image-text", "last-2", ("image.layer3.", "image.layer4.")),
        ("cnn-image-text", "full", ("image.",)),  # neither the text tower nor the way into its space
    ],
)
def test_the_chosen_weights_are_trained_and_no_others(name, choice, prefixes):
    backbone = load_backbone(f"mini/{name}")
    set_trainable(backbone, choice)
    every = {n for n, _ in backbone.body.named_parameters()}
    assert trained_names(backbone) == {n for n in every if n.startswith(prefixes)}
    groups = [p for group in backbone.parameter_groups(0.5) for p in group["params"]]
    chosen = [p for p in backbone.body.parameters() if p.requires_grad]
    assert sorted(map(id, groups)) == sorted(map(id, chosen))  # each once


def test_more_blocks_than_there_are_is_a_fact_about_the_backbone():
    with pytest.raises(NotApplicable, match=r"vit-supervised has 5 blocks, too few for trainable: last-6; say full"):
        set_trainable(load_backbone("mini/vit-supervised"), "last-6")


def test_frozen_parts_stay_in_eval_mode():
    backbone = load_backbone("mini/cnn-supervised")
    set_trainable(backbone, "last-1")
    train_mode(backbone)
    modes = {
        name: module.training for name, module in backbone.body.named_modules() if isinstance(module, nn.BatchNorm2d)
    }
    assert {name for name, training in modes.items() if training} == {n for n in modes if n.startswith("layer4")}
    assert len(set(modes.values())) == 2


@pytest.mark.parametrize(
    ("architecture", "blocks"),
    [
        ("resnet18", 8),
        ("convnext_atto", 12),
        ("vit_tiny_patch16_224", 12),
        ("swinv2_cr_tiny_224", 12),
        ("hiera_tiny_224", 12),
    ],
)
def test_paths_are_dropped_at_the_rates_that_timm_sets(architecture, blocks):
    """A network built without stochastic depth gets what one that was built with it has."""
    ours, theirs = (timm.create_model(architecture, drop_path_rate=rate) for rate in (0.0, 0.3))
    assert set_drop_path(ours, 0.3) == blocks

    def rates(model):
        return [m.drop_prob for m in model.modules() if isinstance(m, DropPath) and m.drop_prob]

    assert rates(ours) == pytest.approx(rates(theirs))


def test_torchvision_and_plain_networks_drop_paths_or_say_that_they_do_not():
    import torchvision

    network = torchvision.models.convnext_tiny()
    assert set_drop_path(network, 0.2) == 18
    assert [m.p for m in network.modules() if isinstance(m, torchvision.ops.StochasticDepth)][-1] == pytest.approx(0.2)
    assert set_drop_path(nn.Sequential(nn.Linear(3, 3)), 0.2) == 0


# -- batches ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 50), st.integers(1, 20), st.booleans(), st.integers(0, 3))
def test_an_epoch_is_every_row_once(count, batch, even, first):
    rows = np.arange(count) * 7
    found = list(shuffled(rows, batch, 0, range(first, first + 2), even=even))
    for epoch in (first, first + 1):
        parts = [[row for e, row in part] for part in found if part[0][0] == epoch]
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 2 if even else max(sizes) - min(sizes) <= 1
        assert max(sizes) <= batch + even
        assert {row for part in parts for row in part} == set(rows)
        if even:
            assert all(size % 2 == 0 for size in sizes)
        else:
            assert sum(sizes) == count
    assert found[len(found) // 2 :] == list(shuffled(rows, batch, 0, range(first + 1, first + 2), even=even))


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=60), st.floats(0.01, 1), st.integers(0, 9))
def test_a_fraction_is_of_each_class_and_never_none(labels, fraction, seed):
    labels = np.array([*labels, 2])
    rows = part_of_each_class(labels, fraction, seed)
    assert len(set(rows)) == len(rows)
    for label in set(labels.tolist()) - {-1}:
        assert (labels[rows] == label).sum() == max(1, round(fraction * (labels == label).sum()))
    assert not (labels[rows] == -1).any()
    if fraction == 1:
        assert len(rows) == (labels >= 0).sum()
