"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ...backbones.loading import Precision

Backbones = Annotated[list[str] | None, typer.Option("--backbone", "-b", help="Name or card; may be repeated.")]
Data = Annotated[str | None, typer.Option("--dataset", "-d", help="Name or card of a data set.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE changes a recipe; in a suite the key is TASK.KEY. May be repeated."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many examples a split.")]
HowStrict = Annotated[
    bool | None,
    typer.Option(
        "--strict/--lenient",
        help="Faulty images and annotations stop the run, or are left out and named (else as cards say: strict).",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda:N.")]
HowPrecise = Annotated[Precision, typer.Option(help="Of matrix products.")]
ChannelsLast = Annotated[bool, typer.Option("--channels-last", help="Images lie channels last in memory.")]
Compile = Annotated[bool, typer.Option("--compile", help="Compile networks with torch.compile.")]
Fast = Annotated[
    bool,
    typer.Option(
        "--fast", help="Half precision, channels last and quick decoding, once seen to give the same features."
    ),
]
Home = Annotated[Path | None, typer.Option(help="Where state lives (else $BACKBENCH_HOME or ~/.backbench).")]
Database = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Where results are kept (else leaderboard.db there): postgresql://user@host/name."
    ),
]
SuiteName = Annotated[str | None, typer.Option("--suite", "-s", help="Name or card of a suite.")]
OF_BACKBONES: Any = {"rich_help_panel": "Of backbones"}
OF_CSV: Any = {"rich_help_panel": "Of csv"}
Format = Annotated[str, typer.Option("--format", help="How to print it.", metavar="FORMAT")]
