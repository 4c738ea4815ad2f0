"""JSON Schema: what we write it takes, what our readers refuse by itself it refuses too."""

import json
from pathlib import Path

import pytest
from backbench.backbones import BadInput
from backbench.leaderboard import as_json
from backbench.leaderboard.schema import KINDS, json_schema
from jsonschema import Draft202012Validator

RECORDS = sorted((Path(__file__).parent / "records").glob("*.json"))


@pytest.fixture(scope="module")
def takes():
    """Whether a schema takes a value."""
    ready = {kind: Draft202012Validator(json_schema(kind)) for kind in ("result", "figure", "board")}
    return lambda kind, value: ready[kind].is_valid(value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_one_and_always_the_same(kind):
    schema = json_schema(kind)
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:backbench:{kind}"
    assert json.dumps(schema) == json.dumps(json_schema(kind))


def test_an_unknown_kind_is_named():
    with pytest.raises(BadInput, match="there is no schema 'reslt'; did you mean 'result'"):
        json_schema("reslt")


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_records_of_every_version_are_taken(takes, path, result):
    assert takes("result", json.loads(path.read_text(encoding="utf-8")))
    assert takes("result", json.loads(result().to_json()))


def test_boards_are_taken(takes, board, published):
    for one in (board, published):
        data = json.loads(as_json(one))
        assert takes("board", data)
        assert not takes("board", data | {"rows": [{}]})
        assert not takes("board", data | {"source": None})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", "0"),
        ("seed", -1),
        ("seed", 2**53),
        ("schema_version", 3),
        ("surprise", 1),
        ("scores", {"top1": {"value": "high"}}),
        ("trust", "believed"),
        ("id", "xyz"),
        ("code_version", ""),
        ("recipe", [1]),
        ("backbone", {}),
    ],
)
def test_what_the_reader_refuses_by_itself_the_schema_refuses(takes, result, field, value):
    assert not takes("result", json.loads(result().to_json()) | {field: value})


def test_a_figure_is_taken(takes, figures):
    said = json.loads(figures[0].model_dump_json())
    assert takes("figure", said)
    assert not takes("figure", said | {"value": None})
