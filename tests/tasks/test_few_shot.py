"""Few-shot classification: the draws, the choice, and each head against scikit-learn on the same images."""

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput
from backbench.tasks import Dataset, Split, estimate, find_task, load_dataset, read_predictions, write_predictions
from backbench.tasks.classification.few_shot import SHARES, SHOTS, Pool
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler, normalize

STRENGTHS = (1e-3, 1e-1, 10.0)
HEADS = ["logistic", "least-squares", "prototype"]


def pool(labels):
    labels = np.asarray(labels)
    split = Split(np.zeros((len(labels), 2, 2, 3), np.uint8), labels, "none")
    return Pool(torch.arange(len(labels), dtype=torch.float32)[:, None], split, 5)


# -- draws ---------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.lists(st.integers(-1, 4), min_size=1, max_size=120).filter(lambda y: max(y) >= 0), st.integers(0, 99))
def test_every_class_gives_what_is_asked_or_all_it_has(labels, seed):
    drawn, labels = pool(labels), np.array(labels)
    drawn.shuffle(np.random.default_rng(seed))
    before = set()
    for shots in (1, 2, 4, 8, 16):
        x, y = drawn.take(shots)
        rows = x[:, 0].int().tolist()
        assert labels[rows].tolist() == y.tolist()
        assert len(set(rows)) == len(rows)
        assert before <= set(rows)  # more shots add images, and change none
        before = set(rows)
        for c in range(5):
            assert (y == c).sum() == min(shots, (labels == c).sum())


def test_a_share_is_of_each_class_and_one_image_at_least():
    drawn = pool([0] * 300 + [1] * 40 + [2] * 2)
    drawn.shuffle(np.random.default_rng(0))
    assert np.bincount(drawn.take(0.01)[1]).tolist() == [3, 1, 1]
    assert np.bincount(drawn.take(0.1)[1]).tolist() == [30, 4, 1]


def test_draws_are_uniform():
    """The first of five images of a class is each of them a fifth of the time."""
    drawn, rng, seen = pool([0, 1] * 5), np.random.default_rng(0), np.zeros(10)
    for _ in range(2000):
        drawn.shuffle(rng)
        seen[drawn.take(1)[0][:, 0].long()] += 1
    assert seen.sum() == 4000
    assert np.abs(seen - 400).max() < 5 * np.sqrt(400 * 0.8)


# -- heads ---------------------------------------------------------------------------------------------------------


def reference(head, x, y, queries, c):
    """scikit-learn's answers."""
    if head == "prototype":
        fitted = NearestCentroid().fit(normalize(x), y)
        return fitted.classes_[(normalize(queries) @ normalize(fitted.centroids_).T).argmax(1)]
    scaler = StandardScaler().fit(x)
    x, queries = scaler.transform(x), scaler.transform(queries)
    if head == "logistic":
        return LogisticRegression(C=c, tol=1e-8, max_iter=10_000).fit(x, y).predict(queries)
    return Ridge(alpha=1 / c).fit(x, 2 * np.eye(y.max() + 1)[y] - 1).predict(queries).argmax(1)


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")  # scikit-learn's, of one image a class
@pytest.mark.parametrize("head", HEADS)
def test_the_answers_are_scikit_learns(head, make_backbone, squares_data, context):
    task, data, backbone = find_task("few-shot"), squares_data(), make_backbone()
    outcome = task.run(backbone, data, task.recipe({"head": head, "draws": 2, "c": STRENGTHS}), context)
    queries = context.embeddings(backbone, data["test"]).double().numpy()
    for draw in range(2):
        rng = np.random.default_rng([0, draw])
        train, val = (Pool(context.embeddings(backbone, data[n]), data[n], 4) for n in ("train", "val"))
        train.shuffle(rng)
        val.shuffle(rng)
        said = {name: outcome.predictions[name][outcome.predictions["draw"] == draw] for name in SHOTS | SHARES}
        for name, budget in (SHOTS | SHARES).items():
            x, y = (part.double().numpy() if part.is_floating_point() else part.numpy() for part in train.take(budget))
            c = None if head == "prototype" else outcome.chosen["c"][name][draw]
            assert np.mean(said[name] == reference(head, x, y, queries, c)) >= 0.98  # of 50: one may lie on a border
            if c is None:
                continue
            x_val, y_val = val.take(min(budget, 4))
            right = {
                c: accuracy_score(y_val, reference(head, x, y, x_val.double().numpy(), c)) for c in task.recipe().c
            }
            assert right[c] >= max(right.values()) - 1.01 / len(y_val)


@pytest.mark.parametrize("head", HEADS)
def test_whole(head, make_backbone, squares_data, context, tmp_path):
    task, data = find_task("few-shot"), squares_data()
    recipe = task.recipe({"head": head, "c": STRENGTHS})
    task.check_data(data)
    outcome = task.run(make_backbone(), data, recipe, context)
    found = estimate(task.measure(outcome.predictions, data))
    assert list(found) == list(task.scores)
    assert found["shots_16"].value > 60  # four classes
    shots = [found[name].value for name in SHOTS]
    assert found["mean_shots"].value == pytest.approx(np.mean(shots))
    assert max(shots) > shots[0]
    assert (outcome.chosen.get("c") is None) == (head == "prototype")
    write_predictions(outcome.predictions, tmp_path / "p.parquet")
    assert estimate(task.measure(read_predictions(tmp_path / "p.parquet"), data)) == found
    again = task.run(make_backbone(), squares_data(), recipe, context)
    for column, values in outcome.predictions.items():
        np.testing.assert_array_equal(values, again.predictions[column])


def test_scores_are_mean_accuracies_over_draws(make_backbone, squares_data, context):
    task, data = find_task("few-shot"), squares_data()
    predictions = task.run(make_backbone(), data, task.recipe({"head": "prototype", "draws": 3}), context).predictions
    measure = task.measure(predictions, data)
    weights = np.random.default_rng(0).integers(0, 3, measure.examples).astype(float)
    found, labels = measure.scores(weights), np.tile(data["test"].targets, 3)
    for name in SHOTS | SHARES:
        expected = 100 * accuracy_score(labels, predictions[name], sample_weight=weights)
        assert found[name] == pytest.approx(expected)


def test_the_interval_holds_luck_in_the_draw(make_backbone, squares_data, context):
    task, data = find_task("few-shot"), squares_data()
    predictions = task.run(make_backbone(), data, task.recipe({"head": "prototype"}), context).predictions
    measure = task.measure(predictions, data)
    by_draw = [measure.scores((predictions["draw"] == d).astype(float))["shots_1"] for d in range(5)]
    assert np.std(by_draw) > 2
    found = estimate(measure)["shots_1"]
    assert found.high - found.low > 2 * np.std(by_draw, ddof=1) / np.sqrt(5)


def test_another_seed_draws_others(make_backbone, squares_data, context):
    task, data = find_task("few-shot"), squares_data()
    one = task.run(make_backbone(), data, task.recipe({"head": "prototype"}), context).predictions
    context.seed = 1
    other = task.run(make_backbone(), data, task.recipe({"head": "prototype"}), context).predictions
    assert not np.array_equal(one["shots_1"], other["shots_1"])


# -- edges ---------------------------------------------------------------------------------------------------------


def part(data, name, rows):
    return data[name].rows(np.asarray(rows), f"{name}-{len(rows)}")


@pytest.mark.parametrize("head", HEADS)
def test_fewer_images_than_asked(head, make_backbone, squares_data, context):
    """Classes of 6, 3, 1 and 0 images: no 8 shots; the class without an image is never the answer."""
    whole = squares_data()
    labels = whole["train"].targets
    rows = np.concatenate([np.flatnonzero(labels == c)[:k] for c, k in enumerate((6, 3, 1, 0))])
    splits = {"train": lambda: part(whole, "train", rows)} | {n: lambda n=n: whole[n] for n in ("val", "test")}
    data, task = Dataset("few", "classification", whole.classes, splits), find_task("few-shot")
    outcome = task.run(make_backbone(), data, task.recipe({"head": head}), context)
    assert outcome.chosen["classes_with_fewer_images"] == {"shots_1": 1, "shots_2": 2, "shots_4": 3}
    found = estimate(task.measure(outcome.predictions, data))
    assert list(found) == ["mean_shots", "shots_1", "shots_2", "shots_4", "percent_1", "percent_10"]
    assert all(3 not in outcome.predictions[name] for name in list(found)[1:])


@pytest.mark.parametrize("head", HEADS)
def test_one_class_and_three_images(head, make_backbone, squares_data, context):
    task = find_task("few-shot")
    for data in (squares_data().limited(3), one_class(squares_data())):
        outcome = task.run(make_backbone(), data, task.recipe({"head": head}), context)
        found = estimate(task.measure(outcome.predictions, data))
        assert all(0 <= e.low <= e.value <= e.high <= 100 for e in found.values())
    assert found["mean_shots"].value == 100


def one_class(data):
    splits = {n: lambda n=n: part(data, n, np.flatnonzero(data[n].targets == 0)) for n in ("train", "val", "test")}
    return Dataset("red", "classification", ("red",), splits)


def test_nothing_is_chosen_on_the_test_split(make_backbone, squares_data, context):
    task, data = find_task("few-shot"), squares_data()
    splits = {n: data._build[n] for n in ("train", "val")} | {"test": data._build["shift:loud"]}
    other = Dataset("other", data.kind, data.classes, splits)
    chosen = [task.run(make_backbone(), d, task.recipe({"draws": 2}), context).chosen for d in (data, other)]
    assert chosen[0] == chosen[1]


def test_predictions_of_other_images_are_refused(make_backbone, squares_data, context):
    task, data = find_task("few-shot"), squares_data()
    predictions = task.run(make_backbone(), data, task.recipe({"head": "prototype"}), context).predictions
    with pytest.raises(BadInput, match="predictions row 0 is for image"):
        task.measure(predictions | {"id": predictions["id"][::-1]}, data)
    with pytest.raises(BadInput, match="49 images, the split has 50"):
        task.measure({name: values[:-1] for name, values in predictions.items()}, data)
    for harmed in (
        predictions | {"draw": predictions["draw"][::-1]},
        {name: values for name, values in predictions.items() if name != "shots_2"},  # a hard one, left out
        {name: values for name, values in predictions.items() if name not in SHOTS},
    ):
        with pytest.raises(BadInput, match="one draw after the other"):
            task.measure(harmed, data)


def test_a_wrong_head_is_named():
    with pytest.raises(BadInput, match="recipe of few-shot: head"):
        find_task("few-shot").recipe({"head": "svm"})


@pytest.mark.slow  # for the scenes
def test_pretrained_beats_random_on_digit_scenes(context):
    from backbench.backbones import load_backbone

    task, data, found = find_task("few-shot"), load_dataset("digit-scenes", "classification"), {}
    for name in ("mini/cnn-supervised", "mini/cnn-random"):
        outcome = task.run(load_backbone(name), data, task.recipe(), context)
        found[name] = estimate(task.measure(outcome.predictions, data))["mean_shots"]
    assert found["mini/cnn-supervised"].low > found["mini/cnn-random"].high
