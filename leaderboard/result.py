"""The result of one cell: everything needed to read its scores, doubt them and run them again, as strict JSON."""

import json
from datetime import UTC, datetime, timedelta
from operator import not_
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    field_validator,
    model_validator,
)
from pydantic_core import to_jsonable_python

from ..backbones.errors import BadInput
from ..backbones.reading import Strict, digest, validate
from .cells import TIMED
from .portable import LARGEST_WHOLE, portable, printable

SCHEMA = 2  # of new records. 2: `backbone.macs`. What is older is read as it was written, its id included
LARGEST = 4 << 20  # bytes of a record; one with a score for each of a thousand labels takes a twentieth of it

Text = Annotated[str, Field(max_length=1000), AfterValidator(printable)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(printable)]
Unit = Annotated[str, Field(max_length=40), AfterValidator(printable)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=LARGEST_WHOLE)]
Json = Annotated[dict[str, JsonValue], BeforeValidator(portable)]
# How a figure was checked: not yet, predictions scored anew, cell run anew (the same, or not); or nobody here can.
Trust = Literal["reported", "rescored", "reproduced", "contested", "published"]

ROUNDING = 1e-9  # of a score's range: how far floating point may push a perfect score past the end of it


def _unknown(value: object) -> bool:
    return value is None


class Record(Strict):
    """A part of the record: no unknown keys, no coerced types, no NaN or infinity, never changed."""

    model_config = ConfigDict(strict=True)


class Score(Record):
    """A value with its 95 % interval, in `unit` (percent counts 0..100), within the metric's own range."""

    value: float
    low: float
    high: float
    unit: Unit
    range_low: float
    range_high: float
    higher_is_better: bool

    @model_validator(mode="after")
    def _ordered(self):
        slack = ROUNDING * (self.range_high - self.range_low)
        if self.range_low >= self.range_high:
            raise ValueError(f"the range {self.range_low}..{self.range_high} is empty")
        check_unit(self.unit, self.range_low, self.range_high)
        if not self.low <= self.value <= self.high:
            raise ValueError(f"the value {self.value} lies outside its interval {self.low}..{self.high}")
        if self.low < self.range_low - slack or self.high > self.range_high + slack:
            raise ValueError(f"{self.low}..{self.high} leaves the metric's range {self.range_low}..{self.range_high}")
        return self


class Identity(Record):
    """Which network it was, as far as anybody says: its card's facts, number of parameters, multiply-accumulates."""

    name: Name
    card: Json
    parameters: Count | None = None
    macs: Count | None = Field(default=None, exclude_if=_unknown)

    def fact(self, key: str) -> str | None:
        """What the card says of `key`: family, model, license, or the pretraining's method or data."""
        pretraining = self.card.get("pretraining")
        inner = pretraining.get(key) if key in ("method", "data") and isinstance(pretraining, dict) else None
        found = inner if key in ("method", "data") else self.card.get(key)
        return None if found in (None, "") else str(found)


class BackboneFacts(Identity):
    """Which network was run: digests of its card's identity and of the loaded weights, size, transform.

    `macs`: of one image, where somebody counted them. `loading`: options that are not the usual ones (precision, …); a
    record says nothing of what is unknown or usual.
    """

    parameters: Count  # pyright: ignore[reportGeneralTypeIssues]  # of what was run it is known
    card_digest: Sha256
    weights_digest: Sha256
    embed_dim: Annotated[int, Field(ge=1, le=LARGEST_WHOLE)]
    transform: Json
    loading: dict[Literal["precision", "channels_last", "compile", "decoder"], Name | bool] = Field(
        default={}, exclude_if=not_
    )


class TaskFacts(Record):
    """Which protocol it was; `headline` is the score that ranks."""

    name: Name
    family: Name
    version: Annotated[int, Field(ge=1, le=LARGEST_WHOLE)]
    headline: Name


class DatasetFacts(Record):
    """Which data it was: fingerprint and size of every split used; `limit` is the cap on examples a split."""

    name: Name
    kind: Name
    fingerprints: dict[Name, Name]
    sizes: dict[Name, Count]
    limit: Annotated[int, Field(ge=1, le=LARGEST_WHOLE)] | None


class Cost(Record):
    """What it took: wall-clock seconds, images pushed through the network, peak memory in MB, on which device."""

    seconds: Annotated[float, Field(ge=0)]
    images: Count
    peak_memory_mb: Annotated[float, Field(ge=0)]
    device: Name


class PredictionsFile(Record):
    """Where the predictions are, relative to the home folder, with the digest of the file and its number of rows."""

    path: Name
    sha256: Sha256
    rows: Count

    @field_validator("path")
    @classmethod
    def _inside_home(cls, path):
        # A record may come from a stranger: its path must not lead out of the reader's own home folder.
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or "\\" in path or ":" in path or "\0" in path:
            raise ValueError(f"give a path inside the home folder, such as runs/a/predictions.parquet, got {path!r}")
        return path


class Content(Record):
    """What a result says; its digest is the result's id."""

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA)] = SCHEMA
    cell_id: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    backbone: BackboneFacts
    task: TaskFacts
    dataset: DatasetFacts
    recipe: Json
    seed: Count
    chosen: Json
    scores: dict[Name, Score]
    cost: Cost
    environment: dict[Name, Text]
    code_version: Name
    predictions: PredictionsFile

    @model_validator(mode="before")
    @classmethod
    def _not_of_the_future(cls, data):
        version = data.get("schema_version") if isinstance(data, dict) else None
        if type(version) is int and version > SCHEMA:
            made = f"made by a newer backbench (schema {version}, this one reads up to {SCHEMA})"
            raise ValueError(f"{made}; upgrade: pip install --upgrade backbench")
        return data

    @model_validator(mode="after")
    def _holds_together(self):
        if self.task.headline not in self.scores:
            known = ", ".join(self.scores)[:200]
            raise ValueError(f"the headline {self.task.headline!r} is not among the scores: {known}")
        if self.schema_version == 1 and self.backbone.macs is not None:
            raise ValueError("a record of schema_version 1 has no backbone.macs")
        return self


class Result(Content):
    """One finished cell. `id`: 16 hex digits of the sha256 of its content; `trust`: who has checked it so far."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    trust: Trust
    created: Annotated[AwareDatetime, Field(strict=False)]

    @field_validator("created")
    @classmethod
    def _in_utc(cls, created):
        if created.utcoffset() != timedelta(0):
            raise ValueError(f"times are in UTC, as in 2026-01-31T12:00:00Z, got {created.isoformat()}")
        return created

    @model_validator(mode="after")
    def _id_is_digest(self):
        expected = content_id(self)
        if self.id != expected:
            raise ValueError(f"the id {self.id} is not the digest of the content, {expected}: this record was changed")
        return self

    @classmethod
    def of(cls, *, trust: Trust = "reported", created: datetime | None = None, **content: Any) -> "Result":
        """A result with its id. `content`: the fields of `Content`, as JSON or as models. Raises BadInput."""
        try:
            plain = to_jsonable_python(content, inf_nan_mode="constants")
        except (ValueError, RecursionError) as error:
            raise BadInput(f"result: cannot be written as JSON: {error}") from None
        checked = validate(plain, Content, where="result")
        stamp = {"id": content_id(checked), "trust": trust, "created": created or datetime.now(UTC)}
        return cls(**checked.model_dump(), **stamp)

    @property
    def headline(self) -> Score:
        """The score that ranks."""
        return self.scores[self.task.headline]

    @property
    def protocol(self) -> str:
        """Digest of task, version, recipe and data, and of the device where it is what is timed: only results with the
        same one may be compared."""
        data = self.dataset.model_dump(exclude={"kind", "sizes"})
        device = [self.cost.device] if self.task.family == TIMED else []
        return digest([self.task.name, self.task.version, self.recipe, data, *device])

    def to_json(self) -> str:
        """One line of JSON; `from_json` gives back an equal result."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "result") -> "Result":
        """The result in a JSON text. Raises BadInput, one line, naming `where` and the path of the field."""
        if len(text) > LARGEST:
            raise BadInput(f"{where}: a result is some kilobytes of JSON, this is over {LARGEST >> 20} MiB")
        try:
            data = json.loads(text, parse_constant=_refuse, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{where}: not valid JSON: {error}") from None
        if not isinstance(data, dict):
            raise BadInput(f"{where}: a result is a JSON object, this is {type(data).__name__}")
        return validate(data, cls, where)


def content_id(result: Content) -> str:
    """16 hex digits of the sha256 of a result's content: the same content, the same id."""
    return digest(result.model_dump(mode="json", include=set(Content.model_fields)))[:16]


def check_unit(unit: str, low: float, high: float) -> None:
    """Raises ValueError where a range is none of its unit: percent counts to 100, and a share is not a percentage."""
    if unit == "%" and not -100 <= low < high <= 100:
        raise ValueError(f"percent lies within 0..100 (a difference within -100..100), not {low}..{high}")
    if unit == "%" and low >= -1 and high <= 1:
        raise ValueError(f"{low}..{high} is the range of a share; in percent it is 0..100")


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of a key given twice one reader takes the first value and another the last: they would read two records.
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"key {twice[:80]!r} is given twice")
    return found
