"""The record: strict on the way in, the same on the way out, and its id is its content."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from backbench.backbones import BadInput
from backbench.leaderboard import Result, Store
from backbench.leaderboard.portable import DEEPEST, LARGEST_WHOLE, portable
from hypothesis import given
from hypothesis import strategies as st

whole = st.integers(-LARGEST_WHOLE, LARGEST_WHOLE)
plain = st.recursive(
    st.none() | st.booleans() | whole | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
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
        ("schema_version", 0, "schema_version"),
        ("schema_version", True, "schema_version"),
        ("schema_version", "2", "schema_version"),
        ("schema_version", 1, "was changed"),
        ("schema_version", 3, "made by a newer backbench (schema 3, this one reads up to 2); upgrade"),
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
        ("scores.top1.range_high", 200.0, "percent lies within 0..100"),
        ("scores.loss.unit", "x" * 41, "scores.loss.unit"),
        ("backbone.name", "a" * 201, "backbone.name"),
        ("backbone.name", "two\nlines", "backbone.name: holds a character that cannot be printed, U+000A"),
        ("backbone.name", "\u202etxt.exe", "U+202E"),
        ("backbone.name", "\ud800", "backbone.name"),
        ("backbone.parameters", 2**53, "backbone.parameters"),
        ("backbone.macs", -1, "backbone.macs"),
        ("seed", 10**400, "seed"),
        ("code_version", "", "code_version"),
        ("environment.torch", "x" * 1001, "environment.torch"),
        ("dataset.fingerprints.test", "x" * 201, "dataset.fingerprints.test"),
        ("recipe.epochs", 2**53, "recipe: epochs: a whole number beyond 2**53"),
        ("chosen.text", "x" * 10_001, "chosen: text: a text of 10,001 characters"),
        ("backbone.card.many", [0] * 10_001, "backbone.card: holds more than 10,000 values"),
        ("backbone.transform.half", "\ud800", "backbone.transform: half: half a character"),
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
    "text",
    [
        *("", "{", "[]", "null", "[" * 100_000, '{"seed": NaN}', '{"seed": Infinity}', b"\xff\xfe{", "{}"),
        *('{"seed": 0, "seed": 0}', '{"seed": ' + "9" * 5000 + "}", " " * (5 << 20), "[" * 900 + "]" * 900),
    ],
)
def test_what_is_no_record_is_refused(text):
    with pytest.raises(BadInput) as error:
        Result.from_json(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["recipe", "chosen"])
def test_no_nan_anywhere(content, field, bad):
    with pytest.raises(BadInput, match="value"):
        Result.of(**content(value=bad))
    with pytest.raises(BadInput, match=rf"{field}: deep\[0\].down: (nan|inf) is not a number"):
        Result.of(**content(**{field: {"deep": [{"down": bad}]}}))
    with pytest.raises(BadInput, match=r"backbone\.card: deep: (nan|inf) is not a number"):
        Result.of(**content(backbone=content()["backbone"] | {"card": {"deep": bad}}))


def test_a_number_that_overflows_is_no_number(result):
    text = result().to_json().replace('"epochs":10', '"epochs":1e999')
    with pytest.raises(BadInput, match="recipe: epochs: inf is not a number"):
        Result.from_json(text)


@pytest.mark.parametrize("depth", [DEEPEST + 1, 400, 900])
def test_what_is_nested_too_deep_is_refused_in_one_line(result, depth):
    text = result().to_json().replace('"epochs":10', '"epochs":' + "[" * depth + "]" * depth)
    with pytest.raises(BadInput, match=f"recipe: epochs.*: nested deeper than {DEEPEST}$"):
        Result.from_json(text)


@given(value=st.dictionaries(st.text(max_size=5), plain, max_size=4))
def test_what_is_portable_stays_as_it_is(value):
    assert portable(value) is value
    assert json.loads(json.dumps(value, ensure_ascii=False).encode()) == value


RECORDS = sorted((Path(__file__).parent / "records").glob("version-1-*.json"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_of_version_1_is_read_as_it_was_written(path, tmp_path):
    text = path.read_text(encoding="utf-8")
    old = Result.from_json(text)  # its id checks: nothing that version 2 brought counts in its digest
    assert old.schema_version == 1
    assert old.backbone.macs is None
    assert json.loads(old.to_json()) == json.loads(text)
    store = Store(tmp_path / "leaderboard.db")
    store.add(old)
    assert store.by_id(old.id) == old


def test_there_are_records_of_version_1_of_two_tasks_and_two_ways_of_loading():
    old = [Result.from_json(path.read_text(encoding="utf-8")) for path in RECORDS]
    assert len({r.task.name for r in old}) == 2
    assert [bool(r.backbone.loading) for r in old] == [False, True]


def test_new_records_are_of_version_2_and_say_only_what_is_known(content):
    facts = content()["backbone"]
    without, known = (Result.of(**content(backbone=facts | more)) for more in ({}, {"macs": 12_177_408}))
    assert without.schema_version == known.schema_version == 2
    assert "macs" not in json.loads(without.to_json())["backbone"]
    assert Result.of(**content(backbone=facts | {"macs": None})).id == without.id != known.id
    assert Result.from_json(known.to_json()) == known
    with pytest.raises(BadInput, match=r"schema_version 1 has no backbone\.macs"):
        Result.of(**content(backbone=facts | {"macs": 1}), schema_version=1)


@pytest.mark.parametrize(
    ("low", "high", "good"),
    [(0.0, 100.0, True), (-100.0, 100.0, True), (0.0, 50.0, True), (0.0, 1.0, False), (-1.0, 1.0, False)],
)
def test_a_share_is_no_percentage(content, low, high, good):
    scores = content()["scores"]
    scores["top1"] |= {"value": high, "low": high, "high": high, "range_low": low, "range_high": high}
    if good:
        assert Result.of(**content(scores=scores)).headline.unit == "%"
        return
    with pytest.raises(BadInput, match=r"scores\.top1: .* is the range of a share; in percent it is 0\.\.100"):
        Result.of(**content(scores=scores))


def test_rounding_does_not_cost_a_perfect_score(content):
    assert Result.of(**content(value=100.0, half=0.0)).headline.value == 100
    scores = content()["scores"]
    scores["top1"] |= {"value": 100.00000000000001, "high": 100.00000000000001}
    assert Result.of(**content(scores=scores)).headline.high > 100


def test_times_are_utc(result):
    with pytest.raises(ValueError, match="UTC"):
        result(created=datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1))))
