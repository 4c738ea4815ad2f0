"""What goes wrong in a way a person can mend: one line, no traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class BadInput(ValueError):
    """Something a person gave is wrong; the message says what, where, and how to mend it (exit code 2)."""


class Unavailable(RuntimeError):
    """Something needed is not here (weights, a package, a device); the message names the fix."""


class NotApplicable(RuntimeError):
    """A backbone lacks what a task needs (say, a text tower): a fact about the pair, not a failure."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A closing hint such as `; did you mean 'knn'?`, or an empty string when nothing is near."""
    known = list(known)
    # Typing 'resnet' should also find 'timm/resnet18': match on the last part of a name as well.
    tails = {k.rsplit("/", 1)[-1]: k for k in known}
    near = get_close_matches(name, known, n=3, cutoff=0.6)
    near += [
        tails[t] for t in get_close_matches(name.rsplit("/", 1)[-1], tails, n=3, cutoff=0.7) if tails[t] not in near
    ]
    return f"; did you mean {' or '.join(repr(n) for n in near[:3])}?" if near else ""


def unknown(kind: str, name: str, known: Iterable[str], where: str = "") -> BadInput:
    """The error for a name that is not there, with the nearest ones that are."""
    known = sorted(known)
    hint = did_you_mean(name, known)
    if not hint:
        listing = f"`backbench list {kind}s`" if kind in ("backbone", "task", "dataset", "suite") else ", ".join(known)
        hint = f"; see {listing}" if kind in ("backbone", "task", "dataset", "suite") else f"; known: {listing}"
    return BadInput(f"{where + ': ' if where else ''}there is no {kind} {name!r}{hint}")
