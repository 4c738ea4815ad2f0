"""Pictures of predictions: one look for all, drawn without a screen, the same bytes for the same numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008: eight colours that people who see few of them can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
LOOK: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "figure.facecolor": "white",
    "svg.hashsalt": "backbench",
    "legend.frameon": False,
}


def canvas(rows: int = 1, columns: int = 1, size: tuple[float, float] = (5.0, 3.6)) -> "tuple[Figure, list[Axes]]":
    """A figure of rows × columns axes, each `size` inches wide and high, and the axes row by row."""
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    with matplotlib.rc_context(LOOK | {"axes.prop_cycle": cycler(color=COLOURS)}):
        figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def heat_map(axes: "Axes", values, title: str, x: str, y: str, low: float | None = None, high: float | None = None):
    """A matrix as colours, row 0 at the bottom as in layer × layer maps, with its colour bar."""
    image = axes.imshow(
        values, origin="lower", cmap="magma", vmin=low, vmax=high, aspect="auto", interpolation="nearest"
    )
    axes.set(title=title, xlabel=x, ylabel=y)
    figure = axes.get_figure()
    assert figure is not None
    figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    return image


def shaded(share: float) -> tuple[float, ...]:
    """The colour at a share of the way from the first to the last of an ordered row of lines."""
    from matplotlib import colormaps

    return colormaps["viridis"](share)


def save(figure: "Figure", path: Path) -> None:
    """The picture as a file of the kind that its suffix says (png, svg, pdf), whole or not at all."""
    import matplotlib

    part = path.with_name(f".{path.stem}.part{path.suffix}")
    with matplotlib.rc_context(LOOK):
        figure.savefig(part, dpi=150, metadata={"Date": None} if path.suffix in (".svg", ".pdf") else None)
    part.replace(path)
