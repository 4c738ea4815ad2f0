"""The one folder in which state lives, unless a command says another."""

import os
from pathlib import Path


def where_home(given: Path | str | None = None) -> Path:
    """The given folder, else $BACKBENCH_HOME, else ~/.backbench; it need not be there yet."""
    return Path(given or os.environ.get("BACKBENCH_HOME") or Path.home() / ".backbench").expanduser().absolute()
