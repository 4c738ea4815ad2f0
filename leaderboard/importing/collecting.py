"""What a file brings: the figures of its cells, each backbone's once a measure."""

from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal

from ...backbones.reading import validate
from ..published import Figure, Source, Use
from ..result import Identity
from .reading import Line, Table


@dataclass(frozen=True)
class Measure:
    """What a column's cells are: a metric of a task on a data set, and how its board uses it.

    `scale`: what a cell is multiplied by to be in `unit`: 100 where the table has shares and we have percent.
    """

    task: str
    family: str
    dataset: str
    metric: str
    use: Use = "ranked"
    unit: str = "%"
    low: float = 0.0
    high: float = 100.0
    higher_is_better: bool = True
    scale: int = 1


@dataclass(frozen=True)
class About:
    """A source in words; None is what nobody said."""

    name: str | None = None
    title: str | None = None
    url: str | None = None
    license: str | None = None

    def over(self, default: "About") -> "About":
        """These words, and `default`'s where there are none."""
        return replace(default, **{key: word for key, word in asdict(self).items() if word is not None})


@dataclass(frozen=True)
class Given:
    """The figures of one file; `ignored`: columns that hold none, `notes`: what a person should know of the reading."""

    file: str
    source: Source
    rows: int
    figures: list[Figure]
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class Collector:
    """Takes figures out of a table's cells."""

    table: Table
    source: Source
    _found: dict[tuple[str, Measure], tuple[Figure, int]] = field(default_factory=dict)

    def take(self, line: Line, column: str, backbone: Identity, measure: Measure) -> None:
        """The figure of a cell, if it has one. Raises BadInput, also where the backbone has another one already."""
        low, high = (end / measure.scale for end in (measure.low, measure.high))
        cell = line.figure(column, low, high)
        if cell is None:
            return
        value = float(cell * Decimal(measure.scale))  # in decimals: 0.8437 is 84.37 %, and no hair more
        key = backbone.name, measure
        if key in self._found:
            other, number = self._found[key]
            if other.value != value:
                raise line.error(
                    column, f"{backbone.name} has {value:g} here and {other.value:g} in line {number}; which is it?"
                )
            return
        figure = Figure(
            backbone=backbone,
            task=measure.task,
            family=measure.family,
            dataset=measure.dataset,
            metric=measure.metric,
            unit=measure.unit,
            higher_is_better=measure.higher_is_better,
            range_low=float(measure.low),
            range_high=float(measure.high),
            value=value,
            use=measure.use,
            file=self.table.path.name,
            source=self.source,
        )
        self._found[key] = figure, line.number

    def given(self, ignored: tuple[str, ...] = (), notes: tuple[str, ...] = ()) -> Given:
        """All that was taken."""
        return Given(
            self.table.path.name,
            self.source,
            len(self.table.lines),
            [f for f, _ in self._found.values()],
            ignored,
            notes,
        )


def source_of(table: Table, about: About) -> Source:
    """Where a table's figures come from. Raises BadInput for a name or an address that is none."""
    said = {"name": about.name, "title": about.title or about.name, "url": about.url, "license": about.license}
    said = {key: value for key, value in said.items() if value is not None}
    return validate(said | {"files": {table.path.name: table.sha256}}, Source, where="source")
