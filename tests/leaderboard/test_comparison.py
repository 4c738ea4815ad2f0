"""The paired comparison: against statsmodels, against brute force, and against what pairing is for."""

from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput
from backbench.backbones.card import file_digest
from backbench.leaderboard import Result, compare, compare_all, comparison
from backbench.tasks import Dataset, Split, read_predictions, write_predictions
from backbench.tasks.classification.accuracy import ranked
from backbench.tasks.measure import Measure
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=7)


@given(p_values)
def test_holm_is_the_closed_test_of_bonferroni(p):
    """By its definition: a hypothesis falls when every set of hypotheses with it falls by Bonferroni."""
    sets = [[i for i in range(len(p)) if bits >> i & 1] for bits in range(1, 1 << len(p))]
    expected = [max(min(1, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in range(len(p))]
    assert comparison.holm(p) == pytest.approx(expected, abs=1e-15)


@pytest.mark.slow  # for the import of statsmodels
def test_holm_agrees_with_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="statsmodels is not installed")
    for seed in range(50):
        p = np.random.default_rng(seed).random(1 + seed % 12) ** 3
        assert comparison.holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1], abs=1e-15)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_agrees_with_statsmodels(pairs):
    contingency_tables = pytest.importorskip("statsmodels.stats.contingency_tables", reason="needs statsmodels")
    a, b = np.array(pairs).T
    table = [[np.sum(a & b), np.sum(a & ~b)], [np.sum(~a & b), np.sum(~a & ~b)]]
    expected = contingency_tables.mcnemar(table, exact=True).pvalue if (a != b).any() else 1
    assert comparison.mcnemar_p(a, b) == pytest.approx(min(1, expected), abs=1e-12)
    assert comparison.mcnemar_p(b, a) == comparison.mcnemar_p(a, b)


@given(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0]), min_size=1, max_size=30))
def test_bootstrap_p_counts_both_tails_and_is_never_zero(drawn):
    below, above = sum(d <= 0 for d in drawn), sum(d >= 0 for d in drawn)
    expected = min(1, 2 * min((below + 1) / (len(drawn) + 1), (above + 1) / (len(drawn) + 1)))
    if not min(below, above) and len(set(drawn)) > 1:
        expected = min(expected, 2 * norm.sf(abs(np.mean(drawn)) / np.std(drawn)))
    assert comparison.bootstrap_p(np.array(drawn)) == pytest.approx(expected)
    assert expected > 0


def test_bootstrap_p_beyond_what_can_be_counted():
    """Of so many comparisons that 2 / (B + 1) for each would leave nothing: still told apart, and never surer."""
    drawn = np.random.default_rng(0).normal(8, 1, 200)
    assert comparison.bootstrap_p(drawn) == pytest.approx(2 * norm.sf(8), abs=1e-10)
    assert max(comparison.holm([comparison.bootstrap_p(drawn)] * 60)) < 0.001
    assert comparison.bootstrap_p(drawn * 1000) == comparison.bootstrap_p(drawn)
    assert comparison.bootstrap_p(1 + drawn * 1e-9) == 1e-12
    assert comparison.bootstrap_p(np.ones(200)) == 2 / 201  # nothing is known of the spread


def accuracy(correct, replicates=400, **facts):
    """The measure of top-1 accuracy in percent of examples that were `correct` (n,) or not."""
    return Measure(
        examples=len(correct),
        scores=lambda w: {"loss": 0.0, "top1": 100 * float(np.average(correct, weights=w))},
        replicates=replicates,
        **facts,
    )


@pytest.fixture
def examples():
    """Who is right on 500 examples: b is a with 40 right answers turned wrong, c is right as often but elsewhere."""
    rng = np.random.default_rng(5)
    a = (rng.random(500) < 0.7).astype(float)
    b = a.copy()
    b[np.flatnonzero(a)[:40]] = 0
    return {"mini/a": a, "mini/b": b, "mini/c": rng.permutation(a), "mini/same": a.copy()}


@pytest.fixture
def measure_of(examples):
    return lambda r: accuracy(examples[r.backbone.name])


def test_a_real_difference_is_found(result, measure_of, examples):
    (d,) = compare([result("mini/a")], [result("mini/b")], measure_of)
    assert d.difference == pytest.approx(8) == d.a - d.b
    assert 0 < d.low < 8 < d.high
    assert d.better == "a"
    assert d.p == d.p_holm < 1e-6
    back = compare([result("mini/b")], [result("mini/a")], measure_of)[0]
    assert (back.difference, back.low, back.high) == pytest.approx((-d.difference, -d.high, -d.low))
    assert back.better == "b"
    # What a paired bootstrap is for: the standard error of 40 disagreements, not that of two separate scores.
    paired = 100 * np.std(examples["mini/a"] - examples["mini/b"]) / np.sqrt(500)
    separate = 100 * np.sqrt((np.var(examples["mini/a"]) + np.var(examples["mini/b"])) / 500)
    assert (d.high - d.low) / (2 * 1.96) == pytest.approx(paired, rel=0.15)
    assert separate > 2 * paired


def counted(examples, **facts):
    """As `measure_of`, of measures that tell who is right."""
    return lambda r: accuracy(examples[r.backbone.name], right=examples[r.backbone.name] > 0, **facts)


def test_right_answers_of_independent_examples_are_counted(result, examples):
    (d,) = compare([result("mini/a")], [result("mini/b")], counted(examples))
    assert d.test == "mcnemar"
    assert d.p == pytest.approx(2 * 0.5**40)  # all 40 disagreements fall to one side
    (bootstrapped,) = compare([result("mini/a")], [result("mini/b")], lambda r: accuracy(examples[r.backbone.name]))
    assert bootstrapped.test == "bootstrap"
    assert (d.difference, d.low, d.high) == (bootstrapped.difference, bootstrapped.low, bootstrapped.high)
    (same,) = compare([result("mini/a")], [result("mini/same")], counted(examples))
    assert (same.p, same.better) == (1, None)


def test_what_is_not_independent_is_not_counted(result, examples):
    ours, theirs = [result("mini/a", seed=s) for s in range(2)], [result("mini/c", seed=s) for s in range(2)]
    pairs, halves = np.arange(500) // 2, np.arange(500) % 2
    for facts in ({"groups": pairs}, {"groups": pairs, "trials": halves}):
        (d,) = compare(ours[:1], theirs[:1], counted(examples, **facts))
        assert d.test == "bootstrap"
    (d,) = compare(ours, theirs, counted(examples))  # two seeds a side
    assert (d.test, d.seeds_a) == ("bootstrap", 2)


def two_networks(rng, examples, groups, ahead):
    """Who is right on examples of which some share what makes them hard; the first network is `ahead` of the second."""
    group = np.arange(examples) % groups
    hard = rng.normal(size=groups)[group]
    return [(hard + skill + rng.normal(size=examples) > 0).astype(float) for skill in (0.8 + ahead, 0.8)]


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "ahead"), [(300, 0.0), (300, 0.3), (60, 0.0), (60, 0.3)])
def test_paired_intervals_cover_and_p_values_hold_their_level(result, groups, ahead):
    """300 examples, on their own or five of a group; 400 simulated comparisons each."""
    rng = np.random.default_rng(groups)
    truth = 100 * np.subtract(*two_networks(rng, 1_000_000, 1_000_000, ahead)).mean()
    facts = {} if groups == 300 else {"groups": np.arange(300) % groups}
    found = []
    for _ in range(400):
        right = dict(zip(("mini/a", "mini/b"), two_networks(rng, 300, groups, ahead), strict=True))
        found += compare([result("mini/a")], [result("mini/b")], counted(right, **facts))
    assert {d.test for d in found} == {"mcnemar" if groups == 300 else "bootstrap"}
    assert 0.91 <= np.mean([d.low <= truth <= d.high for d in found]) <= 0.98
    if ahead:
        assert np.mean([d.p < 0.05 for d in found]) > 0.25  # power
    else:
        assert np.mean([d.p < 0.05 for d in found]) <= 0.08


def test_equal_scores_are_not_told_apart(result, measure_of):
    for other in ("mini/c", "mini/same"):
        (d,) = compare([result("mini/a")], [result(other)], measure_of)
        assert d.difference == pytest.approx(0)
        assert d.better is None
        assert d.low <= 0 <= d.high
    assert d.p == 1  # the same predictions


def test_lower_is_better_names_the_lower(result, measure_of, content):
    scores = content()["scores"]
    scores["top1"] |= {"higher_is_better": False}
    (d,) = compare([result("mini/a", scores=scores)], [result("mini/b", scores=scores)], measure_of)
    assert d.difference > 0
    assert d.better == "b"


def test_only_shared_tasks_are_compared_and_corrected_together(result, measure_of):
    tasks = ["linear-probe", "knn", "ood-shift"]
    ours = [result("mini/a", t, scores=result("mini/a").model_dump()["scores"]) for t in tasks]
    theirs = [result("mini/b", t, scores=result("mini/b").model_dump()["scores"]) for t in tasks[1:]]
    found = compare(ours, theirs, measure_of)
    assert [d.task for d in found] == tasks[1:]
    assert [d.p_holm for d in found] == comparison.holm([d.p for d in found])


def test_several_are_compared_in_pairs_and_corrected_together(result, measure_of):
    tasks = ["linear-probe", "knn"]
    scores = result("mini/a").model_dump()["scores"]
    sides = [[result(f"mini/{n}", t, scores=scores) for t in tasks] for n in ("a", "b", "c", "same")]
    measured = []
    found = compare_all(sides, lambda r: measured.append(r.id) or measure_of(r))
    assert sorted(measured) == sorted(r.id for side in sides for r in side)  # each once, however many pairs it is in
    pairs = [("a", "b"), ("a", "c"), ("a", "same"), ("b", "c"), ("b", "same"), ("c", "same")]
    assert [(d.backbone_a, d.backbone_b) for d in found] == [
        (f"mini/{a}", f"mini/{b}") for a, b in pairs for _ in tasks
    ]
    assert {d.task for d in found[:2]} == {d.task for d in found[-2:]} == set(tasks)
    assert [d.p_holm for d in found] == comparison.holm([d.p for d in found])
    alone = compare(sides[0], sides[1], measure_of)
    assert [(d.difference, d.low, d.high, d.p) for d in found[:2]] == [
        (d.difference, d.low, d.high, d.p) for d in alone
    ]
    assert found[0].p_holm > alone[0].p_holm  # the same test is one of twelve now


def test_a_pair_without_a_common_task_is_named(result, measure_of):
    sides = [[result("mini/a", "knn")], [result("mini/b", "knn")], [result("mini/c", "retrieval")]]
    with pytest.raises(BadInput, match="mini/a and mini/c have no task in common"):
        compare_all(sides, measure_of)


def test_training_seeds_add_their_own_spread(result, examples):
    def measure_of(r):
        correct = examples[r.backbone.name].copy()
        if r.backbone.name == "mini/a":  # training luck: seeds of a differ by 0, 40 or 80 examples
            correct[np.flatnonzero(correct)[: 40 * r.seed]] = 0
        return accuracy(correct)

    ours, theirs = [result("mini/a", seed=s) for s in range(3)], [result("mini/b", seed=s) for s in range(3)]
    (one,) = compare(ours[:1], theirs[:1], measure_of)
    (three,) = compare(ours, theirs, measure_of)
    assert (one.seeds_a, three.seeds_a, three.seeds_b) == (1, 3, 3)
    assert three.difference == pytest.approx(0)
    assert three.high - three.low > 2 * (one.high - one.low)
    assert compare(ours, theirs, measure_of) == [three]


def test_a_run_done_twice_counts_once(result, measure_of):
    old = result("mini/a", code_version="0", created=datetime(2025, 1, 1, tzinfo=UTC))
    (d,) = compare([old, result("mini/a")], [result("mini/b")], measure_of)
    assert d.seeds_a == 1


def test_what_cannot_be_compared_is_said(result, measure_of):
    with pytest.raises(BadInput, match="no results"):
        compare([], [result()], measure_of)
    with pytest.raises(BadInput, match="no task in common"):
        compare([result("mini/a")], [result("mini/b", recipe={"epochs": 3})], measure_of)
    with pytest.raises(BadInput, match="cannot be paired"):
        compare(
            [result("mini/a")],
            [result("mini/b")],
            lambda r: accuracy(np.ones(5), 10 + len(r.backbone.name) * (r.backbone.name == "mini/a")),
        )


@pytest.fixture
def stored(content, tmp_path):
    """Two backbones' k-NN predictions on four labelled images, as a run leaves them under the home folder."""
    labels = np.array([0, 1, 1, 0])
    data = Dataset("toy", "classification", ("a", "b"), {"test": lambda: Split([None] * 4, labels, "f" * 64)})
    facts = {"name": "toy", "fingerprints": {"test": "f" * 64}, "sizes": {"test": 4}}
    results = []
    for name, best in (("mini/a", [0, 1, 1, 0]), ("mini/b", [0, 1, 0, 1])):
        path = f"runs/{name}/predictions.parquet"
        columns = ranked(torch.eye(2, dtype=torch.double)[best], data["test"])
        write_predictions(columns, tmp_path / path)
        file = {"path": path, "sha256": file_digest(tmp_path / path), "rows": 4}
        whole = content(name, "knn")
        results.append(Result.of(**whole | {"dataset": whole["dataset"] | facts, "predictions": file}))
    return data, results


def test_stored_predictions_are_measured_again(stored, tmp_path):
    data, (a, b) = stored
    (d,) = compare([a], [b], comparison.stored_measure(tmp_path, lambda _: data))
    assert (d.a, d.b, d.difference) == (100, 50, 50)


def test_predictions_that_were_handed_in_are_found_by_their_digest(stored, tmp_path):
    data, (a, b) = stored
    for r in (a, b):
        kept = tmp_path / "predictions" / f"{r.predictions.sha256}.parquet"
        kept.parent.mkdir(exist_ok=True)
        (tmp_path / r.predictions.path).rename(kept)
    (d,) = compare([a], [b], comparison.stored_measure(tmp_path, lambda _: data))
    assert d.difference == 50


def test_stored_predictions_are_checked(stored, tmp_path):
    data, (a, b) = stored
    other = Dataset("toy", "classification", ("a", "b"), {"test": lambda: Split([None] * 4, np.zeros(4), "0" * 64)})
    with pytest.raises(
        BadInput, match=f"dataset toy: test is not what result {a.id} was made on; run `backbench rerun"
    ):
        comparison.stored_measure(tmp_path, lambda _: other)(a)
    with pytest.raises(BadInput, match="for 4 images, the split has 2"):  # with a limit it is the same data
        comparison.stored_measure(tmp_path, lambda _: data.limited(2))(a)
    with pytest.raises(BadInput, match="no dataset 'toy'"):
        comparison.stored_measure(tmp_path)(a)
    measure_of = comparison.stored_measure(tmp_path, lambda _: data)
    path = tmp_path / b.predictions.path
    columns = read_predictions(path)
    write_predictions({name: column for name, column in columns.items() if name != "classes"}, path)
    older = b.model_copy(update={"predictions": b.predictions.model_copy(update={"sha256": file_digest(path)})})
    with pytest.raises(BadInput, match=f"holds no classes, it is of another version; run `backbench rerun {b.id}`"):
        measure_of(older)
    (tmp_path / a.predictions.path).write_text("others")
    with pytest.raises(BadInput, match=f"not the predictions that result {a.id} was made from; run `backbench rerun"):
        measure_of(a)
    (tmp_path / b.predictions.path).unlink()
    with pytest.raises(BadInput, match=f"no such file.* of result {b.id}; run `backbench rerun"):
        measure_of(b)
