"""The board: one row a backbone, one column a score, ranked where rows can be compared."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..backbones.errors import unknown
from . import ranking
from .kept import ranked
from .result import Identity, Result
from .selection import REASONS, Column, Selection, as_snapshot, select
from .snapshot import TRUSTS, Snapshot

# The order in which families of tasks are shown.
FAMILIES = ("classification", "detection", "segmentation", "ood", "retrieval", "human", "analysis", "efficiency")


@dataclass(frozen=True)
class Cell:
    """A backbone's score in a column: mean over seeds, 95 % interval (None of a figure that came without one), z-score
    (None when nothing is ranked), and the trust of its least checked seed.

    `results`: the ids behind it, a seed each. `low_end`, `high_end`: the range of the metric.
    """

    value: float
    low: float | None
    high: float | None
    low_end: float
    high_end: float
    results: tuple[str, ...]
    z: float | None = None
    trust: str = "reported"

    @property
    def half(self) -> float | None:
        """Half the width of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True)
class Standing:
    """Where a ranked row stands; `low`, `high` bound a 95 % interval (None where scores have none), `ties` the letters
    of its tied groups."""

    rank: int
    rank_low: int | None
    rank_high: int | None
    ties: tuple[str, ...]
    overall: float
    overall_low: float | None
    overall_high: float | None
    families: dict[str, float]
    borda: float
    mean_rank: float
    win_rate: float


@dataclass(frozen=True)
class Row:
    """A backbone. `standing` is None, and `missing` names what keeps it out, when a ranked column has no score."""

    facts: Identity
    cells: dict[str, Cell]
    standing: Standing | None
    missing: tuple[str, ...]

    @property
    def backbone(self) -> str:
        """The backbone's name."""
        return self.facts.name

    @property
    def weights_digest(self) -> str | None:
        """sha256 of its weights; None of a published row."""
        return getattr(self.facts, "weights_digest", None)

    @property
    def loading(self) -> dict[str, Any]:
        """Options of loading that are not the usual ones."""
        return getattr(self.facts, "loading", {})

    @property
    def trust(self) -> str:
        """That of its least checked score."""
        return min((cell.trust for cell in self.cells.values()), key=TRUSTS.index)


@dataclass(frozen=True, eq=False)
class Board:
    """Ranked rows, best first, then rows that are incomplete. Build one with `Board.of`.

    `source`: empty for runs, else the published table that the rows are from; `keep`: which backbones take part.
    `order` (n,): the selection's rows as they are shown, the first `complete` of which rank.
    """

    title: str
    columns: tuple[Column, ...]
    source: str
    snapshot: Snapshot
    keep: Callable[[Identity], bool] | None
    selection: Selection
    standings: ranking.Ranking | None
    order: np.ndarray
    complete: int

    @classmethod
    def of(
        cls,
        results: Snapshot | Iterable[Result],
        columns: Sequence[Column],
        title: str = "",
        seed: int = 0,
        source: str = "",
        keep: Callable[[Identity], bool] | None = None,
    ) -> "Board":
        """The board of `results` over `columns`; those that belong to no column are passed over.

        Only rows complete over the ranked columns rank, and z-scores are over these rows; `seed` is of the resampling.
        `source`: the published table whose figures it is of, instead of runs. `keep`: only backbones that it holds for.
        """
        order = [*FAMILIES, *sorted({c.family for c in columns} - set(FAMILIES))]
        columns = sorted(columns, key=lambda c: order.index(c.family))
        snapshot = as_snapshot(results)
        found = select(snapshot, columns, source, keep)
        ranks = [j for j, c in enumerate(columns) if c.ranked]
        absent = np.isnan(found.value[:, ranks]).sum(axis=1)
        complete = np.flatnonzero(absent == 0) if ranks else np.empty(0, int)
        # Rows stand in order of name here, so that the resampling gives each the same draws whatever order it came in.
        value, low, high = _oriented(found, columns)
        standings, shown = None, complete
        if len(complete):
            families = [columns[j].family for j in ranks]
            table = [scores[complete][:, ranks] for scores in (value, low, high)]
            if np.isnan(table).any():  # figures that came without intervals
                standings = ranking.rank(table[0], None, None, families)
            else:
                standings = ranked(table[0], table[1], table[2], families, seed, snapshot.folder)
            shown = complete[standings.order]
        rest = np.setdiff1d(np.arange(len(found.rows)), complete)
        shown = np.concatenate([shown, rest[np.argsort(absent[rest], kind="stable")]]).astype(int)
        return cls(title, tuple(columns), source, snapshot, keep, found, standings, shown, len(complete))

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The rows, as they are shown."""
        place = {row: i for i, row in enumerate(sorted(self.order[: self.complete].tolist()))}  # as they were ranked
        return tuple(self._row(row, place.get(row)) for row in self.order.tolist())

    @cached_property
    def z(self) -> np.ndarray:
        """(n, m) z-scores of the selection against its complete rows, in each column those that have a score in it."""
        value, _, _ = _oriented(self.selection, self.columns)
        z = np.full(value.shape, np.nan)
        for j, known in enumerate(value[np.sort(self.order[: self.complete])].T):
            if len(known := known[~np.isnan(known)]):
                z[:, j] = ranking.standardise(value[:, [j]], *ranking.centre(known[:, None]))[:, 0]
        return np.where(np.isnan(value), np.nan, z)

    @cached_property
    def left_out(self) -> dict[str, str]:
        """Id of each result that a column takes but that is not shown, and why."""
        out = np.flatnonzero(self.selection.reasons > 0)
        return {self.snapshot.id(i): REASONS[self.selection.reasons[i]] for i in out.tolist()}

    @property
    def families(self) -> tuple[str, ...]:
        """Task families that rank, in order."""
        return tuple(dict.fromkeys(c.family for c in self.columns if c.ranked))

    def twins(self, row: Row) -> list[str]:
        """Names of the other rows whose weights are the same, tensor for tensor, as this row's."""
        same = self._by_weights[row.weights_digest] if row.weights_digest else []
        return [name for name in same if name != row.backbone]

    def only(self, family: str) -> "Board":
        """The board of one task family: its columns alone, ranked anew. Raises BadInput for an unknown one."""
        columns = [c for c in self.columns if c.family == family]
        if not columns:
            raise unknown("family", family, {c.family for c in self.columns})
        return Board.of(self.snapshot, columns, self.title, source=self.source, keep=self.keep)

    @cached_property
    def _by_weights(self) -> dict[str | None, list[str]]:
        found = defaultdict(list)
        for row in self.rows:
            found[row.weights_digest].append(row.backbone)
        return found

    def _row(self, i: int, place: int | None) -> Row:
        cells = {
            c.key: self._cell(i, j) for j, c in enumerate(self.columns) if not np.isnan(self.selection.value[i, j])
        }
        missing = tuple(c.key for c in self.columns if c.ranked and c.key not in cells)
        standing = None if place is None else self._standing(place)
        return Row(self.snapshot.facts(int(self.selection.networks[i])), cells, standing, missing)

    def _cell(self, i: int, j: int) -> Cell:
        s, at = self.selection, i * len(self.columns) + j
        runs = s.runs[s.starts[at] : s.starts[at + 1]]
        measured = self.snapshot.parsed_protocols[self.snapshot.protocols[runs[-1]]]
        return Cell(
            value=float(s.value[i, j]),
            low=_known(s.low[i, j]),
            high=_known(s.high[i, j]),
            low_end=measured.range_low,
            high_end=measured.range_high,
            results=tuple(self.snapshot.id(run) for run in runs.tolist()),
            z=_known(self.z[i, j]),
            trust=TRUSTS[int(s.trust[i, j])],
        )

    def _standing(self, i: int) -> Standing:
        s = self.standings
        assert s is not None

        def of(values: np.ndarray | None, kind: type) -> Any:
            return None if values is None else kind(values[i])

        return Standing(
            rank=int(s.rank[i]),
            rank_low=of(s.rank_low, int),
            rank_high=of(s.rank_high, int),
            ties=s.ties[i],
            overall=float(s.overall[i]),
            overall_low=of(s.overall_low, float),
            overall_high=of(s.overall_high, float),
            families={family: float(z[i]) for family, z in s.by_family.items()},
            borda=float(s.borda[i]),
            mean_rank=float(s.mean_rank[i]),
            win_rate=float(s.win_rate[i]),
        )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _oriented(found: Selection, columns: Sequence[Column]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, m) value, low and high, turned so that higher is better (a turned interval swaps its ends)."""
    up = np.array([c.higher_is_better for c in columns], bool)
    return (
        np.where(up, found.value, -found.value),
        np.where(up, found.low, -found.high),
        np.where(up, found.high, -found.low),
    )
