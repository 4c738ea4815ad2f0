"""How every card is read: YAML in, a validated model out, errors that name file, line, key and mend."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import BadInput, did_you_mean

LARGEST_CARD = 1 << 20  # bytes; a card is a page of text, anything larger is a mistake or an attack


class Strict(BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=BaseModel)


def read_card(path: Path, model: type[Model]) -> Model:
    """The card in a YAML file. Raises BadInput with `file:line: key: what is wrong; how to mend it`."""
    try:
        if path.stat().st_size > LARGEST_CARD:
            raise BadInput(f"{path}: a card is a short YAML text, this file is over {LARGEST_CARD >> 20} MiB")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; give the path of a card (YAML)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read as text: {error}") from None
    return parse_card(text, model, where=str(path))


def parse_card(text: str, model: type[Model], where: str) -> Model:
    """Like `read_card`, for a text; `where` stands for the file in messages."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _must_be_written_out(node, text)
        lines = _lines(node) if node is not None else {}
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise BadInput(f"{where}{line}: not valid YAML: {problem}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise BadInput(f"{where}: a card is a mapping of `key: value` lines, this is {type(data).__name__}")
    return validate(data, model, where, lines)


def validate(data: dict[str, Any], model: type[Model], where: str, lines: dict[tuple, int] | None = None) -> Model:
    """`data` as a `model`; BadInput names the first thing wrong and how many more there are."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        # A mistyped key is also a missing one: the typo is what a person wants to hear of.
        problems = sorted(error.errors(include_url=False), key=lambda p: p["type"] != "extra_forbidden")
        first = problems[0]
        path = tuple(part for part in first["loc"])
        line = _line_of(path, lines or {})
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        key = "".join(f": {part}" if not i else f".{part}" for i, part in enumerate(path))
        raise BadInput(f"{where}{line}{key}: {_mend(first, model, path)}{more}") from None


def digest(value: Any) -> str:
    """sha256 (hex) of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _mend(problem: Any, model: type[BaseModel], path: tuple) -> str:
    if problem["type"] == "extra_forbidden":
        owner: Any = model
        for part in path[:-1]:
            field = getattr(owner, "model_fields", {}).get(part)
            owner = _inner_model(field.annotation) if field else None
        known = list(getattr(owner, "model_fields", {}))
        return f"unknown key{did_you_mean(str(path[-1]), known) or '; known keys: ' + ', '.join(known)}"
    if problem["type"] == "missing":
        return "this key is required"
    if problem["type"] == "literal_error":
        known = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
        hint = did_you_mean(str(problem["input"]), known)
        return f"{str(problem['input'])[:80]!r} is none of {', '.join(known)}{hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return message
    try:
        return f"{message}, got {repr(problem.get('input'))[:80]}"
    except (RecursionError, ValueError):  # nested too deep, or a number too long, to be shown
        return message


def _inner_model(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in getattr(annotation, "__args__", ()) if (m := _inner_model(a))), None)


def _must_be_written_out(node: yaml.Node | None, text: str) -> None:
    """Aliases of aliases make a page of text into billions of values, which nobody should walk through."""
    waiting, values = [node] if node else [], 0
    while waiting:
        inner = waiting.pop().value
        for item in inner if isinstance(inner, list) else ():
            waiting += item if isinstance(item, tuple) else (item,)
        if (values := values + 1) > 2 * len(text) + 2:
            raise ValueError("it stands for more values than it has letters; write it without aliases (&, *)")


def _lines(node: yaml.Node, path: tuple = ()) -> dict[tuple, int]:
    """Line (from 1) of every key and item, by its path; a key given twice is refused."""
    found = {path: node.start_mark.line + 1}
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                raise ValueError(f"line {key.start_mark.line + 1}: key {key.value!r} is given twice")
            seen.add(key.value)
            found |= _lines(value, (*path, key.value))
            found[(*path, key.value)] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            found |= _lines(value, (*path, index))
    return found


def _line_of(path: tuple, lines: dict[tuple, int]) -> str:
    while path and path not in lines:
        path = path[:-1]
    return f":{lines[path]}" if path in lines else ""
