"""The board: one row a backbone, one column a score, ranked where rows can be compared."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import hypot

import numpy as np

from ..backbones.errors import unknown
from . import ranking
from .result import BackboneFacts, Result
from .selection import Column, comparable, owner

FAMILIES = ("classification", "detection", "segmentation", "ood", "retrieval")  # the order in which they are shown
DRAWS = 1000  # of all scores from their intervals, for the intervals of ranks


@dataclass(frozen=True)
class Cell:
    """A backbone's score in a column: mean over seeds, 95 % interval, z-score (None when nothing is ranked).

    `results`: the ids behind it, a seed each. `low_end`, `high_end`: the range of the metric.
    """

    value: float
    low: float
    high: float
    low_end: float
    high_end: float
    results: tuple[str, ...]
    z: float | None = None

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Standing:
    """Where a ranked row stands; `low`, `high` bound a 95 % interval, `ties` the letters of its tied groups."""

    rank: int
    rank_low: int
    rank_high: int
    ties: tuple[str, ...]
    overall: float
    overall_low: float
    overall_high: float
    families: dict[str, float]
    borda: float
    mean_rank: float


@dataclass(frozen=True)
class Row:
    """A backbone. `standing` is None, and `missing` names what keeps it out, when a ranked column has no score."""

    facts: BackboneFacts
    cells: dict[str, Cell]
    standing: Standing | None
    missing: tuple[str, ...]

    @property
    def backbone(self) -> str:
        """The backbone's name."""
        return self.facts.name


@dataclass(frozen=True)
class Board:
    """Ranked rows, best first, then rows that are incomplete. Build one with `Board.of`.

    `results`: all that it was made from; `left_out`: id of one that matches a column but is not shown, and why.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    left_out: dict[str, str]
    results: tuple[Result, ...]

    @classmethod
    def of(cls, results: Iterable[Result], columns: Sequence[Column], title: str = "", seed: int = 0) -> "Board":
        """The board of `results` over `columns`; those that belong to no column are passed over.

        Only rows complete over the ranked columns rank, and z-scores are over these rows; `seed` is of the resampling.
        """
        order = [*FAMILIES, *sorted({c.family for c in columns} - set(FAMILIES))]
        columns = sorted(columns, key=lambda c: order.index(c.family))
        everything = tuple(results)
        shown, left_out = comparable(everything, columns)
        table = _rows(shown, columns)
        ranked = [c for c in columns if c.ranked]
        # Rows stand in order of name here, so that the resampling gives each the same draws whatever order it came in.
        complete = [r for r in table if ranked and not r.missing]
        rest = [r for r in table if not (ranked and not r.missing)]
        complete = _placed(_with_z(complete, complete, columns), ranked, seed)
        rest = sorted(_with_z(rest, complete, columns), key=lambda r: (len(r.missing), r.backbone))
        return cls(title, tuple(columns), (*complete, *rest), left_out, everything)

    @property
    def families(self) -> tuple[str, ...]:
        """Task families that rank, in order."""
        return tuple(dict.fromkeys(c.family for c in self.columns if c.ranked))

    @property
    def shown(self) -> list[Result]:
        """The results behind the cells of the board, by id."""
        ids = {id for row in self.rows for cell in row.cells.values() for id in cell.results}
        return sorted((r for r in self.results if r.id in ids), key=lambda r: r.id)

    def twins(self, row: Row) -> list[str]:
        """Names of the other rows whose weights are the same, tensor for tensor, as this row's."""
        same = row.facts.weights_digest
        return [r.backbone for r in self.rows if r.facts.weights_digest == same and r.backbone != row.backbone]

    def only(self, family: str) -> "Board":
        """The board of one task family: its columns alone, ranked anew. Raises BadInput for an unknown one."""
        columns = [c for c in self.columns if c.family == family]
        if not columns:
            raise unknown("family", family, {c.family for c in self.columns})
        return Board.of(self.results, columns, self.title)


def _rows(results: Sequence[Result], columns: Sequence[Column]) -> list[Row]:
    by_backbone = defaultdict(list)
    for r in results:
        by_backbone[r.backbone.name].append((r, owner(r, columns)))
    rows = []
    for _, own in sorted(by_backbone.items()):
        cells = {}
        for c in columns:
            runs = [r for r, key in own if key == c.key and c.metric in r.scores]
            if runs:
                cells[c.key] = _averaged(sorted(runs, key=lambda r: r.seed), c.metric)
        missing = tuple(c.key for c in columns if c.ranked and c.key not in cells)
        rows.append(Row(own[-1][0].backbone, cells, None, missing))
    return rows


def _averaged(runs: Sequence[Result], metric: str) -> Cell:
    """Mean over seeds. Its interval: the mean bootstrap half-width, added in squares to the t-interval of the mean over
    seeds. All seeds share the test examples, so more seeds narrow the second part and not the first."""
    scores = [r.scores[metric] for r in runs]
    ends = scores[0].range_low, scores[0].range_high
    ids = tuple(r.id for r in runs)
    if len(scores) == 1:
        return Cell(scores[0].value, scores[0].low, scores[0].high, *ends, ids)
    from scipy.special import stdtrit

    values = np.array([s.value for s in scores])
    value = float(values.mean())
    between = float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values)))
    low = value - hypot(np.mean([s.value - s.low for s in scores]), between)
    high = value + hypot(np.mean([s.high - s.value for s in scores]), between)
    return Cell(value, max(low, min(value, ends[0])), min(high, max(value, ends[1])), *ends, ids)


def _oriented(rows: Sequence[Row], columns: Sequence[Column]) -> np.ndarray:
    """(3, n, m): value, low and high, turned so that higher is better (a turned interval swaps its ends)."""
    table = np.empty((3, len(rows), len(columns)))
    for i, row in enumerate(rows):
        for j, c in enumerate(columns):
            cell = row.cells[c.key]
            up = (cell.value, cell.low, cell.high)
            table[:, i, j] = up if c.higher_is_better else (-cell.value, -cell.high, -cell.low)
    return table


def _with_z(rows: Sequence[Row], reference: Sequence[Row], columns: Sequence[Column]) -> list[Row]:
    """The rows with a z-score in every cell, against those of the `reference` rows that have one."""
    scales = {}
    for c in columns:
        known = [r for r in reference if c.key in r.cells]
        if known:
            mean, spread = ranking.centre(_oriented(known, [c])[0])
            scales[c.key] = mean, spread, 1 if c.higher_is_better else -1

    def z(key: str, cell: Cell) -> Cell:
        mean, spread, sign = scales[key]
        return replace(cell, z=float(ranking.standardise(np.array([[sign * cell.value]]), mean, spread)[0, 0]))

    return [replace(r, cells={k: z(k, c) if k in scales else c for k, c in r.cells.items()}) for r in rows]


def _placed(rows: Sequence[Row], columns: Sequence[Column], seed: int) -> list[Row]:
    """Complete rows with their standing, best first."""
    if not rows:
        return []
    families = [c.family for c in columns]
    scores, low, high = _oriented(rows, columns)
    overall = ranking.overall(scores, families)
    by_family = ranking.family_means(ranking.z_scores(scores), families)
    drawn = ranking.overall(ranking.resample(scores, low, high, DRAWS, seed), families)
    place, borda, mean_rank = ranking.ranks(overall), ranking.borda(scores), ranking.mean_ranks(scores, families)
    place_low, place_high = ranking.interval(ranking.ranks(drawn), place, whole=True)
    overall_low, overall_high = ranking.interval(drawn, overall)
    order = np.lexsort((np.arange(len(rows)), place))
    same = ranking.tied(drawn[:, order])
    marks = ranking.tie_marks(ranking.tie_groups(same), len(rows))
    return [
        replace(
            rows[i],
            standing=Standing(
                rank=int(place[i]),
                rank_low=int(place_low[i]),
                rank_high=int(place_high[i]),
                ties=mark,
                overall=float(overall[i]),
                overall_low=float(overall_low[i]),
                overall_high=float(overall_high[i]),
                families={family: float(z[i]) for family, z in by_family.items()},
                borda=float(borda[i]),
                mean_rank=float(mean_rank[i]),
            ),
        )
        for i, mark in zip(order, marks, strict=True)
    ]
