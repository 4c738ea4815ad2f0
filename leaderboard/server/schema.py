"""The shapes of what the API answers, as its OpenAPI description has them."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from ..export.data import BoardData
from ..result import Result, Trust
from .ledger import State

ID = r"^[0-9a-f]{16}$"
START = r"^[0-9a-f]{4,16}$"


class Health(BaseModel):
    """`status`: ok, or behind where the newest revision cannot be served; `page`: the revision of the page at /."""

    status: Literal["ok", "behind"]
    version: str
    revision: int
    page: int | None
    results: int
    waiting: int = Field(description="submissions that are not decided yet")


class BoardSummary(BaseModel):
    """A board there is; `suite` or `source` is what `/ranking` and `/compare` ask for, both null for all runs."""

    suite: str | None
    source: str | None
    title: str
    rows: int
    ranked: int
    families: list[str]
    columns: list[str]


class Boards(BaseModel):
    """All boards."""

    revision: int
    boards: list[BoardSummary]


class ResultSummary(BaseModel):
    """A result's headline score; `/results/{id}` has all of it."""

    id: str
    backbone: str
    task: str
    family: str
    dataset: str
    metric: str
    unit: str
    value: float
    low: float
    high: float
    seed: int
    trust: Trust


class Results(BaseModel):
    """A page of the results that fit: the newest first, `total` in all."""

    revision: int
    total: int
    offset: int
    results: list[ResultSummary]


class Event(BaseModel):
    """Something that was done: when (UTC), by whom, what, to what, and what there is to say about it."""

    at: str
    by: str
    action: str
    subject: str
    detail: dict[str, Any]


class WholeResult(BaseModel):
    """A result with its history; `withdrawn`: the reason, if it was."""

    result: Result
    withdrawn: str | None
    history: list[Event]


class Ranking(BaseModel):
    """A board, ranked."""

    revision: int
    board: BoardData


class Comparison(BaseModel):
    """Paired differences from stored predictions, as `backbench compare --format json` has them."""

    revision: int
    comparison: Any


class SubmissionState(BaseModel):
    """A bundle that was handed in. `detail`: its size and digest, then the receipt, or `findings`, one line each."""

    id: str
    received: str
    by: str
    backbone: str = Field(description="empty until it is known")
    suite: str
    state: State
    detail: dict[str, Any]


class Submissions(BaseModel):
    """A page of submissions, the newest first, `total` in all."""

    total: int
    offset: int
    submissions: list[SubmissionState]


class Reason(BaseModel):
    """Why something is done; it is kept and shown."""

    reason: str = Field(min_length=3, max_length=500)


class Check(BaseModel):
    """A result that was drawn to be run again, and what came of it."""

    id: int
    result_id: str
    submission_id: str | None
    state: str
    queued: str
    finished: str | None
    detail: dict[str, Any]


class Outcome(BaseModel):
    """What came of a rerun. `text`: in a line; `rows`: a score each, with what it was `then` and is `now`."""

    outcome: Literal["reproduced", "contested", "failed"]
    text: str = Field(min_length=3, max_length=1000)
    rows: list[dict[str, str | float | None]] = Field(default=[], max_length=200)


class Checks(BaseModel):
    """A page of checks, the oldest first, `total` in all."""

    total: int
    offset: int
    checks: list[Check]


class Log(BaseModel):
    """A page of the audit log, the newest first, `total` in all."""

    total: int
    offset: int
    events: list[Event]
