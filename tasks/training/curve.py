"""The curve of a training: a line of JSON an epoch, and a picture of it that fits into a line of text."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CURVE = "curve.jsonl"
BARS = "▁▂▃▄▅▆▇█"
LONGEST = 24  # characters


def sparkline(values: Sequence[float]) -> str:
    """One bar a value, from the least to the largest; of many values so many as fit, evenly spaced."""
    if len(values) > LONGEST:
        values = [values[round(i * (len(values) - 1) / (LONGEST - 1))] for i in range(LONGEST)]
    low, high = min(values, default=0.0), max(values, default=0.0)
    if high <= low:
        return BARS[0] * len(values)
    return "".join(BARS[round((value - low) / (high - low) * (len(BARS) - 1))] for value in values)


def read_curves(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The curves below a cell's folder, by the name of their training; a line that was cut short ends one."""
    found = {}
    for path in sorted(folder.rglob(CURVE)):
        rows = found[path.parent.name] = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return found


def told(curve: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Of loss and validation scores: their bars, the first value and the last."""
    shown = {}
    for key in curve[-1] if curve else ():
        if key == "loss" or key.startswith("val"):
            values = [row[key] for row in curve if key in row]
            shown[key] = f"{sparkline(values)} {values[0]:.4g} → {values[-1]:.4g}"
    return shown
