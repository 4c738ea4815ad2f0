"""The critical-difference picture: average ranks on one axis, bars join what cannot be told apart (Demšar 2006).

All lengths are in inches, with y growing downwards from the top of the picture.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from ..backbones.errors import BadInput
from .friedman import LEVEL, CriticalDifference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, BAR = "#1a1a1a", "#0072B2"  # near black, and the blue of Okabe & Ito's palette for all kinds of colour vision
AXIS = 5.2  # length of the axis
LINE, STEP = 0.24, 0.13  # from a label to the next, and from a bar to the next
GAP, EDGE = 0.1, 0.25  # around a label, and around all
NAME, NOTE = 10, 8.5  # sizes of letters, in points
UNSTAMPED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}  # no time, no version


def write_difference_picture(found: CriticalDifference, path: Path) -> None:
    """Writes it as SVG, PNG or PDF, by the suffix of `path`; the same input, the same bytes. Raises BadInput."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in UNSTAMPED:
        raise BadInput(f"--plot {path}: name a file that ends in {', '.join('.' + k for k in UNSTAMPED)}")
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "backbench", "font.family": ["DejaVu Sans"]}):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _picture(found).savefig(path, format=kind, dpi=200, metadata=UNSTAMPED[kind])
        except OSError as error:
            raise BadInput(f"--plot {path}: {error.strerror}") from None


def _picture(found: CriticalDifference) -> "Figure":
    from matplotlib.figure import Figure

    k = len(found.names)
    half = (k + 1) // 2  # the better ones have their names on the left, the others on the right
    labels = [f"{name}   {rank:.2f}" if i < half else f"{rank:.2f}   {name}"
              for i, (name, rank) in enumerate(zip(found.names, found.ranks, strict=True))]  # fmt: skip
    left = EDGE + max(_width(text, NAME) for text in labels[:half]) + GAP
    right = EDGE + max(_width(text, NAME) for text in labels[half:]) + GAP
    wide = left + AXIS + right
    notes = _wrapped(_note(found), wide - 2 * EDGE)
    levels = _levels(found)
    to_scale = found.distance <= k - 1  # else there is no room for it beside the axis
    top = EDGE + (0.75 if to_scale else 0.25)
    first = top + 0.2 + STEP * (max(levels, default=-1) + 1) + 0.1  # the topmost label
    bottom = first + LINE * (half - 1) + 0.3
    high = bottom + 0.17 * len(notes) + EDGE - 0.1

    figure = Figure(figsize=(wide, high), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, wide), ylim=(high, 0))
    axes.axis("off")

    def x(rank: float) -> float:
        return left + (rank - 1) / (k - 1) * AXIS

    def line(points: list[tuple[float, float]], width: float = 0.9, color: str = INK) -> None:
        axes.plot(*zip(*points, strict=True), color=color, linewidth=width, solid_capstyle="butt", clip_on=False)

    def text(
        at: tuple[float, float], words: str, side: str = "center", size: float = NAME, base: str = "center"
    ) -> None:
        axes.text(*at, words, ha=side, va=base, fontsize=size, color=INK, parse_math=False)

    line([(x(1), top), (x(k), top)], 1.2)
    every = max(1, round(k / 12))
    for rank in range(1, k + 1):
        line([(x(rank), top), (x(rank), top - 0.08)])
        if (rank - 1) % every == 0:
            text((x(rank), top - 0.12), str(rank), size=NOTE, base="bottom")
    if to_scale:
        line([(x(1), EDGE + 0.2), (x(1 + found.distance), EDGE + 0.2)], 2.5)
        text((x(1), EDGE + 0.12), f"critical difference {found.distance:.2f}", "left", NOTE, "bottom")
    for i, (label, rank) in enumerate(zip(labels, found.ranks, strict=True)):
        y = first + LINE * (i if i < half else k - 1 - i)
        end = left - GAP / 2 if i < half else left + AXIS + GAP / 2
        line([(x(rank), top), (x(rank), y), (end, y)])
        text((left - GAP, y) if i < half else (left + AXIS + GAP, y), label, "right" if i < half else "left")
    for group, level in zip(found.groups, levels, strict=True):
        y = top + 0.2 + STEP * level
        line([(x(found.ranks[group[0]]) - 0.05, y), (x(found.ranks[group[-1]]) + 0.05, y)], 4.5, BAR)
    for i, words in enumerate(notes):
        text((EDGE, bottom + 0.17 * i), words, "left", NOTE, "top")
    return figure


def _levels(found: CriticalDifference) -> list[int]:
    """How far down each group's bar lies: as high as it can without touching another."""
    levels: list[int] = []
    for i, group in enumerate(found.groups):
        taken = {levels[j] for j, other in enumerate(found.groups[:i])
                 if found.ranks[other[-1]] + 0.1 * len(found.names) > found.ranks[group[0]]}  # fmt: skip
        levels.append(next(level for level in range(len(found.groups)) if level not in taken))
    return levels


def _note(found: CriticalDifference) -> str:
    over = f"Average ranks over {len(found.tasks)} tasks, 1 the best. "
    if found.p >= LEVEL:
        return over + f"Friedman's test finds no difference among them (p = {found.p:.2g}), so one bar joins all."
    return over + (
        f"Friedman's test: p = {found.p:.2g}. A bar joins backbones that are nearer than the critical difference "
        f"{found.distance:.2f} (Nemenyi's test at {LEVEL:.0%}) and cannot be told apart from so many tasks."
    )


def _wrapped(text: str, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _width(longer, NOTE) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _width(text: str, size: float) -> float:
    """Of a text, in inches; a little more, as letters are moved to whole pixels when they are drawn."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    width, _, _ = TextToPath().get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return 1.03 * width / 72
