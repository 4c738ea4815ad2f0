"""The picture of effective robustness: accuracy under shift against clean accuracy, on axes where a line fits."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..backbones.errors import BadInput
from ..tasks.pictures import COLOURS, canvas, save
from .robustness import Robustness, from_axis, on_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = (".svg", ".png", ".pdf")
TICKS = (0.1, 0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.9)
NAMED = 8  # kinds that the legend names
APART = 0.16  # the least distance of two ticks, as a share of the axis


def write_robustness_picture(found: Sequence[Robustness], path: Path) -> None:
    """A panel for each, as SVG, PNG or PDF by the suffix of `path`. Raises BadInput."""
    if path.suffix.lower() not in KINDS:
        raise BadInput(f"--plot {path}: name a file that ends in {', '.join(KINDS)}")
    columns = min(len(found), 2)
    rows = -(-len(found) // columns)
    figure, axes = canvas(rows, columns, (5.2, 4.4))
    kinds = [group.kind for group in max(found, key=lambda one: len(one.groups)).groups[1:]]
    colours = dict(zip(kinds, [*COLOURS[:7], *["0.5"] * len(kinds)], strict=False))
    for one, panel in zip(found, axes, strict=False):
        _panel(panel, one, colours)
    for panel in axes[len(found) :]:
        panel.axis("off")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(figure, path)
    except OSError as error:
        raise BadInput(f"--plot {path}: {error.strerror}") from None


def _panel(axes: "Axes", found: Robustness, colours: dict[str, str]) -> None:
    line, axis = found.line, found.line.axis
    x = on_axis(np.array([row.clean for row in found.rows]), axis)
    y = on_axis(np.array([row.shifted for row in found.rows]), axis)
    kinds = np.array([row.kind for row in found.rows])
    for place, group in enumerate(found.groups[1:]):
        of = kinds == group.kind
        label = f"{group.kind} ({group.n}): {group.effective:+.1f}"
        size = 16 if group.n < 100 else 7
        colour, shown = colours.get(group.kind, "0.5"), label if place < NAMED else None
        axes.scatter(x[of], y[of], s=size, color=colour, alpha=0.65, linewidths=0, label=shown)
    ends = np.linspace(x.min(), x.max(), 100)
    band = line.drawn[:, :1] * ends + line.drawn[:, 1:]
    low, high = np.percentile(band, [2.5, 97.5], axis=0)
    axes.fill_between(ends, low, high, color="0.4", alpha=0.3, linewidth=0)
    axes.plot(ends, line.slope * ends + line.intercept, color="black", linewidth=1.2)
    lowest, highest = min(x.min(), y.min()), max(x.max(), y.max())
    axes.plot([lowest, highest], [lowest, highest], color="0.6", linewidth=0.8, linestyle=":", zorder=0)
    for set_limits, set_ticks, values in (
        (axes.set_xlim, axes.set_xticks, x),
        (axes.set_ylim, axes.set_yticks, y),
    ):
        margin = 0.04 * max(float(np.ptp(values)), 1e-3)
        start, end = float(values.min()) - margin, float(values.max()) + margin
        set_limits(start, end)
        ticks = _ticks(start, end, axis)
        set_ticks(on_axis(np.array(ticks), axis), [f"{tick:g}" for tick in ticks])
    axes.set(
        title=f"{found.shifted}: R² {line.r2:.2f}, slope {line.slope:.2f}",
        xlabel=f"{found.clean}, top-1 (%), {axis} axis",
        ylabel=f"{found.shifted}, top-1 (%)",
    )
    axes.legend(
        **{"fontsize": 7.5, "loc": "upper left", "handletextpad": 0.2, "labelspacing": 0.3, "borderaxespad": 0.1},
        **{"title": "pretraining (networks): mean points above the line", "title_fontsize": 7.5, "alignment": "left"},
    )


def _ticks(start: float, end: float, axis: str) -> list[float]:
    """Round percentages within the axis, not too near to each other."""
    ends = from_axis(np.array([start, end]), axis)
    if ends[1] - ends[0] < 12:
        step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5) if (ends[1] - ends[0]) / s <= 6)
        candidates = [round(float(v), 6) for v in np.arange(np.ceil(ends[0] / step), ends[1] / step) * step]
    else:
        candidates = [tick for tick in TICKS if ends[0] < tick < ends[1]]
    kept: list[float] = []
    for tick in candidates:
        place = float(on_axis(np.array(tick), axis))
        if not kept or place - float(on_axis(np.array(kept[-1]), axis)) > APART / 2 * (end - start):
            kept.append(tick)
    return kept
