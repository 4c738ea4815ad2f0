"""What each shift costs, as a picture: its score beside that of the clean images it is set against, with intervals."""

from typing import TYPE_CHECKING

from ..measure import Measure, estimate
from ..pictures import COLOURS, canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def shift_picture(measure: Measure, metric: str, title: str) -> "Figure":
    """A line a shift, the worst at the bottom: from the clean score to the shifted one."""
    found = estimate(measure)
    shifts = {name.partition(":")[2]: score for name, score in found.items() if name.startswith(f"{metric}:")}
    order = sorted(shifts, key=lambda name: shifts[name].value)
    figure, [axes] = canvas(size=(6.0, 1.2 + 0.32 * len(order)))
    for y, name in enumerate(order):
        clean, shifted = found.get(f"clean_{metric}:{name}", found[f"clean_{metric}"]), shifts[name]
        axes.plot([clean.value, shifted.value], [y, y], color="#bbbbbb", zorder=1)
        for score, colour, label in ((clean, COLOURS[0], "clean"), (shifted, COLOURS[1], "shifted")):
            reach = [[score.value - score.low], [score.high - score.value]]
            axes.errorbar([score.value], [y], xerr=reach, fmt="o", color=colour, label="" if y else label, capsize=2)
    axes.set(yticks=range(len(order)), yticklabels=order, xlabel=f"{metric} (%), 95 % intervals", title=title)
    axes.margins(y=0.5 / max(1, len(order)))
    figure.legend(loc="outside right upper")
    return figure
