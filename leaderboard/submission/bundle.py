"""The bundle, format 1: cards, results, predictions and environment of one backbone, listed in a signed manifest.

manifest.json              who, what, the sha256 of every other file, and the submitter's signature over all that
backbone.yaml              the card; no code and, unless asked for, no weights
datasets/<name>.yaml       the card of each data set that does not come with backbench
results/<id>.json          one record a cell
predictions/<id>.parquet   what it was scored from; absent only where the manifest says why
environment.json           versions of the libraries of the machine that wrote the bundle
weights/<file>.safetensors only with `--with-weights`
"""

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import AwareDatetime, Field, field_validator

from ...backbones.card import file_digest
from ..result import Record, Result, Sha256
from .signing import public, sign

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from ...backbones import BackboneCard
    from ...tasks.datasets import DatasetCard

FORMAT = 1
MANIFEST, CARD, ENVIRONMENT = "manifest.json", "backbone.yaml", "environment.json"
# Letters, digits and the signs that names of models have; no quotes, semicolons, dollars or brackets of markup.
PlainName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[\w][\w.@+:/ ()=,~-]*$")]
ResultId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Reason = Annotated[str, Field(min_length=1, max_length=300)]


class Listed(Record):
    """One file of the bundle: its sha256 and its size in bytes."""

    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]


class Statement(Record):
    """What a manifest says; its digest names the submission. `unverified`: why a result comes without predictions."""

    format: Literal[1]
    backbone: PlainName
    suite: PlainName
    created: Annotated[AwareDatetime, Field(strict=False)]
    code_version: Annotated[str, Field(min_length=1, max_length=60)]
    files: dict[str, Listed]
    unverified: dict[ResultId, Reason] = Field(default={})
    submitter: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="the submitter's public Ed25519 key")]

    @field_validator("created")
    @classmethod
    def _in_utc(cls, created):
        if created.utcoffset() != timedelta(0):
            raise ValueError(f"times are in UTC, as in 2026-01-31T12:00:00Z, got {created.isoformat()}")
        return created

    @property
    def signed_bytes(self) -> bytes:
        """The bytes that are signed: JSON with sorted keys and without spaces."""
        said = self.model_dump(mode="json", include=set(Statement.model_fields))
        return json.dumps(said, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    @property
    def digest(self) -> str:
        """sha256 of what is signed: the same statement is the same submission, whoever sends it again."""
        return hashlib.sha256(self.signed_bytes).hexdigest()


class Manifest(Statement):
    """The statement with its signature."""

    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$", description="Ed25519, by `submitter`")]

    @classmethod
    def of(cls, key: "Ed25519PrivateKey", **said: Any) -> "Manifest":
        """The signed manifest of a statement."""
        statement = Statement(submitter=public(key), **said)
        return cls(**statement.model_dump(), signature=sign(key, statement.signed_bytes))


def pack(
    target: Path,
    card: "BackboneCard",
    suite: str,
    results: Iterable[Result],
    predictions: Callable[[Result], Path | None],
    datasets: Iterable["DatasetCard"],
    environment: Mapping[str, str],
    key: "Ed25519PrivateKey",
    code_version: str,
    weights: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Manifest:
    """Write a bundle to the folder `target`, whole or not at all; what was there is replaced.

    `predictions` gives the file of a result; where there is none, the manifest says so.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        for folder in ("results", "predictions"):
            (part / folder).mkdir(parents=True)
        _write_yaml(part / CARD, card.public())
        _write_json(part / ENVIRONMENT, dict(environment))
        for data in datasets:
            (part / "datasets").mkdir(exist_ok=True)
            _write_yaml(part / "datasets" / f"{data.name}.yaml", public_dataset(data))
        if weights:
            (part / "weights").mkdir()
            shutil.copyfile(weights, part / "weights" / weights.name)
        unverified, listed = {}, list(results)
        for done, result in enumerate(listed):
            progress(done, len(listed))
            (part / "results" / f"{result.id}.json").write_text(result.to_json(), encoding="utf-8")
            if found := predictions(result):
                shutil.copyfile(found, part / "predictions" / f"{result.id}.parquet")
            else:
                unverified[result.id] = "its predictions are not kept any more"
        said = {"suite": suite, "created": datetime.now(UTC), "code_version": code_version, "unverified": unverified}
        manifest = Manifest.of(key, format=FORMAT, backbone=card.name, files=listing(part), **said)
        (part / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def listing(folder: Path) -> dict[str, Listed]:
    """Every file of a bundle but its manifest, by name, with digest and size."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {
        path.relative_to(folder).as_posix(): Listed(sha256=file_digest(path), bytes=path.stat().st_size)
        for path in paths
    }


def public_dataset(card: "DatasetCard") -> dict[str, Any]:
    """A data set's card as JSON for others to read: where files lie on this machine is left out."""
    said = card.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {"name": card.name} | {key: value for key, value in said.items() if key not in ("name", "path")}


def zipped(folder: Path, target: Path) -> Path:
    """The bundle as one zip file: the same bundle, the same bytes. What is compressed already is only stored."""
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(name)  # of 1980, with no trace of who packed it
            stored = name.endswith((".parquet", ".safetensors"))
            entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            with (folder / name).open("rb") as source, archive.open(entry, "w", force_zip64=False) as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    return target


def _write_yaml(path: Path, value: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True), encoding="utf-8")
