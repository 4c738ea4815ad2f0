"""JSON Schema (draft 2020-12) of what is exchanged: deterministic, made from the models that read it."""

from importlib import import_module
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from ..backbones.errors import unknown

KINDS = {  # kind → where its model is; a bundle's manifest says what else is in the bundle
    "result": ".result:Result",
    "figure": ".published:Figure",
    "board": ".export.data:BoardData",
    "bundle": ".submission.bundle:Manifest",
}


def json_schema(kind: str) -> dict[str, Any]:
    """The schema of a `kind` of KINDS. Raises BadInput for another.

    It says what a value may be by itself. That a score lies within its interval, or that an id is the digest of its
    record, no JSON Schema can say: for that there is `Result.from_json`.
    """
    if kind not in KINDS:
        raise unknown("schema", kind, KINDS)
    module, _, name = KINDS[kind].partition(":")
    model = getattr(import_module(module, __package__), name)
    dialect, id = GenerateJsonSchema.schema_dialect, f"urn:backbench:{kind}"
    return {"$schema": dialect, "$id": id, **TypeAdapter(model).json_schema(mode="validation")}
