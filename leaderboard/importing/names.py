"""Who a published row is: what the roster and the name itself tell of family, pretraining and licence."""

from functools import cache
from typing import Any

from pydantic import JsonValue

from ...backbones import roster
from ...backbones.sources.facts import pretraining_of
from ..result import Identity


def known(name: str) -> dict[str, Any] | None:
    """The roster's row of a backbone, by its name; None of one that is not there. No library is imported."""
    return _roster().get(name)


def identity(
    source: str,
    model: str,
    name: str = "",
    parameters: int | None = None,
    macs: int | None = None,
    **more: JsonValue,
) -> Identity:
    """The network that a table calls `model`, a name of the library `source`; `more`: what the table itself says.

    Facts are those that the same name gets from `list backbones`; of a name that the roster lacks, what the words in
    it tell of pretraining.
    """
    row = known(f"{source}/{model}") or {}
    told = None if row else pretraining_of(model)
    method, data = (told.method, told.data) if told else (row.get("method"), row.get("data"))
    name = name or f"{source}/{model}"
    card = {"name": name, "source": source, "model": model, "family": row.get("family")}
    card |= {"pretraining": _said({"method": method, "data": data}), "license": row.get("license"), **more}
    return Identity(name=name, card=_said(card), parameters=parameters, macs=macs)


def _said(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if value not in (None, {})}


@cache
def _roster() -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in roster.rows(libraries=True)}
