"""Fine-tuning: what is trained and what is left alone, what is chosen where, and a cell that is killed."""

import json
import multiprocessing
import signal
import time

import numpy as np
import pytest
import torch
from backbench import load_backbone
from backbench.backbones import BadInput, Loading
from backbench.tasks import (
    Bank,
    Context,
    Dataset,
    estimate,
    find_task,
    load_dataset,
    read_predictions,
    write_predictions,
)
from backbench.tasks.classification.finetune import OneLabel, first_probe, trained
from backbench.tasks.training.classifier import Classifier, ClassifierTrainee, logits_of
from backbench.tasks.training.optimisation import adamw, schedule
from backbench.tasks.training.randomness import own_randomness, seed_all
from backbench.tasks.training.recipe import OneLabelRecipe, augmentation
from PIL import Image

TASK = find_task("finetune")
EVERYTHING = {
    "mixup": 0.8,
    "cutmix": 1.0,
    "rand_augment": "rand-m9-mstd0.5-inc1",
    "random_erasing": 0.5,
    "horizontal_flip": 0.5,
    "drop_path": 0.2,
    "crop_scale": [0.08, 1.0],
    "clip_grad": 1.0,
}


def recipe(**settings):
    return TASK.recipe({"epochs": 3, "batch": 16, "head": "xavier", "learning_rate": 1e-3, "mixup": 0} | settings)


def equal(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


@pytest.fixture
def small():
    return load_dataset("digit-scenes", "classification").limited(40)


# -- learning --------------------------------------------------------------------------------------------------------


def test_learns_repeats_and_scores(make_backbone, squares_data, tmp_path):
    found = []
    for name in ("one", "two"):
        context = Context(Bank(tmp_path / "features"), tmp_path / name)
        outcome = TASK.run(make_backbone(), squares_data(), recipe(epochs=12, learning_rate=0.01), context)
        found.append(outcome.predictions)
        assert outcome.chosen["learning_rate"] == 0.01
    assert equal(*found)
    assert estimate(TASK.measure(found[0], squares_data()))["top1"].value > 80  # four classes


@pytest.mark.parametrize("settings", [{}, EVERYTHING, {"trainable": "frozen"}, {"color_jitter": 0.4}])
def test_each_recipe_goes_on_to_the_same_bits(settings, make_backbone, squares_data, tmp_path):
    class Killed(BaseException):
        pass

    def progress(what, done, total):
        if "epoch 2" in what and done % 3 == 2:
            raise Killed

    data, how = squares_data(), recipe(**settings)
    whole = TASK.run(make_backbone(), data, how, Context(None, tmp_path / "whole"))
    with pytest.raises(Killed):
        TASK.run(make_backbone(), data, how, Context(None, tmp_path / "killed", progress=progress))
    again = TASK.run(make_backbone(), data, how, Context(None, tmp_path / "killed"))
    assert equal(again.predictions, whole.predictions)
    assert again.chosen == whole.chosen


@pytest.mark.parametrize("name", ["cnn-supervised", "vit-supervised", "cnn-image-text"])
@pytest.mark.parametrize("trainable", ["full", "last-2", "frozen"])
def test_the_backbone_given_stays_as_it_was(name, trainable, small, tmp_path):
    backbone = load_backbone(f"mini/{name}")
    digest, images = backbone.weights_digest, torch.rand(2, 3, 64, 64)
    before = {n: t.clone() for n, t in backbone.state_dict().items()}
    asked = [p.requires_grad for p in backbone.parameters()]
    embedding = backbone(images).embedding
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    outcome = TASK.run(backbone, small, recipe(epochs=1, trainable=trainable, drop_path=0.1), Context(None, tmp_path))
    assert torch.rand(()) == expected
    assert all(torch.equal(t, before[n]) for n, t in backbone.state_dict().items())
    assert [p.requires_grad for p in backbone.parameters()] == asked
    assert not any(module.training for module in backbone.modules())
    assert torch.equal(backbone(images).embedding, embedding)
    assert backbone.weights_digest == digest == load_backbone(f"mini/{name}").weights_digest
    assert len(outcome.predictions["id"]) == 40


@pytest.mark.parametrize(
    ("name", "changed"),
    [("vit-masked", ("backbone.body.blocks.3.", "backbone.body.blocks.4.", "backbone.body.norm.", "head."))]
    + [("cnn-random", ("backbone.body.layer3.", "backbone.body.layer4.", "head."))],
)
def test_the_last_blocks_change_and_nothing_before_them(name, changed, small, tmp_path):
    backbone = load_backbone(f"mini/{name}")
    how = recipe(epochs=2, trainable="last-2", learning_rate=0.01)
    first = {f"backbone.{n}": t for n, t in backbone.state_dict().items()}
    model = trained(backbone, small, how, OneLabel(how, 10), Context(None, tmp_path), 0.01).trainee.model
    other = {n for n, t in model.state_dict().items() if n not in first or not torch.equal(t, first[n])}
    assert other == {n for n in model.state_dict() if n.startswith(changed)}  # batch norm's statistics too


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_the_head_begins_as_a_linear_probe(fraction, make_backbone, squares_data, tmp_path):
    backbone, data, context = make_backbone(), squares_data(), Context(Bank(tmp_path / "features"), tmp_path)
    how = recipe(head="linear-probe", fraction=fraction)
    probe = first_probe(backbone, data, how, OneLabel(how, 4), context)
    model = Classifier(backbone, len(data.classes), how, probe).eval()
    found = logits_of(model, data["test"], np.arange(50), context).softmax(1)
    expected = probe.probabilities(context.embeddings(backbone, data["test"]))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    outcome = TASK.run(backbone, data, recipe(head="linear-probe", epochs=1, learning_rate=1e-6), context)
    assert (outcome.predictions["classes"][:, 0] == expected.argmax(1).numpy()).mean() > 0.9


def test_a_probe_that_does_not_hold_in_training_is_given_up(small, tmp_path):
    """Batch norm of a network that was never trained makes another one of it in training mode."""
    for name, kept in (("cnn-supervised", True), ("cnn-random", False)):
        backbone, context = load_backbone(f"mini/{name}"), Context(Bank(tmp_path / "features"), tmp_path)
        how = recipe(head="linear-probe")
        objective = OneLabel(how, 10)
        probe = first_probe(backbone, small, how, objective, context)
        split = small["train"]
        before = {n: t.clone() for n, t in backbone.state_dict().items()}
        with own_randomness():
            rows = np.arange(40)
            made = ClassifierTrainee(backbone, split, rows, None, 10, how, objective, 1e-3, context, probe).model
        weight = (probe.weight / probe.scale).float()
        assert torch.equal(made.head.weight, weight) == kept
        assert all(torch.equal(t, before[n]) for n, t in made.backbone.state_dict().items())


# -- choosing --------------------------------------------------------------------------------------------------------


def test_the_rate_is_chosen_on_validation_data_and_never_on_test(make_backbone, squares_data, tmp_path):
    data, how = squares_data(), recipe(learning_rate=[1e-5, 1e-2])
    other = Dataset("o", data.kind, data.classes, {**data._build, "test": data._build["shift:loud"]})
    chosen = [TASK.run(make_backbone(), d, how, Context(None, tmp_path / d.name)).chosen for d in (data, other)]
    assert chosen[0] == chosen[1]
    assert chosen[0]["learning_rate"] == 1e-2
    curves = {p.parent.name: p.read_text().splitlines() for p in (tmp_path / "o").rglob("curve.jsonl")}
    assert set(curves) == {"learning-rate-1e-05", "learning-rate-0.01", "learning-rate-0.01-with-val"}
    last = {name: json.loads(lines[-1]) for name, lines in curves.items()}
    assert "val_top1" not in last.pop("learning-rate-0.01-with-val")  # it was trained on these
    assert chosen[0]["val_top1"] == max(row["val_top1"] for row in last.values())


def test_validation_data_are_trained_on_unless_the_recipe_says_no(make_backbone, squares_data, tmp_path):
    seen = {}
    for both in (True, False):
        context = Context(None, tmp_path / str(both))
        chosen = TASK.run(make_backbone(), squares_data(), recipe(epochs=2, train_on_val=both), context).chosen
        seen[both] = context.images, set(chosen)
    assert seen[True] == (2 * (80 + 30) + 50, {"learning_rate"})
    assert seen[False] == (2 * (80 + 30) + 50, {"learning_rate", "val_top1"})  # looked at after each epoch


def test_a_rate_that_diverges_is_not_chosen(make_backbone, squares_data, tmp_path):
    outcome = TASK.run(make_backbone(), squares_data(), recipe(learning_rate=[1e-3, 1e38]), Context(None, tmp_path))
    assert outcome.chosen["learning_rate"] == 1e-3
    assert outcome.chosen["diverged"] == [1e38]
    with pytest.raises(RuntimeError, match=r"tiny at learning rate 1e\+38: the loss is \w+ at step \d+ of \d+ .*lower"):
        TASK.run(make_backbone(), squares_data(), recipe(learning_rate=1e38), Context(None, tmp_path))


def test_full_memory_is_told_in_what_was_chosen(make_backbone, squares_data, tmp_path, monkeypatch):
    def forward(self, images, _forward=Classifier.forward):
        if self.training and len(images) > 9:
            raise torch.OutOfMemoryError("a stub: memory is full")
        return _forward(self, images)

    monkeypatch.setattr(Classifier, "forward", forward)
    outcome = TASK.run(make_backbone(), squares_data(), recipe(), Context(None, tmp_path))
    assert outcome.chosen["micro_batch"] == 8


def test_few_shots_train_on_a_part_of_each_class(make_backbone, squares_data, tmp_path):
    context = Context(None, tmp_path)
    TASK.run(make_backbone(), squares_data(), recipe(fraction=0.1, epochs=1), context)
    assert context.images == 4 * 3 + 50  # of 27 or 28 examples of a class 3; then the test


def test_three_images_a_split_are_enough(make_backbone, squares_data, tmp_path):
    data = squares_data().limited(3)
    outcome = TASK.run(make_backbone(), data, recipe(**EVERYTHING), Context(None, tmp_path))
    assert outcome.chosen["drop_path"] == "none: this network has no place for it"
    assert "top1" in estimate(TASK.measure(outcome.predictions, data))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"trainable": "last-0"}, "trainable: 'last-0' is none of full, frozen and last-N"),
        ({"trainable": "all"}, "'all' is none of full"),
        ({"rand_augment": "m9"}, "rand_augment: 'm9' is no RandAugment as timm writes it"),
        ({"learning_rate": []}, "learning_rate"),
        ({"learning_rate": [0.0]}, "learning_rate"),
        ({"fraction": 0}, "fraction"),
        ({"mix_up": 0.8}, "unknown key; did you mean 'mixup'"),
    ],
)
def test_a_wrong_setting_is_named(settings, said):
    with pytest.raises(BadInput, match=f"recipe of finetune: .*{said}"):
        TASK.recipe(settings)


# -- the recipe ------------------------------------------------------------------------------------------------------


def test_rates_warm_up_fall_by_a_cosine_and_by_depth():
    how = recipe(epochs=10, warmup_epochs=2, layer_decay=0.5, warmup_lr=1e-4, min_lr=1e-6, learning_rate=0.01)
    classifier = Classifier(load_backbone("mini/vit-supervised"), 10, how)
    groups = classifier.parameter_groups(how)
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(map(id, classifier.parameters()))
    optimizer = adamw(groups, 0.01)
    rates = schedule(how, optimizer, steps=4)
    scales = [g.get("lr_scale", 1.0) for g in optimizer.param_groups]
    assert min(scales) == 0.5**5  # the patches: five blocks below the last
    assert max(scales) == 1
    for step in range(40):
        rates.step_update(step)
        expected = 1e-4 + (0.01 - 1e-4) * step / 8
        if step >= 8:
            expected = 1e-6 + (0.01 - 1e-6) * (1 + np.cos(np.pi * step / 40)) / 2
        assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([expected * s for s in scales])
    assert all(g["weight_decay"] == 0 for g in optimizer.param_groups for p in g["params"] if p.ndim < 2)
    assert {g["weight_decay"] for g in optimizer.param_groups} == {0, 0.05}


def test_crops_are_of_the_cards_size_and_normalised_by_the_card():
    backbone = load_backbone("mini/cnn-supervised")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 90, 3), np.uint8))
    crop = augmentation(OneLabelRecipe(), backbone.input)([picture], 0)
    assert crop.shape == (3, 64, 64)
    assert crop.dtype == torch.uint8


@pytest.mark.parametrize("said", ["rand-m9-mstd0.5-inc1", "rand-m10-n15-p1", "rand-m10-inc1", "rand-m20-mmax20"])
def test_every_strength_of_rand_augment_works(said):
    backbone = load_backbone("mini/cnn-supervised")
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    change = augmentation(OneLabelRecipe(rand_augment=said), backbone.input)
    with own_randomness():
        for seed in range(150):
            seed_all(seed)
            assert change([picture], 0).shape == (3, 64, 64)


def test_half_precision_and_its_scaler(make_backbone, squares_data, tmp_path):
    for precision in ("bfloat16", "float16"):
        backbone = make_backbone().load_as(Loading(precision=precision))
        outcome = TASK.run(backbone, squares_data(), recipe(learning_rate=0.01), Context(None, tmp_path / precision))
        assert estimate(TASK.measure(outcome.predictions, squares_data()))["top1"].value > 60


def test_a_compiled_backbone_has_a_compiled_copy_of_its_own(make_backbone, squares_data, tmp_path, monkeypatch):
    """What torch compiles is a closure, which no copy reaches: trained through it, the given backbone would change."""
    monkeypatch.setattr(torch, "compile", lambda function: lambda *args, **how: function(*args, **how))
    plain, compiled = make_backbone(), make_backbone().load_as(Loading(compile=True))
    before = {n: t.clone() for n, t in compiled.state_dict().items()}
    found = [
        TASK.run(backbone, squares_data(), recipe(), Context(None, tmp_path / str(i))).predictions
        for i, backbone in enumerate((plain, compiled))
    ]
    assert equal(*found)
    assert all(torch.equal(t, before[n]) for n, t in compiled.state_dict().items())


# -- killed ----------------------------------------------------------------------------------------------------------


def finetune(folder):
    settings = {"epochs": 12, "batch": 16, "head": "xavier", "learning_rate": 1e-3, "drop_path": 0.1, "mixup": 0.2}
    settings["rand_augment"] = "rand-m9"
    data = load_dataset("digit-scenes", "classification").limited(80)
    outcome = TASK.run(load_backbone("mini/cnn-random"), data, TASK.recipe(settings), Context(None, folder))
    write_predictions(outcome.predictions, folder / "predictions.parquet")


def test_a_process_killed_at_random_ends_in_the_same_predictions(tmp_path):
    load_dataset("digit-scenes", "classification")["train"]  # composed before the processes part
    process = multiprocessing.get_context("fork").Process
    finetune(tmp_path / "whole")
    killed = tmp_path / "killed"
    rng, marks = np.random.default_rng(), []
    for _ in range(3):
        running = process(target=finetune, args=(killed,))
        running.start()
        before = len(marks)
        while running.is_alive() and marks[before:] == []:  # until this one has written a checkpoint of its own
            found = [mark.stat().st_mtime_ns for mark in killed.rglob("checkpoint.json")]
            marks += [mark for mark in found if mark not in marks]
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.2))  # about an epoch
        running.kill()
        running.join()
        assert running.exitcode == -signal.SIGKILL, "it ended before it was killed"
    last = process(target=finetune, args=(killed,))
    last.start()
    last.join()
    found = [read_predictions(tmp_path / name / "predictions.parquet") for name in ("whole", "killed")]
    assert equal(*found)


# -- the bar ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["cnn-supervised", "vit-supervised", "vit-contrastive", "vit-masked", "cnn-image-text", "cnn-random"]
)
def test_every_mini_is_lifted_above_its_linear_probe(name, tmp_path):
    data, backbone = load_dataset("digit-scenes", "classification"), load_backbone(f"mini/{name}")
    scores = {}
    for task in (find_task("linear-probe"), TASK):
        context = Context(Bank(tmp_path / "features"), tmp_path)
        outcome = task.run(backbone, data, task.recipe(), context)
        scores[task.name] = estimate(task.measure(outcome.predictions, data))["top1"].value
    print(name, scores)
    assert scores["finetune"] > scores["linear-probe"]
