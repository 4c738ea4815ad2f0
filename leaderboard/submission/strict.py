"""A stranger's JSON and YAML: strict, bounded in every direction, and without text that could act on a reader."""

import json
import math
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel

from ...backbones.errors import BadInput
from ...backbones.reading import parse_card
from ..portable import LARGEST_WHOLE
from ..result import _once, _refuse
from .archive import shown

DEPTH = 20  # of lists and objects within each other
LONGEST = 4000  # characters of a text
KEY = 200  # characters of a key
MARKUP = "<>"  # no record needs them, and every page, mail and log that shows one is safe without

Model = TypeVar("Model", bound=BaseModel)


def read_json(data: bytes, where: str) -> dict[str, Any]:
    """The object in a JSON text. Raises BadInput, one line with the path of the field."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse)
    except RecursionError:
        raise BadInput(f"{where}: $: lists and objects lie more than {DEPTH} deep within each other") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise BadInput(f"{where}: $: not valid JSON: {shown(error, 160)}") from None
    if not isinstance(value, dict):
        raise BadInput(f"{where}: $: this is {type(value).__name__}, an object is needed")
    check_plain(value, where)
    return value


def read_yaml(data: bytes, model: type[Model], where: str) -> Model:
    """A card as a `model`. Raises BadInput, one line with line and key."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{where}: $: not UTF-8: {error}") from None
    card = printable(parse_card, text, model, where)
    check_plain(card.model_dump(mode="json", by_alias=True), where)
    return card


def printable(call: Any, *args: Any) -> Any:
    """Whatever `call` gives; an error that quotes a stranger's text stays one line that a terminal may show."""
    try:
        return call(*args)
    except BadInput as error:
        raise BadInput(shown(error, 600)) from None


def check_plain(value: Any, where: str) -> None:
    """Raises BadInput for what is too deep, too long, too large, not finite, or not plain text."""
    for path, item in _walk(value, "", 0, where):
        if isinstance(item, str):
            _check_text(item, LONGEST, f"{where}: {path}")
        elif isinstance(item, float) and not math.isfinite(item):
            raise BadInput(f"{where}: {path}: {item} is not a finite number")
        elif isinstance(item, int) and abs(item) > LARGEST_WHOLE:
            raise BadInput(f"{where}: {path}: the integer is beyond 2^53")


def _walk(value: Any, path: str, depth: int, where: str) -> Iterator[tuple[str, Any]]:
    """Every plain value with its path."""
    if depth > DEPTH:
        raise BadInput(f"{where}: {shown(path)}: lists and objects lie more than {DEPTH} deep within each other")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_text(str(key), KEY, f"{where}: {path or '$'}: key")
            yield from _walk(item, f"{path}.{key}" if path else str(key), depth + 1, where)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _walk(item, f"{path}.{index}", depth + 1, where)
    else:
        yield path, value


def _check_text(text: str, most: int, where: str) -> None:
    where = shown(where, 300)
    if len(text) > most:
        raise BadInput(f"{where}: {len(text)} characters, at most {most} are read")
    if not text.isprintable():
        raise BadInput(f"{where}: {shown(text)!r} holds characters that do not print (line ends, controls)")
    if any(sign in text for sign in MARKUP):
        raise BadInput(f"{where}: {shown(text)!r} holds markup (< or >); say it in plain words")
