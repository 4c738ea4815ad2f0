"""The result of one cell: everything needed to read its scores, doubt them and run them again, as strict JSON."""

import json
from datetime import UTC, datetime, timedelta
from operator import not_
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field, JsonValue, field_validator, model_validator
from pydantic_core import to_jsonable_python

from ..backbones.errors import BadInput
from ..backbones.reading import Strict, digest, validate

Name = Annotated[str, Field(min_length=1, max_length=200)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Trust = Literal["reported", "rescored", "reproduced", "published"]

ROUNDING = 1e-9  # of a score's range: how far floating point may push a perfect score past the end of it


class Record(Strict):
    """A part of the record: no unknown keys, no coerced types, no NaN or infinity, never changed."""

    model_config = ConfigDict(strict=True)


class Score(Record):
    """A value with its 95 % interval, in `unit` (percent counts 0..100), within the metric's own range."""

    value: float
    low: float
    high: float
    unit: str
    range_low: float
    range_high: float
    higher_is_better: bool

    @model_validator(mode="after")
    def _ordered(self):
        slack = ROUNDING * (self.range_high - self.range_low)
        if self.range_low >= self.range_high:
            raise ValueError(f"the range {self.range_low}..{self.range_high} is empty")
        if not self.low <= self.value <= self.high:
            raise ValueError(f"the value {self.value} lies outside its interval {self.low}..{self.high}")
        if self.low < self.range_low - slack or self.high > self.range_high + slack:
            raise ValueError(f"{self.low}..{self.high} leaves the metric's range {self.range_low}..{self.range_high}")
        return self


class BackboneFacts(Record):
    """Which network it was: its card, digests of the card's identity and of the loaded weights, size, transform.

    `loading`: options that are not the usual ones (precision, …); a record without any says nothing of them.
    """

    name: Name
    card: dict[str, JsonValue]
    card_digest: Sha256
    weights_digest: Sha256
    parameters: Count
    embed_dim: Annotated[int, Field(ge=1)]
    transform: dict[str, JsonValue]
    loading: dict[Literal["precision", "channels_last", "compile", "decoder"], str | bool] = Field(
        default={}, exclude_if=not_
    )


class TaskFacts(Record):
    """Which protocol it was; `headline` is the score that ranks."""

    name: Name
    family: Name
    version: Annotated[int, Field(ge=1)]
    headline: Name


class DatasetFacts(Record):
    """Which data it was: fingerprint and size of every split used; `limit` is the cap on examples a split."""

    name: Name
    kind: Name
    fingerprints: dict[str, str]
    sizes: dict[str, Count]
    limit: Annotated[int, Field(ge=1)] | None


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

    schema_version: Literal[1] = 1
    cell_id: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    backbone: BackboneFacts
    task: TaskFacts
    dataset: DatasetFacts
    recipe: dict[str, JsonValue]
    seed: Count
    chosen: dict[str, JsonValue]
    scores: dict[Name, Score]
    cost: Cost
    environment: dict[str, str]
    code_version: str
    predictions: PredictionsFile

    @model_validator(mode="after")
    def _headline_is_there(self):
        if self.task.headline not in self.scores:
            raise ValueError(f"the headline {self.task.headline!r} is not among the scores: {', '.join(self.scores)}")
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
        checked = validate(to_jsonable_python(content, inf_nan_mode="constants"), Content, where="result")
        stamp = {"id": content_id(checked), "trust": trust, "created": created or datetime.now(UTC)}
        return cls(**checked.model_dump(), **stamp)

    @property
    def headline(self) -> Score:
        """The score that ranks."""
        return self.scores[self.task.headline]

    @property
    def protocol(self) -> str:
        """Digest of task, version, recipe and data: only results with the same one may be compared."""
        data = self.dataset.model_dump(exclude={"kind", "sizes"})
        return digest([self.task.name, self.task.version, self.recipe, data])

    def to_json(self) -> str:
        """One line of JSON; `from_json` gives back an equal result."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "result") -> "Result":
        """The result in a JSON text. Raises BadInput, one line, naming `where` and the path of the field."""
        try:
            data = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{where}: not valid JSON: {error}") from None
        if not isinstance(data, dict):
            raise BadInput(f"{where}: a result is a JSON object, this is {type(data).__name__}")
        return validate(data, cls, where)


def content_id(result: Content) -> str:
    """16 hex digits of the sha256 of a result's content: the same content, the same id."""
    return digest(result.model_dump(mode="json", include=set(Content.model_fields)))[:16]


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a number")
