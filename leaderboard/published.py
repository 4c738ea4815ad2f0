"""A figure of somebody else's table: shown with its source, ranked among its own kind, never beside runs."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from ..backbones.reading import digest
from .result import Identity, Name, Record, Sha256, Text, Unit, check_unit

if TYPE_CHECKING:
    from .selection import Column
    from .snapshot import Snapshot

# Whether a figure counts in the ranking of its source's board, is a column without rank, or is no column at all.
Use = Literal["ranked", "shown", "kept"]
TAKEN = (  # what a board calls its own columns, which no data set may be called
    "rank ties backbone rank-interval overall parameters macs borda mean-rank win-rate family method data license "
    "architecture trust source"
)


class Source(Record):
    """Where figures come from: a short `name` that stands for the table, its title, address and licence, and the files
    that it was read from with the sha256 of each."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,59}$")]
    title: Name
    url: Annotated[Text, Field(max_length=500, pattern=r"^(https?://\S+)?$")] = ""
    license: Annotated[Text, Field(max_length=100)] = ""
    files: Annotated[dict[Name, Sha256], Field(min_length=1, max_length=100)]


class Figure(Record):
    """One figure of a published table. `low`, `high`: its interval, where the table gives one. `file`: which of the
    source's files it is from."""

    schema_version: Literal[1] = 1
    backbone: Identity
    task: Name
    family: Name
    dataset: Name
    metric: Name
    unit: Unit
    higher_is_better: bool
    range_low: float
    range_high: float
    value: float
    low: float | None = None
    high: float | None = None
    use: Use = "ranked"
    file: Name
    source: Source

    @model_validator(mode="after")
    def _in_range(self):
        check_unit(self.unit, self.range_low, self.range_high)
        if self.range_low >= self.range_high:
            raise ValueError(f"the range {self.range_low}..{self.range_high} is empty")
        low, high = (self.value if end is None else end for end in (self.low, self.high))
        if not self.range_low <= low <= self.value <= high <= self.range_high:
            raise ValueError(
                f"{self.low}..{self.value}..{self.high} is not in order within {self.range_low}..{self.range_high}"
            )
        if self.file not in self.source.files:
            raise ValueError(f"{self.file} is none of the source's files: {', '.join(self.source.files)}")
        return self

    @property
    def id(self) -> str:
        """16 hex digits of the sha256 of the figure: the same figure of a file and source of that name, the same id."""
        return digest([self.model_dump(mode="json", exclude={"source"}), self.source.name])[:16]

    @property
    def column(self) -> tuple[str, str, str]:
        """Task, data set and metric: what the figures of one column share."""
        return self.task, self.dataset, self.metric


def published_columns(snapshot: "Snapshot", source: str) -> list["Column"]:
    """The columns of a source's board, those that rank first, in order of data sets; `kept` figures have none.

    A column's key is its data set, with the metric, or task and metric, where that would say two things.
    """
    from .selection import Column

    found = {(p.task, p.dataset, p.metric): p for p in snapshot.parsed_protocols if p.source == source}
    shown = sorted((p for p in found.values() if p.use != "kept"), key=lambda p: (p.use, p.dataset, p.task, p.metric))
    ways = [(p.dataset, f"{p.metric}@{p.dataset}", f"{p.task}:{p.metric}@{p.dataset}") for p in shown]
    often = Counter(key for way in ways for key in way)
    return [
        Column(
            key=next((key for key in way if often[key] == 1 and key not in TAKEN.split()), way[-1]),
            task=p.task,
            dataset=p.dataset,
            recipe={"metric": p.metric},  # as the snapshot has it of figures, of which one data set may have several
            ranked=p.use == "ranked",
            family=p.family,
            metric=p.metric,
            unit=p.unit,
            higher_is_better=p.higher_is_better,
        )
        for p, way in zip(shown, ways, strict=True)
    ]
