"""Ratios measured side by side: interleaved, in CPU-seconds of this process and its children, shown as one table."""

import resource
from collections.abc import Callable
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Ratio:
    """`ours` and `theirs` in CPU-seconds (the least of several), the `bar` on their ratio, and what held besides."""

    measure: str
    against: str
    ours: float
    theirs: float
    bar: str
    held: str


RATIOS: list[Ratio] = []


def cpu_seconds() -> float:
    """User and system seconds of this process, all its threads, and of children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def in_turns(*contestants: Callable[[], object], rounds: int = 5) -> list[float]:
    """The least CPU-seconds of each contestant over `rounds`, in turns, so that a busy moment hits all alike."""
    best = [float("inf")] * len(contestants)
    for _ in range(rounds):
        for i, contestant in enumerate(contestants):
            before = cpu_seconds()
            contestant()
            best[i] = min(best[i], cpu_seconds() - before)
    return best


@pytest.fixture
def interleaved():
    """`ours, theirs = interleaved(f, g, rounds=5)`: the least CPU-seconds of each."""
    return in_turns


@pytest.fixture
def report():
    """`report(measure=…, against=…, ours=…, theirs=…, bar=…, held=…)`: a line of the table at the end."""
    return lambda **facts: RATIOS.append(Ratio(**facts))


def pytest_terminal_summary(terminalreporter):
    if not RATIOS:
        return
    terminalreporter.section("speed, CPU-seconds, least of interleaved rounds")
    head = ("measure", "against", "ours", "theirs", "theirs / ours", "bar", "what held")
    rows = [
        (r.measure, r.against, f"{r.ours:.3g}", f"{r.theirs:.3g}", f"{r.theirs / r.ours:.2f}x", r.bar, r.held)
        for r in RATIOS
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
