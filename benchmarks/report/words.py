"""What the numbers of a page say, in sentences."""

from collections.abc import Sequence
from math import floor, log10

import numpy as np

from ...leaderboard import Consistency, Difference
from ...leaderboard.result import Score
from ...tasks.analysis.similarity import Table
from ...tasks.predictions import Predictions
from .sides import Row

# Landis and Koch 1977, of Cohen's kappa.
GRADES = ((0.2, "slight"), (0.4, "fair"), (0.6, "moderate"), (0.8, "substantial"), (1.0, "almost perfect"))


def in_short(
    names: Sequence[str], rows: Sequence[Row], agreement: tuple[Row, Consistency] | None, across: Predictions | None
) -> list[str]:
    """Sentences, the most telling first."""
    found = [agreeing(names, *agreement)] if agreement else []
    found += [layers_alike(names, across)] if across else []
    found += better(names, rows) if len(names) == 2 else reached(rows)
    return found + best_depth(names, rows) + speed(names, rows) + left_out(names, rows)


def agreeing(names: Sequence[str], row: Row, found: Consistency) -> str:
    """How often they are right and wrong together, against chance."""
    a, b = names
    if found.low <= 0 <= found.high:
        told = "no more alike than their accuracies make likely"
    elif found.kappa < 0:
        told = "less alike than their accuracies make likely"
    else:
        grade = next(word for bound, word in GRADES if found.kappa <= bound)
        told = f"{grade} agreement beyond what their accuracies make likely"
    return (
        f"{a} and {b} agree, both right or both wrong, on {found.agreement:.1f} % of {found.examples:,} test images "
        f"({row.label}). Error consistency is κ = {found.kappa:.2f} [{found.low:.2f}, {found.high:.2f}]: {told}."
    )


def layers_alike(names: Sequence[str], predictions: Predictions) -> str:
    """Which layers of the two are most alike."""
    table = Table.of(predictions)
    own, other = table.networks
    across = table.alignment(np.ones(len(table.terms)))[own, other]
    i, j = np.unravel_index(across.argmax(), across.shape)
    a, b = table.layers[own][i], table.layers[other][j]
    return (
        f"Of their layers number {i + 1} of {names[0]} ({a}) and number {j + 1} of {names[1]} ({b}) are most alike, "
        f"with a CKA of {across[i, j]:.2f}; of all pairs it is {across.mean():.2f} on average, of the last two "
        f"{across[-1, -1]:.2f}."
    )


def better(names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """In what either is better beyond chance."""
    told = [row for row in rows if row.ranked and row.difference]
    found = []
    for side, name in zip("ab", names, strict=True):
        if won := [row for row in told if row.difference and row.difference.better == side]:
            parts = [f"{row.label} ({_both(row, side)})" for row in won]
            found.append(f"{name} is better beyond chance in {listed(parts)}.")
    if even := [row.label for row in told if row.difference and row.difference.better is None]:
        found.append(f"They cannot be told apart in {listed(even)}.")
    return found


def reached(rows: Sequence[Row]) -> list[str]:
    """The headline scores of one backbone alone."""
    parts = []
    for row in rows:
        if row.ranked and row.complete:
            score = row.sides[0].scores[row.task.headline]
            parts.append(f"{figure(score.value, score.unit)} {score.unit} {_named(row)} in {row.label}")
    return [f"It reaches {listed(parts)}."] if parts else []


def best_depth(names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Where in depth classes are told best."""
    found = {}
    for row in rows:
        for name, side in zip(names, row.sides, strict=True):
            if best := side.scores.get("depth_of_best"):
                found.setdefault(f"{best.value:.0f} %", []).append(name)
    parts = [f"{depth} of the depth of {listed(of)}" for depth, of in found.items()]
    return [f"A probe tells the classes best at {listed(parts)}."] if parts else []


def speed(names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """How many images a second, and of how many parameters."""
    parts = []
    for row in rows:
        for name, side in zip(names, row.sides, strict=True):
            if rate := side.scores.get("throughput"):
                told = figure(rate.value, rate.unit, rate.low, rate.high)
                parts.append(f"{name} {told} ({count(side.results[0].backbone.parameters)} parameters)")
    return [f"Images a second on this device: {listed(parts)}."] if parts else []


def left_out(names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """What there is nothing of, in one sentence a backbone; the reasons stand in the tables."""
    found = []
    for i, name in enumerate(names):
        if missing := [row.label for row in rows if not row.sides[i].results]:
            found.append(f"There is no {listed(missing, 'or')} of {name}; the table says why.")
    return found


def listed(parts: Sequence[str], word: str = "and") -> str:
    """One, two and three."""
    *first, last = parts
    return f"{', '.join(first)} {word} {last}" if first else last


def figure(value: float, unit: str, low: float = 0.0, high: float = 0.0) -> str:
    """A number as precise as its unit, or the width of its interval, deserves; with a true minus."""
    if unit in ("%", "points"):
        told = f"{value:.1f}"
    elif high > low:
        told = f"{value:,.{min(6, max(0, 1 - floor(log10(high - low))))}f}"
    else:
        told = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return told.replace("-", "−")


def interval(of: Score | Difference) -> str:
    """`[low, high]`; nothing where they are equal, as of what is counted."""
    if of.low == of.high:
        return ""
    low, high = (figure(end, of.unit, of.low, of.high) for end in (of.low, of.high))
    return f"[{low}, {high}]"


def count(number: float | None) -> str:
    """1,234 as 1.2 K, and so on."""
    if number is None:
        return "unknown"
    for scale, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "K")):
        if number >= scale:
            return f"{number / scale:.3g} {suffix}"
    return f"{number:.0f}"


def _both(row: Row, first: str) -> str:
    a, b = (side.scores[row.task.headline] for side in row.sides)
    one, other = (a, b) if first == "a" else (b, a)
    return f"{_named(row)} {figure(one.value, one.unit)} against {figure(other.value, other.unit)} {one.unit}".rstrip()


def _named(row: Row) -> str:
    return row.task.headline.replace("_", " ")
