"""Multi-label tasks: scores against scikit-learn, and labels that are not known neither trained on nor scored."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from backbench import load_backbone
from backbench.backbones import BadInput
from backbench.tasks import (
    Bank,
    Context,
    Dataset,
    Split,
    estimate,
    find_task,
    load_dataset,
    read_predictions,
    write_predictions,
)
from backbench.tasks.classification.multilabel_finetune import EachLabel
from backbench.tasks.classification.multilabel_probe import Ranking
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 50), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_scores_are_scikit_learns(count, values, labels, seed):
    """Ties, weights, targets that are not known, and labels with one side only."""
    rng = np.random.default_rng(seed)
    scores, targets = rng.integers(0, values, (count, labels)).astype(float), rng.integers(-1, 2, (count, labels))
    weights = rng.integers(1, 4, count).astype(float)
    aurocs, precisions = {}, []
    for label, s, t in zip("abcd", scores.T, targets.T, strict=False):
        known = t >= 0
        if len(np.unique(t[known])) == 2:
            aurocs[f"auroc:{label}"] = 100 * roc_auc_score(t[known], s[known], sample_weight=weights[known])
            precisions.append(average_precision_score(t[known], s[known], sample_weight=weights[known]))
    found = Ranking(scores, targets, "abcd"[:labels])(weights)
    if not aurocs:
        assert found == {}
    else:
        means = {"mean_auroc": np.mean(list(aurocs.values())), "map": 100 * np.mean(precisions)}
        assert found == pytest.approx(means | aurocs)


def test_a_replicate_without_one_side_leaves_the_label_out():
    ranking = Ranking(np.array([[1.0, 0], [0, 1], [2, 2]]), np.array([[1, 1], [0, 0], [0, 1]]), ("a", "b"))
    whole = {"mean_auroc": 50.0, "map": 75.0, "auroc:a": 50.0, "auroc:b": 50.0}
    assert ranking(np.array([1.0, 1, 0])) == {"mean_auroc": 50.0, "map": 75.0, "auroc:a": 100.0, "auroc:b": 0.0}
    assert ranking(np.array([0.0, 1, 1])) == whole | {"mean_auroc": 100.0, "map": 100.0, "auroc:b": 100.0}
    assert ranking(np.array([0.0, 0, 1])) == whole | {"map": 0.0}


@pytest.fixture
def colours(make_split):
    """Which of red, green, blue is strong in a square; a few are not known."""

    def split(count, seed):
        made = make_split(count, seed, noise=90)
        targets = (np.asarray(made.targets)[:, None] == np.arange(3)).astype(np.int8)
        targets[::7, 1] = -1
        return Split(made.images, targets, f"colours-{count}-{seed}", made.ids)

    splits = {"train": lambda: split(80, 3), "val": lambda: split(30, 4), "test": lambda: split(50, 5)}
    return Dataset("colours", "multilabel", ("red", "green", "blue"), splits)


def settings_for(task, **changed):
    return {"epochs": 8, "batch": 16, "learning_rate": 0.01} | changed if task == "multilabel-finetune" else {}


@pytest.mark.parametrize("name", ["multilabel-probe", "multilabel-finetune"])
def test_learns_repeats_and_scores_from_stored_predictions(name, colours, make_backbone, tmp_path):
    task = find_task(name)
    task.check_data(colours)
    recipe, found = task.recipe(settings_for(name)), []
    for folder in ("one", "two"):
        context = Context(Bank(tmp_path / "features"), tmp_path / folder)
        found.append(task.run(make_backbone(), colours, recipe, context).predictions)
    np.testing.assert_array_equal(found[0]["logits"], found[1]["logits"])
    predictions = found[0]
    scores = estimate(task.measure(predictions, colours))
    assert list(scores) == ["mean_auroc", "map", "auroc:red", "auroc:green", "auroc:blue"]
    assert scores["mean_auroc"].value > 80
    assert {task.metric(name).unit for name in scores} == {"%"}
    write_predictions(predictions, tmp_path / "p.parquet")
    assert estimate(task.measure(read_predictions(tmp_path / "p.parquet"), colours)) == scores
    predictions["id"] = predictions["id"][::-1]
    with pytest.raises(BadInput, match="row 0 is for image"):
        task.measure(predictions, colours)


# -- fine-tuning -----------------------------------------------------------------------------------------------------

TASK = find_task("multilabel-finetune")


def recipe(**changed):
    return TASK.recipe(settings_for(TASK.name, **{"head": "xavier", "epochs": 2} | changed))


def changed(data, change):
    """The data set with other targets for training and validation."""

    def splits(name):
        split = data[name]
        return replace(split, targets=change(split.targets.copy()), fingerprint=f"{split.fingerprint}-changed")

    parts = {name: (lambda n=name: splits(n)) for name in ("train", "val")}
    return Dataset("changed", data.kind, data.classes, data._build | parts)


@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_loss_is_of_what_is_known_and_the_same_in_parts(count, labels, parts, seed):
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(0, 3, (count, labels)), requires_grad=True)
    targets = rng.integers(-1, 2, (count, labels)).astype(np.int8)
    objective = EachLabel()
    _, prepared = objective.prepare(torch.zeros(count, 1, dtype=torch.double), torch.tensor(targets))
    loss = objective.loss(logits, prepared)
    chances, known = 1 / (1 + np.exp(-logits.detach().numpy())), targets >= 0
    right = np.where(targets == 1, chances, 1 - chances)
    assert loss.item() == pytest.approx(-np.log(right)[known].sum() / known.size)
    loss.backward()
    assert ((logits.grad.numpy() != 0) == known).all()
    shares = zip(logits.tensor_split(parts), prepared.tensor_split(parts), strict=True)
    summed = sum(objective.loss(x, y).item() * len(x) / count for x, y in shares if len(x))
    assert summed == pytest.approx(loss.item())


def test_parts_of_a_batch_are_trained_on_as_the_whole(colours, make_backbone, tmp_path):
    whole, parts = (
        TASK.run(make_backbone(), colours, recipe(micro_batch=size), Context(None, tmp_path / str(size))).predictions
        for size in (16, 5)
    )
    np.testing.assert_allclose(whole["logits"], parts["logits"], atol=1e-4)


def test_an_image_without_a_known_label_is_not_trained_on(colours, make_backbone, tmp_path):
    def blank(targets):
        targets[::2] = -1
        return targets

    for fraction, trained_on in ((1.0, 40 + 15), (0.1, 6)):
        context = Context(None, tmp_path / str(fraction))
        TASK.run(make_backbone(), changed(colours, blank), recipe(fraction=fraction, epochs=1), context)
        assert context.images == trained_on + 50
    nothing = changed(colours, lambda targets: np.full_like(targets, -1))
    with pytest.raises(BadInput, match="changed/train: no image has a label, so there is nothing to train on"):
        TASK.run(make_backbone(), nothing, recipe(train_on_val=False), Context(None, tmp_path))


def test_a_label_that_is_never_known_leaves_the_others_to_be_learnt(colours, make_backbone, tmp_path):
    def blank(targets):
        targets[:, 2] = -1
        return targets

    context = Context(Bank(tmp_path / "features"), tmp_path)
    data, how = changed(colours, blank), recipe(head="linear-probe", epochs=8)
    found = estimate(TASK.measure(TASK.run(make_backbone(), data, how, context).predictions, data))
    assert min(found["auroc:red"].value, found["auroc:green"].value) > 80


def test_the_rate_is_chosen_by_mean_auroc_on_validation_data(colours, make_backbone, tmp_path):
    outcome = TASK.run(make_backbone(), colours, recipe(learning_rate=[1e-5, 1e-2]), Context(None, tmp_path))
    curves = {p.parent.name: json.loads(p.read_text().splitlines()[-1]) for p in tmp_path.rglob("curve.jsonl")}
    assert "val_mean_auroc" not in curves.pop("learning-rate-0.01-with-val")
    assert set(curves) == {"learning-rate-1e-05", "learning-rate-0.01"}
    assert outcome.chosen == {"learning_rate": 0.01, "val_mean_auroc": curves["learning-rate-0.01"]["val_mean_auroc"]}
    assert outcome.chosen["val_mean_auroc"] > curves["learning-rate-1e-05"]["val_mean_auroc"]


@pytest.mark.parametrize("key", ["mixup", "cutmix", "label_smoothing"])
def test_what_needs_one_class_an_image_is_no_setting(key):
    with pytest.raises(BadInput, match=f"recipe of multilabel-finetune: .*{key}: unknown key"):
        TASK.recipe({key: 0.1})


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_published_recipe_for_chexpert_runs(precision, tmp_path):
    """Of Battle of the Backbones: its effective batch is larger than the data, and goes through in parts."""
    published = {"batch": 1024, "learning_rate": 1e-3, "layer_decay": 0.75, "weight_decay": 1e-3, "warmup_epochs": 10}
    published |= {"min_lr": 1e-5, "drop_path": 0.2, "rand_augment": "rand-m6-mstd0.5-inc1", "head": "xavier"}
    data = load_dataset("digit-scenes", "multilabel").limited(12)
    backbone = load_backbone("mini/vit-supervised", precision=precision)
    how = TASK.recipe(published | {"epochs": 2, "micro_batch": 7})
    outcome = TASK.run(backbone, data, how, Context(None, tmp_path))
    [curve] = [p.read_text().splitlines() for p in tmp_path.rglob("curve.jsonl")]
    assert [json.loads(line)["step"] for line in curve] == [1, 2]
    assert outcome.predictions["logits"].shape == (12, 10)
    assert "mean_auroc" in estimate(TASK.measure(outcome.predictions, data))
