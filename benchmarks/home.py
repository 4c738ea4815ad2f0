"""Where state lives: data/, features/, runs/ and leaderboard.db under BACKBENCH_HOME, or results in a database."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..backbones.errors import BadInput
from ..tasks.home import where_home

if TYPE_CHECKING:
    from ..leaderboard import Store


def home_folder(given: Path | str | None = None) -> Path:
    """The given folder, else $BACKBENCH_HOME, else ~/.backbench; made if absent. Raises BadInput if that fails."""
    home = where_home(given)
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not os.access(home, os.W_OK):
            raise PermissionError(13, "not writable")
    except OSError as error:
        raise BadInput(f"home {home}: {error.strerror}; give a folder you can write with --home") from None
    return home


def run_folder(home: Path, cell_id: str) -> Path:
    """The folder of one cell's predictions, checkpoints and errors."""
    return home / "runs" / cell_id[:16]


def store_of(home: Path, database: str | None = None) -> "Store":
    """Where results are kept: the database that --database names, else leaderboard.db of a home. Raises as `Store`."""
    from ..leaderboard import Store

    return Store(database or home / "leaderboard.db")
