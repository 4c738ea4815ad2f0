"""Pictures inside a page: figures and images as data URIs, and curves by depth of all backbones in one."""

import re
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ...tasks.pictures import COLOURS, canvas, save
from .sides import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEPTH = re.compile(r"depth_(\d+)")
THUMBNAIL = 96  # pixels


def as_uri(figure: "Figure") -> str:
    """The figure as SVG in a data URI: the same for the same numbers."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "figure.svg"
        save(figure, path)
        return _uri(path.read_bytes(), "svg+xml")


def thumbnail(image: Image.Image | np.ndarray) -> str:
    """An image, at most THUMBNAIL pixels each way, as PNG in a data URI."""
    small = (image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))).convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    bytes = BytesIO()
    small.save(bytes, "PNG")
    return _uri(bytes.getvalue(), "png")


def has_depth(row: Row) -> bool:
    """Whether it has scores of several depths: `depth_25`, `depth_50`, …"""
    return any(DEPTH.fullmatch(name) for side in row.sides for name in side.scores)


def depth_curves(rows: Sequence[Row], names: Sequence[str]) -> "Figure":
    """A panel a row: its scores by depth, with intervals, a line a backbone."""
    columns = min(2, len(rows))
    figure, axes = canvas(-(-len(rows) // columns), columns, (4.6, 3.0))
    for place in axes[len(rows) :]:
        place.axis("off")
    for place, row in zip(axes, rows, strict=False):
        units = set()
        for side, name, colour in zip(row.sides, names, COLOURS, strict=False):
            points = {int(m[1]): score for key, score in side.scores.items() if (m := DEPTH.fullmatch(key))}
            if points:
                depths = sorted(points)
                value, low, high = ([getattr(points[d], k) for d in depths] for k in ("value", "low", "high"))
                place.plot(depths, value, "o-", color=colour, markersize=4, label=shortened(name))
                place.fill_between(depths, low, high, color=colour, alpha=0.18, linewidth=0)
                units |= {points[d].unit for d in depths}
        place.set(title=row.label, xlabel="depth (% of the blocks)", ylabel=", ".join(sorted(units)), xlim=(0, 104))
        place.set_xticks([0, 25, 50, 75, 100])
    figure.legend(*_named(axes), loc="outside upper center", ncols=2)
    return figure


def shortened(name: str, most: int = 48) -> str:
    """A name that fits into a legend, which reads $ as the start of a formula."""
    short = name if len(name) <= most else f"{name[: most // 2]}…{name[-most // 2 + 1 :]}"
    return short.replace("$", r"\$")


def _named(axes) -> tuple[list, list]:
    found = {label: line for place in axes for line, label in zip(*place.get_legend_handles_labels(), strict=True)}
    return list(found.values()), list(found)


def _uri(bytes: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{b64encode(bytes).decode()}"
