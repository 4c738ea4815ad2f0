"""The record: strict on the way in, the same on the way out, and its id is its content."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from backbench.backbones import BadInput
from backbench.leaderboard import Result
from hypothesis import given
from hypothesis import strategies as st

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(recipe=st.dictionaries(st.text(max_size=6), plain, max_size=4), value=st.floats(0, 100), seed=st.integers(0, 9))
def test_json_gives_back_an_equal_result(content, recipe, value, seed):
    result = Result.of(**content(value=value, seed=seed, recipe=recipe, chosen=recipe))
    again = Result.from_json(result.to_json())
    assert again == result
    assert again.to_json() == result.to_json()
    assert "\n" not in result.to_json()


def test_id_is_of_the_content_alone(content):
    first = Result.of(**content())
    assert len(first.id) == 16
    assert Result.of(**content(), trust="rescored", created=datetime(2020, 1, 1, tzinfo=UTC)).id == first.id
    assert Result.of(**dict(reversed(content().items()))).id == first.id
    for change in ({"seed": 1}, {"value": 62.00000001}, {"recipe": {"epochs": 11}}, {"code_version": "0.1.1"}):
        assert Result.of(**content(**change)).id != first.id


def test_protocol_tells_what_may_be_compared(content):
    first = Result.of(**content())
    assert Result.of(**content("mini/cnn-supervised", "knn")).protocol != first.protocol
    assert Result.of(**content("mini/vit-masked", value=9.0, seed=3)).protocol == first.protocol
    data = content()["dataset"]
    for change in ({"recipe": {"epochs": 11}}, {"dataset": data | {"limit": 10}}):
        assert Result.of(**content(**change)).protocol != first.protocol


def changed(record: dict, path: str, value) -> dict:
    *parents, last = path.split(".")
    inner = record
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return record


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("schema_version", 2, "schema_version"),
        ("surprise", 1, "unknown key"),
        ("seed", "0", "seed"),
        ("seed", True, "seed"),
        ("seed", -1, "seed"),
        ("backbone.parameters", 1.5, "backbone.parameters"),
        ("backbone.weights_digest", "abc", "backbone.weights_digest"),
        ("backbone.naem", "x", "backbone.naem"),
        ("task.headline", "top5", "headline 'top5' is not among"),
        ("scores.top1.value", 99.0, "scores.top1"),
        ("scores.top1.high", 101.0, "leaves the metric's range 0.0..100.0"),
        ("scores.top1.low", -3.0, "leaves the metric's range"),
        ("scores.top1.range_high", 0.0, "is empty"),
        ("scores.top1.higher_is_better", 1, "higher_is_better"),
        ("cost.seconds", -1.0, "cost.seconds"),
        ("predictions.path", "../../etc/passwd", "inside the home folder"),
        ("predictions.path", "/etc/passwd", "inside the home folder"),
        ("predictions.path", "C:\\x", "inside the home folder"),
        ("created", "2026-01-01T00:00:00+02:00", "UTC"),
        ("created", "2026-01-01T00:00:00", "created"),
        ("trust", "believed", "trust"),
        ("id", "0" * 16, "was changed"),
        ("recipe.epochs", 11, "was changed"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(result, path, value, said):
    record = changed(json.loads(result().to_json()), path, value)
    with pytest.raises(BadInput) as error:
        Result.from_json(json.dumps(record), where="bundle.json")
    assert said in str(error.value)
    assert str(error.value).startswith("bundle.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, '{"seed": NaN}', '{"seed": Infinity}', b"\xff\xfe{", "{}"]
)
def test_what_is_no_record_is_refused(text):
    with pytest.raises(BadInput) as error:
        Result.from_json(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_no_nan_anywhere(content, bad):
    with pytest.raises(BadInput, match="value"):
        Result.of(**content(value=bad))
    with pytest.raises(BadInput, match="recipe"):
        Result.of(**content(recipe={"deep": [{"down": bad}]}))


def test_rounding_does_not_cost_a_perfect_score(content):
    assert Result.of(**content(value=100.0, half=0.0)).headline.value == 100
    scores = content()["scores"]
    scores["top1"] |= {"value": 100.00000000000001, "high": 100.00000000000001}
    assert Result.of(**content(scores=scores)).headline.high > 100


def test_times_are_utc(result):
    with pytest.raises(ValueError, match="UTC"):
        result(created=datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1))))
