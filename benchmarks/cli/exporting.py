"""Commands that write for others: export, schema; and the board in the formats of files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...backbones.errors import BadInput
from .output import pick_format, print_json

if TYPE_CHECKING:
    from ...leaderboard import Board, Result

BOARDS = ("json", "csv", "markdown", "latex", "parquet")
RESULTS = ("model-index", "eval-results", "every-eval-ever")


def board_as(board: "Board", format: str, sort: str | None) -> str | bytes:
    """The board in one of BOARDS; bytes where it is no text. Raises BadInput for an unknown column to sort by."""
    from ...leaderboard import export

    return getattr(export, f"as_{format}")(board, sort)


def write(content: str | bytes, output: Path | None, what: str) -> None:
    """To the file, or to the terminal where none is named. Raises BadInput."""
    if output is None:
        if isinstance(content, bytes):
            raise BadInput(f"--format {what}: is not for a terminal; name a file with --output")
        print(content.rstrip("\n"))
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    except OSError as error:
        raise BadInput(f"--output {output}: {error.strerror}") from None


def export(
    backbone: str, format: str, suite: str | None, output: Path | None, home: Path | None, database: str | None
) -> None:
    """`backbench export`: the results behind a backbone's row, to a folder, or to the terminal where it is one file."""
    from ...leaderboard.export import as_eval_results, as_every_eval_ever, as_model_index
    from ..board import leaderboard

    pick_format(format, RESULTS)
    board = leaderboard(suite, home=home, database=database)
    results = board.results_of(backbone)
    hub = _on_hub(results, board.home)
    if format == "model-index":
        files = {"model-index.yaml": as_model_index(results, hub)}
    elif format == "eval-results":
        files = {f".eval_results/{name}": text for name, text in as_eval_results(results, hub).items()}
    else:
        files = as_every_eval_ever(results, hub)
    if output is None and len(files) > 1:
        raise BadInput(f"--format {format}: these are {len(files)} files; name a folder with --output")
    for name, text in files.items():
        write(text, output and output / name, format)
    if output:
        print("\n".join(str(output / name) for name in files))


def schema(kind: str) -> None:
    """`backbench schema`."""
    from ...leaderboard.schema import json_schema

    print_json(json_schema(kind))


def _on_hub(results: "Sequence[Result]", home: Path) -> dict[str, str]:
    """Data set → `org/name@revision`, of those of the results that come from the Hugging Face hub."""
    from ..origin import cards_of

    found = {}
    for result in results:
        try:
            _, card = cards_of(result, home)
        except BadInput:  # it came from a card that is not here any more
            continue
        if card.hub:
            found[card.name] = card.hub
    return found
