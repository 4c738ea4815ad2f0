"""Where the points, ticks and labels of a score-against-size plot go, in the pixels of its picture."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, log10

from .board import Board, Row
from .listing import count
from .selection import Column

WIDTH, HEIGHT = 860, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 844, 18, 346  # of the plotting area
LETTER, LINE, DOT = 7.2, 15.0, 7.0  # width and height of label text, and the room around a point
LONGEST = 34  # letters of a label; the whole name is in the tooltip


@dataclass(frozen=True)
class Point:
    """A backbone at (x, y) with its interval from y_low (bottom) to y_high (top).

    `label` beside it at (label_x, label_y), from there to the left if `left`; empty where there is no room for one.
    """

    name: str
    kind: str
    x: float
    y: float
    y_low: float
    y_high: float
    label: str = ""
    label_x: float = 0
    label_y: float = 0
    left: bool = False


@dataclass(frozen=True)
class Plot:
    """One score over the number of parameters: points, and ticks as (pixel, text)."""

    key: str
    label: str
    points: list[Point]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


def plots(board: Board) -> list[Plot]:
    """The overall z-score where anything is ranked, then every column that has a score."""
    overall = [
        (r, s.overall, s.overall_low, s.overall_high) for r in board.rows if (s := r.standing) and r.facts.parameters
    ]
    found = [_plot("overall", "overall z-score", overall)] if overall else []
    for c in board.columns:
        cells = [(r, r.cells[c.key]) for r in board.rows if c.key in r.cells and r.facts.parameters]
        if cells:
            found.append(_plot(c.key, _label(c), [(r, cell.value, cell.low, cell.high) for r, cell in cells]))
    return found


def kind(row: Row) -> str:
    """The kind of network, as its card says: cnn, vit, … or `other`."""
    return str(row.facts.card.get("family") or "other")


def _label(column: Column) -> str:
    return f"{column.key}: {column.metric} ({column.unit}{'' if column.higher_is_better else ', lower is better'})"


def _plot(key: str, label: str, values: Sequence[tuple]) -> Plot:
    sizes = [log10(row.facts.parameters) for row, *_ in values]
    middle = (min(sizes) + max(sizes)) / 2
    reach = max(0.12, 0.58 * (max(sizes) - min(sizes)))  # a third of a factor on either side at least
    x_low, x_high = middle - reach, middle + reach
    y_ticks = _steps(min(v[2] for v in values), max(v[3] for v in values))
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def x(size: float) -> float:
        return LEFT + (size - x_low) / (x_high - x_low) * (RIGHT - LEFT)

    def y(value: float) -> float:
        return BOTTOM - (value - y_low) / (y_high - y_low) * (BOTTOM - TOP)

    points = [
        Point(row.backbone, kind(row), x(log10(row.facts.parameters)), y(value), y(low), y(high))
        for row, value, low, high in sorted(values, key=lambda v: (-v[1], v[0].backbone))
    ]
    points = _labelled(points)
    return Plot(
        key,
        label,
        points,
        [(x(log10(n)), count(n)) for n in _sizes(x_low, x_high)],
        [(y(v), f"{v:g}") for v in y_ticks],
    )


def _steps(low: float, high: float) -> list[float]:
    """Round numbers (1, 2, 5 times a power of ten apart) from at most `low` to at least `high`."""
    span = max(high - low, 1e-3 * max(abs(low), abs(high)), 1e-6)
    rough = span / 5
    power = 10.0 ** floor(log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    return [round(i * step, 10) for i in range(floor(low / step), max(ceil(high / step), floor(low / step) + 1) + 1)]


def _sizes(low: float, high: float) -> list[int]:
    """Round numbers of parameters between two powers of ten: as few as the span allows, three at least if there are."""
    found: list[int] = []
    for digits in ((10,), (10, 30), (10, 20, 50), range(10, 100, 10), range(10, 100, 5), range(10, 100)):
        powers = range(floor(low) - 1, ceil(high))
        found = sorted({n for p in powers for d in digits if (n := round(d * 10**p)) and low <= log10(n) <= high})
        if len(found) >= 3:
            break
    return found


def _labelled(points: list[Point]) -> list[Point]:
    """The points with labels where these cover neither a point nor another label: the highest point chooses first."""
    taken = [(p.x - DOT, p.y - DOT, p.x + DOT, p.y + DOT) for p in points]
    found = []
    for p in points:
        text = p.name if len(p.name) <= LONGEST else p.name[: LONGEST - 1] + "…"
        wide = len(text) * LETTER
        for left, rise in ((False, 0), (True, 0), (False, LINE), (False, -LINE), (True, LINE), (True, -LINE)):
            edge, middle = p.x + (-DOT - 3 if left else DOT + 3), p.y + rise
            box = (edge - wide if left else edge, middle - LINE / 2, edge if left else edge + wide, middle + LINE / 2)
            inside = box[0] >= LEFT and box[2] <= WIDTH and box[1] >= TOP - LINE / 2 and box[3] <= BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                p = replace(p, label=text, label_x=edge, label_y=middle + 4, left=left)
                break
        found.append(p)
    return found


def _overlap(a: tuple, b: tuple) -> bool:
    """Whether two boxes (left, top, right, bottom) share a place."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
