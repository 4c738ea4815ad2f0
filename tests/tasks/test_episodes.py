"""One-shot episodes, against scikit-learn episode by episode."""

import numpy as np
import pytest
from backbench.backbones import BadInput, load_backbone
from backbench.tasks import Dataset, estimate, find_task, load_dataset, read_predictions, write_predictions
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import normalize


@pytest.fixture
def episodes(make_split):
    """Makes data of `runs` episodes of 4 colours, each with its own numbering, and 3 queries a colour."""

    def make(runs=5, shots=1, noise=60):
        rng = np.random.default_rng(runs)
        orders = [rng.permutation(4) for _ in range(runs)]

        def split(seed, each):
            colours = np.concatenate([np.tile(order, each) for order in orders])
            made = make_split(len(colours), seed, noise=noise, labels=colours)
            within = np.tile(np.arange(4), runs * each)
            return made.__class__(
                made.images,
                within,
                f"{made.fingerprint}-{shots}",
                made.ids,
                np.repeat([f"run{i}" for i in range(runs)], 4 * each),
            )

        splits = {"support": lambda: split(1, shots), "query": lambda: split(2, 3)}
        return Dataset("colours", "episodes", tuple("abcd"), splits)

    return make


def by_scikit_learn(data, backbone, context, classifier, cosine):
    """Labels of the queries, one episode at a time."""
    support, query = data["support"], data["query"]
    x, asked = (normalize(context.embeddings(backbone, s).double().numpy()) for s in (support, query))
    said = np.empty(len(query), int)
    for run in set(query.groups):
        shown, rows = support.groups == run, query.groups == run
        fitted = classifier.fit(x[shown], support.targets[shown])
        if cosine:  # of unit vectors to the means, by their angles
            means = normalize(fitted.centroids_)
            said[rows] = fitted.classes_[(asked[rows] @ means.T).argmax(1)]
        else:
            said[rows] = fitted.predict(asked[rows])
    return said


def test_one_image_a_class(episodes, make_backbone, context, tmp_path):
    task, data, backbone = find_task("one-shot"), episodes(), make_backbone()
    task.check_data(data)
    outcome = task.run(backbone, data, task.recipe(), context)
    expected = by_scikit_learn(data, backbone, context, KNeighborsClassifier(1), cosine=False)
    np.testing.assert_array_equal(outcome.predictions["nearest"], expected)
    found = estimate(task.measure(outcome.predictions, data))
    assert list(found) == ["top1"]  # the mean of one image is that image
    assert found["top1"].value == pytest.approx(100 * (expected == data["query"].targets).mean())
    assert 45 < found["top1"].value < 100  # chance: 25
    write_predictions(outcome.predictions, tmp_path / "p.parquet")
    assert estimate(task.measure(read_predictions(tmp_path / "p.parquet"), data)) == found


def test_several_images_a_class(episodes, make_backbone, context):
    task, data, backbone = find_task("one-shot"), episodes(shots=4), make_backbone()
    predictions = task.run(backbone, data, task.recipe(), context).predictions
    nearest = by_scikit_learn(data, backbone, context, KNeighborsClassifier(1), cosine=False)
    means = by_scikit_learn(data, backbone, context, NearestCentroid(), cosine=True)
    np.testing.assert_array_equal(predictions["nearest"], nearest)
    np.testing.assert_array_equal(predictions["prototype"], means)
    assert (nearest != means).any()
    assert list(estimate(task.measure(predictions, data))) == ["top1", "prototype_top1"]


def test_the_interval_is_over_episodes(episodes, make_backbone, context):
    task, data = find_task("one-shot"), episodes(runs=8)
    measure = task.measure(task.run(make_backbone(), data, task.recipe(), context).predictions, data)
    means = [measure.scores((measure.groups == run).astype(float))["top1"] for run in sorted(set(measure.groups))]
    rng = np.random.default_rng(0)
    drawn = [np.bincount(rng.integers(0, 8, 8), minlength=8) @ means / 8 for _ in range(1000)]
    found = estimate(measure)["top1"]
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))


def test_an_episode_knows_no_other(episodes, make_backbone, context):
    """The answers of an episode are those it gives alone."""
    task, data = find_task("one-shot"), episodes()
    whole = task.run(make_backbone(), data, task.recipe(), context).predictions

    def only(name):
        split = data[name]
        return split.rows(np.flatnonzero(split.groups == "run3"), f"{split.fingerprint}:run3")

    alone = Dataset("one", "episodes", data.classes, {n: lambda n=n: only(n) for n in ("support", "query")})
    found = task.run(make_backbone(), alone, task.recipe(), context).predictions
    np.testing.assert_array_equal(found["nearest"], whole["nearest"][data["query"].groups == "run3"])


def test_what_is_no_episode_is_said(episodes, make_backbone, make_split, context):
    task = find_task("one-shot")
    plain = Dataset("plain", "episodes", tuple("abcd"), dict.fromkeys(("support", "query"), lambda: make_split(8, 1)))
    with pytest.raises(BadInput, match="dataset plain: the groups of support and query name the episode"):
        task.run(make_backbone(), plain, task.recipe(), context)
    data = episodes()
    cut = Dataset(
        "cut", "episodes", data.classes, {"support": lambda: data["support"].take(2), "query": lambda: data["query"]}
    )
    with pytest.raises(BadInput, match=r"episode run1 has queries and no support images; a limit"):
        task.run(make_backbone(), cut, task.recipe(), context)


def test_pretrained_beats_random_on_digit_scenes(context):
    task, data, found = find_task("one-shot"), load_dataset("digit-scenes", "episodes"), {}
    for name in ("mini/cnn-supervised", "mini/cnn-random"):
        outcome = task.run(load_backbone(name), data, task.recipe(), context)
        found[name] = estimate(task.measure(outcome.predictions, data))["top1"]
    assert found["mini/cnn-supervised"].low > 50
    assert found["mini/cnn-random"].low < 15  # ten digits
