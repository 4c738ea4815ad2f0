"""The commands and their options; what each does lives in the module that it calls."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ...backbones.loading import Precision

app = typer.Typer(
    name="backbench",
    help="One gauntlet for every pretrained vision backbone. Add --debug to any command for full tracebacks.",
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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
SuiteName = Annotated[str | None, typer.Option("--suite", "-s", help="Name or card of a suite.")]
OF_BACKBONES: Any = {"rich_help_panel": "Of backbones"}
Format = Annotated[str, typer.Option("--format", help="How to print it.", metavar="FORMAT")]


@app.command()
def run(
    target: Annotated[str, typer.Argument(metavar="SUITE|TASK", help="A suite, a suite card, or a task.")],
    backbone: Backbones = None,
    dataset: Data = None,
    set_: Settings = None,
    seeds: Annotated[int | None, typer.Option(min=1, max=100, help="Seeds a cell.")] = None,
    limit: Limit = None,
    strict: HowStrict = None,
    device: Device = "auto",
    precision: HowPrecise = "float32",
    channels_last: ChannelsLast = False,
    compile: Compile = False,
    fast: Fast = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, run nothing.")] = False,
    cache_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Most that kept features may take, such as 10GB.")
    ] = None,
    home: Home = None,
) -> int:
    """Run a suite or a task; finished cells are not run again."""
    from . import running

    loading = running.loading_of(fast, precision, channels_last, compile, device)
    return running.run(
        target, backbone, dataset, set_, seeds, limit, strict, device, loading, dry_run, cache_size, home
    )


@app.command()
def estimate(
    target: Annotated[str, typer.Argument(metavar="SUITE|TASK", help="A suite, a suite card, or a task.")],
    backbone: Backbones = None,
    dataset: Data = None,
    set_: Settings = None,
    limit: Limit = None,
    strict: HowStrict = None,
    device: Device = "auto",
    precision: HowPrecise = "float32",
    channels_last: ChannelsLast = False,
    compile: Compile = False,
    fast: Fast = False,
    format: Format = "table",
    home: Home = None,
) -> None:
    """Time, disk and memory of every cell before running it, from a 16-image probe."""
    from . import running

    loading = running.loading_of(fast, precision, channels_last, compile, device)
    running.estimate(target, backbone, dataset, set_, limit, strict, device, loading, format, home)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(metavar="backbones|tasks|datasets|suites", help="What to list.")],
    grep: Annotated[str | None, typer.Option(help="Only rows that contain this text.")] = None,
    sort: Annotated[str | None, typer.Option(help="Sort by this column, as JSON has it, small to large.")] = None,
    source: Annotated[str | None, typer.Option(help="timm, open_clip, …", **OF_BACKBONES)] = None,
    family: Annotated[str | None, typer.Option(help="cnn, vit, hybrid, mlp, …", **OF_BACKBONES)] = None,
    method: Annotated[str | None, typer.Option(help="supervised, self-supervised, …", **OF_BACKBONES)] = None,
    data: Annotated[
        str | None, typer.Option(help="All pretraining data: imagenet-21k+imagenet-1k.", **OF_BACKBONES)
    ] = None,
    params: Annotated[
        str | None, typer.Option(help="..30M, 20M..90M or 300M..", metavar="RANGE", **OF_BACKBONES)
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Also every name that libraries ship.", **OF_BACKBONES)] = False,
    format: Annotated[str, typer.Option(help="table, json, csv or markdown.", metavar="FORMAT")] = "table",
) -> None:
    """List what there is."""
    from . import listing

    filters = {"source": source, "family": family, "method": method, "data": data, "params": params}
    listing.list_(what, grep, sort, format, filters, all_)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A backbone, task, dataset, suite or result id.")],
    format: Format = "table",
    home: Home = None,
) -> None:
    """Show one thing whole."""
    from . import looking

    looking.show(name, format, home)


@app.command()
def check(
    backbone: Annotated[str, typer.Argument(metavar="BACKBONE|CARD", help="Name or card of a backbone.")],
    device: Device = "auto",
    format: Format = "table",
) -> int:
    """Conformance of a backbone with the interface, point by point."""
    from . import looking

    return looking.check(backbone, device, format)


@app.command()
def leaderboard(
    suite: SuiteName = None,
    family: Annotated[str | None, typer.Option(help="Only one family of tasks.")] = None,
    sort: Annotated[str | None, typer.Option(help="Sort by this column.")] = None,
    format: Annotated[str, typer.Option(help="table, json, csv, markdown or html.", metavar="FORMAT")] = "table",
    output: Annotated[Path | None, typer.Option(help="Write to this file.")] = None,
    home: Home = None,
) -> None:
    """Rank what was run, with intervals and ties."""
    from . import ranking

    ranking.leaderboard(suite, family, sort, format, output, home)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A backbone.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another backbone.")],
    suite: SuiteName = None,
    format: Format = "table",
    home: Home = None,
) -> None:
    """Paired differences of two backbones, with intervals and corrected p-values."""
    from . import ranking

    ranking.compare(a, b, suite, format, home)


@app.command()
def rerun(
    result_id: Annotated[str, typer.Argument(metavar="RESULT_ID", help="The id (or its beginning) of a result.")],
    device: Device = "auto",
    home: Home = None,
) -> int:
    """Run a result's cell again, here: reproduced or not, and why."""
    from . import running

    return running.rerun(result_id, device, home)


@app.command()
def submit(
    card: Annotated[str, typer.Argument(metavar="CARD", help="The card of your backbone.")],
    suite: Annotated[str, typer.Option("--suite", "-s", help="Name or card of a suite.")] = "quick",
    to: Annotated[str | None, typer.Option(metavar="DIRECTORY", help="Where the bundle goes.")] = None,
    device: Device = "auto",
    precision: HowPrecise = "float32",
    channels_last: ChannelsLast = False,
    compile: Compile = False,
    fast: Fast = False,
    home: Home = None,
) -> int:
    """Check a backbone, run what is missing, and build a bundle to hand in."""
    from . import running

    loading = running.loading_of(fast, precision, channels_last, compile, device)
    return running.submit(card, suite, to, device, loading, home)


@app.command()
def doctor(
    format: Format = "table",
    home: Home = None,
) -> None:
    """What is installed, devices, caches, and whether the model hub can be reached."""
    from . import looking

    looking.doctor(format, home)


cache = typer.Typer(help="Features that are kept: list, prune, verify.", no_args_is_help=True)
app.add_typer(cache, name="cache")


@cache.command("list")
def cache_list(
    format: Annotated[str, typer.Option(help="table, json, csv or markdown.", metavar="FORMAT")] = "table",
    home: Home = None,
) -> None:
    """What is kept, of which backbone, how much, and when it was last used."""
    from . import caching

    caching.list_(format, home)


@cache.command("prune")
def cache_prune(
    to: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Least recently used first, until 10GB are left.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="What was not used for so long: 30d, 12h.")
    ] = None,
    backbone: Annotated[str | None, typer.Option("--backbone", "-b", help="Only what is of this backbone.")] = None,
    home: Home = None,
) -> None:
    """Remove kept features, never those in use."""
    from . import caching

    caching.prune(to, older_than, backbone, home)


@cache.command("verify")
def cache_verify(
    format: Annotated[str, typer.Option(help="table, json, csv or markdown.", metavar="FORMAT")] = "table",
    home: Home = None,
) -> int:
    """Read every byte that is kept and say what is harmed."""
    from . import caching

    return caching.verify(format, home)
