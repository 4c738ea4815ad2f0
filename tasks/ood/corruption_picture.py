"""The picture of `corruptions`: accuracy by severity in four groups, over a strip of what the images look like."""

from typing import TYPE_CHECKING

import numpy as np

from ..datasets import Split
from ..pictures import COLOURS, canvas
from .corrupted import CORRUPTIONS, GROUPS, corrupt, prepared

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 3  # severity of the strip, or the nearest that was run


def draw(table: dict[str, dict[int, float]], split: Split) -> "Figure":
    """`table`: percent right by corruption and severity, of clean images under `clean` at severity 0."""
    clean = table["clean"][0]
    of = {
        group: [name for name in table if name in CORRUPTIONS and CORRUPTIONS[name].group == group] for group in GROUPS
    }
    groups = [group for group in GROUPS if of[group]]
    figure, axes = canvas(2, len(groups), (3.1, 2.9))
    top, strips = axes[: len(groups)], axes[len(groups) :]
    example = split.images[0]
    for place, (panel, strip, group) in enumerate(zip(top, strips, groups, strict=True)):
        panel.axhline(clean, color="0.6", linewidth=1, linestyle="--")
        panel.text(5.05, clean, "clean", color="0.45", fontsize=8, va="bottom", ha="right")
        for colour, name in zip(COLOURS, of[group], strict=False):
            severities = sorted(table[name])
            values = [table[name][severity] for severity in severities]
            panel.plot(severities, values, color=colour, marker="o", markersize=3.5, linewidth=1.5, label=name)
        panel.set(title=group, xlabel="severity", xlim=(0.8, 5.2), ylim=(0, 100), xticks=range(1, 6))
        panel.set_ylabel("top-1 (%)" if place == 0 else "")
        panel.legend(fontsize=7.5, loc="best", handlelength=1.2, labelspacing=0.25)
        _strip(strip, example, of[group], table)
    mean = np.mean([list(of_severity.values()) for name, of_severity in table.items() if name in CORRUPTIONS])
    severity = nearest(next(table[name] for name in table if name in CORRUPTIONS))
    title = f"Accuracy under corruption: {mean:.1f} % on average, {clean:.1f} % on clean images"
    figure.suptitle(f"{title}; pictures at severity {severity}", fontsize=11)
    return figure


def nearest(severities) -> int:
    """That of these which is nearest to SHOWN."""
    return min(severities, key=lambda s: (abs(s - SHOWN), s))


def _strip(axes, example, names: list[str], table: dict[str, dict[int, float]]) -> None:
    """The example clean and under each corruption, in two columns."""
    made = [(name, corrupt(example, name, nearest(table[name]))) for name in names]
    shown = [("clean", prepared(example)), *made]
    axes.axis("off")
    rows = (len(shown) + 2) // 3
    for i, (label, pixels) in enumerate(shown):
        row, column = divmod(i, 3)
        inset = axes.inset_axes((column / 3 + 0.01, 1 - (row + 1) / rows + 0.02, 0.31, 1 / rows - 0.13))
        side = min(pixels.shape[:2])
        up, left = ((length - side) // 2 for length in pixels.shape[:2])
        inset.imshow(pixels[up : up + side, left : left + side], interpolation="nearest")
        inset.set_title(label, fontsize=6.5, pad=2)
        inset.axis("off")
