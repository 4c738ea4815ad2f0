"""The picture of likeness to people: shape bias by category (Geirhos et al. 2019, figure 4), consistency by person."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..pictures import COLOURS, canvas
from .agreement import Panel, between, mean
from .cues import Cues

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OWN, PEOPLE = COLOURS[0], COLOURS[1]


def draw(panels: Mapping[str, Panel], cues: Cues, classes: Sequence[str]) -> "Figure":
    """Left, what share of decisions is by shape, a row a category; right, set by set, consistency with each person."""
    figure, (left, right) = canvas(1, 2, size=(5.0, 4.6))
    _bias(left, cues, classes)
    _consistency(right, panels)
    return figure


def _bias(axes, cues: Cues, classes: Sequence[str]) -> None:
    shares = np.stack([cues.bias((cues.shape == i).astype(float)) for i in range(len(classes))], axis=1)
    everywhere = cues.bias(np.ones(len(cues.shape)))
    people = np.array([mean(column) for column in shares[1:].T])
    order = np.argsort(np.nan_to_num(people, nan=-1.0), kind="stable")
    places = np.arange(len(order))
    for observer in shares[1:]:
        axes.plot(observer[order], places, "|", color=PEOPLE, alpha=0.35, markersize=7)
    axes.plot(people[order], places, "o", color=PEOPLE, label="people: mean, and each")
    axes.plot(shares[0][order], places, "s", color=OWN, label="backbone")
    for value, colour in ((everywhere[0], OWN), (mean(everywhere[1:]), PEOPLE)):
        if np.isfinite(value):
            axes.axvline(value, color=colour, linewidth=0.9, linestyle="--", zorder=0)
    axes.set(xlim=(-0.02, 1.02), yticks=places, yticklabels=[classes[i] for i in order])
    axes.set(title="Shape bias by shape category", xlabel="decisions by shape, of those by shape or texture")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.06), ncols=2, frameon=False)


def _consistency(axes, panels: Mapping[str, Panel]) -> None:
    # Who is called by the same number in two experiments need not be the same person, so nothing is averaged over sets.
    place, ticks = 0, []
    for name, panel in panels.items():
        matrix = panel.kappas(np.ones(len(panel.labels)))
        own, people = matrix[0, 1:], matrix[1:, 1:]
        places = place + np.arange(len(own))
        theirs = np.array([mean(np.delete(row, i)) for i, row in enumerate(people)])
        first = place == 0
        axes.barh(places, own, height=0.7, color=OWN, label="backbone and a person" if first else None)
        axes.plot(
            theirs, places, "o", color=PEOPLE, markersize=4, label="this person and the others" if first else None
        )
        lines = [name]
        for who, value, colour in (("backbone", mean(own), OWN), ("people", between(people), PEOPLE)):
            if np.isfinite(value):  # one person alone agrees with nobody
                axes.vlines(value, places[0] - 0.5, places[-1] + 0.5, color=colour, linewidth=0.9, linestyle="--")
                lines.append(f"{who} {value:.2f}")
        ticks.append((places.mean(), "\n".join(lines)))
        place = places[-1] + 2
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(
        yticks=[at for at, _ in ticks], yticklabels=[text for _, text in ticks], title="Error consistency, by person"
    )
    axes.set(xlabel="Cohen's κ of right and wrong; dashed: means")
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.06), ncols=2, frameon=False)
