"""What any reader of JSON takes in as it was written: numbers that it holds, text that it encodes, shallow nesting."""

from math import isfinite
from typing import Any

LARGEST_WHOLE = 2**53 - 1  # RFC 7493 (I-JSON) §2.2: beyond it a reader whose numbers are doubles reads another number
DEEPEST = 32  # lists and mappings within each other
LONGEST = 10_000  # characters of one text
MOST = 10_000  # values in one field


def portable(value: Any) -> Any:
    """The value, of a record's free-form field. Raises ValueError that says where in it, and what is wrong."""
    waiting: list[tuple[Any, int, Any]] = [(value, 0, None)]  # value, depth, and the way to it, from its end
    seen = 0
    while waiting:
        inner, depth, way = waiting.pop()
        if (seen := seen + 1) > MOST:
            raise ValueError(f"holds more than {MOST:,} values")
        if problem := _problem(inner, depth):
            raise ValueError(_told(way) + problem)
        if isinstance(inner, dict):
            for key, item in inner.items():
                if problem := _problem(key, depth):
                    raise ValueError(f"{_told(way)}a key: {problem}")
                waiting.append((item, depth + 1, (f".{key}", way)))
        elif isinstance(inner, list | tuple):
            waiting += [(item, depth + 1, (i, way)) for i, item in enumerate(inner)]
    return value


def printable(text: str) -> str:
    """The text, if all of it can be seen: a name with line breaks, escapes or text-direction marks shows as another."""
    if not text.isprintable():
        bad = next(c for c in text if not c.isprintable())
        raise ValueError(f"holds a character that cannot be printed, U+{ord(bad):04X}; leave it out")
    return text


def _told(way: Any) -> str:
    """`a.b[0]: ` for (0, ('.b', ('.a', None))); nothing for the field itself."""
    path = ""
    while way:
        step, way = way
        path = (step if isinstance(step, str) else f"[{step}]") + path
    return f"{path.removeprefix('.')[:120]}: " if path else ""


def _problem(value: Any, depth: int) -> str:
    if isinstance(value, str):
        if len(value) > LONGEST:
            return f"a text of {len(value):,} characters; {LONGEST:,} are enough"
        return "" if value.isascii() or _encodes(value) else "half a character (a lone surrogate)"
    if isinstance(value, float):
        return "" if isfinite(value) else f"{value} is not a number"
    if isinstance(value, int):
        big = abs(value) > LARGEST_WHOLE
        return "a whole number beyond 2**53, which other readers of JSON would round; write it as text" if big else ""
    if depth >= DEEPEST and isinstance(value, dict | list | tuple):
        return f"nested deeper than {DEEPEST}"
    return ""


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
