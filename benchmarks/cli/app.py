"""The commands and their options; what each does lives in the module that it calls."""

from pathlib import Path
from typing import Annotated

import typer

from . import groups
from .options import (
    OF_BACKBONES,
    OF_CSV,
    Backbones,
    ChannelsLast,
    Compile,
    Data,
    Database,
    Device,
    Fast,
    Format,
    Home,
    HowPrecise,
    HowStrict,
    Limit,
    Settings,
    SuiteName,
)

app = typer.Typer(
    name="backbench",
    help="One gauntlet for every pretrained vision backbone. Add --debug to any command for full tracebacks.",
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    wandb: Annotated[
        bool, typer.Option("--wandb", help="Log results to Weights & Biases too ($WANDB_PROJECT, else backbench).")
    ] = False,
    home: Home = None,
    database: Database = None,
) -> int:
    """Run a suite or a task; finished cells are not run again."""
    from . import running

    loading = running.loading_of(fast, precision, channels_last, compile, device)
    return running.run(
        target,
        backbone,
        dataset,
        set_,
        seeds,
        limit,
        strict,
        device,
        loading,
        dry_run,
        cache_size,
        wandb,
        home,
        database,
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
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw a result: .png, .svg or .pdf.", dir_okay=False)
    ] = None,
    format: Format = "table",
    home: Home = None,
    database: Database = None,
) -> None:
    """Show one thing whole."""
    from . import looking

    looking.show(name, format, home, database, picture)


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
    published: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="A published table that was imported, instead of runs.")
    ] = None,
    family: Annotated[str | None, typer.Option(help="Only one family of tasks.")] = None,
    sort: Annotated[str | None, typer.Option(help="Sort by this column.")] = None,
    format: Annotated[
        str, typer.Option(help="table, json, csv, markdown, latex, parquet or html.", metavar="FORMAT")
    ] = "table",
    output: Annotated[Path | None, typer.Option(help="Write to this file.")] = None,
    show: Annotated[
        str,
        typer.Option(
            metavar="VIEW", help="ranking, pareto, correlations (of tasks), sizes (scores with them) or robustness."
        ),
    ] = "ranking",
    objective: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Of pareto, overall and parameters if not said; of robustness, clean, then shifted. May be repeated.",
        ),
    ] = None,
    line: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Of robustness: fit the line over such alone. May be repeated."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of robustness: draw the lines: .svg, .png or .pdf.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Rank only such: family, method, data, trust, params=..30M, … May be repeated."
        ),
    ] = None,
    same: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Rank only those of the same architecture, data, images, family or method …"),
    ] = None,
    as_: Annotated[str | None, typer.Option("--as", metavar="BACKBONE", help="… as this one.")] = None,
    home: Home = None,
    database: Database = None,
) -> None:
    """Rank what was run, with intervals and ties."""
    from . import ranking

    about = {"objectives": objective or (), "where": where or (), "same": same, "like": as_}
    about |= {"line": line or (), "plot": plot}
    ranking.leaderboard(suite, published, family, sort, format, output, home, database, show, **about)


@app.command()
def export(
    backbone: Annotated[str, typer.Argument(metavar="BACKBONE", help="Whose results.")],
    format: Annotated[
        str, typer.Option(help="model-index, eval-results or every-eval-ever.", metavar="FORMAT")
    ] = "model-index",
    suite: SuiteName = None,
    output: Annotated[Path | None, typer.Option(metavar="DIRECTORY", help="Write to this folder.")] = None,
    home: Home = None,
    database: Database = None,
) -> None:
    """A backbone's results as model hubs and collections of evaluations take them."""
    from . import exporting

    exporting.export(backbone, format, suite, output, home, database)


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(metavar="result|figure|board|bundle", help="Of what.")] = "result",
) -> None:
    """The JSON Schema of what is exchanged."""
    from . import exporting

    exporting.schema(kind)


@app.command("import")
def import_(
    format: Annotated[
        str, typer.Argument(metavar="timm|open-clip|clip-benchmark|csv", help="Whose tables; csv is any.")
    ],
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="The tables, as they were published.")],
    source: Annotated[str | None, typer.Option(metavar="NAME", help="A short name for where they are from.")] = None,
    title: Annotated[str | None, typer.Option(help="Its name in words, for people.")] = None,
    url: Annotated[str | None, typer.Option(help="Its address.")] = None,
    license: Annotated[str | None, typer.Option(help="Its licence.")] = None,
    family: Annotated[str | None, typer.Option(help="classification, retrieval, …", **OF_CSV)] = None,
    task: Annotated[str | None, typer.Option(help="What was done (else the family's name).", **OF_CSV)] = None,
    metric: Annotated[str | None, typer.Option(help="What the figures are: top1, mrr, …", **OF_CSV)] = None,
    unit: Annotated[
        str | None, typer.Option(help="fraction, percent or another (else seen from the figures).", **OF_CSV)
    ] = None,
    lower: Annotated[
        list[str] | None, typer.Option(metavar="DATASET", help="Lower is better there. May be repeated.", **OF_CSV)
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="DATASET", help="This data set alone. May be repeated.", **OF_CSV)
    ] = None,
    name_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The backbones (else backbone, model or name).", **OF_CSV)
    ] = None,
    dataset_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Of a row a figure: the data sets.", **OF_CSV)
    ] = None,
    value_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Of a row a figure: the figures.", **OF_CSV)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read everything, keep nothing.")] = False,
    output: Format = "table",
    home: Home = None,
    database: Database = None,
) -> None:
    """Bring in published tables: each source has a board of its own, apart from runs."""
    from . import importing

    about = {"name": source, "title": title, "url": url, "license": license}
    layout = {"family": family, "task": task, "metric": metric, "unit": unit}
    layout |= {"name": name_column, "dataset": dataset_column, "value": value_column}
    layout |= {"lower": tuple(lower or ()), "only": tuple(only or ())}
    importing.import_(format, files, about, layout, dry_run, output, home, database)


@app.command()
def compare(
    backbones: Annotated[list[str], typer.Argument(metavar="A B [C…]", help="Two backbones or more.")],
    suite: SuiteName = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw average ranks and critical difference: .svg, .png or .pdf."),
    ] = None,
    errors: Annotated[
        bool, typer.Option("--errors", help="Whether they fail on the same examples, instead (error consistency).")
    ] = False,
    format: Annotated[str, typer.Option(help="table, json, csv or markdown.", metavar="FORMAT")] = "table",
    home: Home = None,
    database: Database = None,
) -> None:
    """Paired differences of every two backbones, with intervals and corrected p-values."""
    if errors:
        from . import consistency

        return consistency.compare_errors(backbones, suite, format, home, database, plot)
    from . import ranking

    ranking.compare(backbones, suite, format, home, database, plot)


@app.command()
def rerun(
    result_id: Annotated[str, typer.Argument(metavar="RESULT_ID", help="The id (or its beginning) of a result.")],
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="FOLDER|URL|FILE", help="Another's: a page, a bundle, a server, a record."),
    ] = None,
    device: Device = "auto",
    home: Home = None,
    database: Database = None,
) -> int:
    """Run a result's cell again, here: reproduced or not, and why."""
    from . import submitting

    return submitting.rerun(result_id, source, device, home, database)


@app.command()
def submit(
    card: Annotated[str, typer.Argument(metavar="CARD", help="The card of your backbone.")],
    suite: Annotated[str, typer.Option("--suite", "-s", help="Name or card of a suite.")] = "quick",
    to: Annotated[
        str | None,
        typer.Option(metavar="DIR|URL|pr:DIR", help="A directory, a server, or a tree for a pull request."),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="Holds the token for a server (else $BACKBENCH_TOKEN).", metavar="FILE")
    ] = None,
    with_weights: Annotated[
        bool,
        typer.Option("--with-weights", help="Hand in your safetensors too, so that others can rerun."),
    ] = False,
    limit: Limit = None,
    device: Device = "auto",
    precision: HowPrecise = "float32",
    channels_last: ChannelsLast = False,
    compile: Compile = False,
    fast: Fast = False,
    home: Home = None,
    database: Database = None,
) -> int:
    """Check a backbone, run what is missing, and hand in a signed bundle."""
    from . import running, submitting

    loading = running.loading_of(fast, precision, channels_last, compile, device)
    return submitting.submit(card, suite, to, token_file, with_weights, limit, device, loading, home, database)


@app.command()
def verify(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="A bundle, folder or zip: what a receiver finds in it.")
    ] = None,
    rerun: Annotated[bool, typer.Option("--rerun", help="Run the next drawn cell again and mark its result.")] = False,
    accept: Annotated[bool, typer.Option("--accept", help="Take the bundle in if all of it holds.")] = False,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Also run backbones that are code, from your own card of them.")
    ] = False,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Of --rerun: take the cell from this server, and tell it.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="Holds a token that may maintain (else $BACKBENCH_TOKEN).", metavar="FILE")
    ] = None,
    format: Format = "table",
    device: Device = "auto",
    home: Home = None,
    database: Database = None,
) -> int:
    """Check what was handed in: a bundle, or a cell by running it again."""
    from . import submitting

    return submitting.verify(bundle, rerun, accept, allow_code, server, token_file, format, device, home, database)


@app.command()
def withdraw(
    result_id: Annotated[str, typer.Argument(metavar="RESULT_ID", help="The id (or its beginning) of a result.")],
    reason: Annotated[str, typer.Option(help="Why, in one line; it stays in the history.")],
    home: Home = None,
    database: Database = None,
) -> None:
    """Take a result off the boards; its history keeps it and why."""
    from . import submitting

    submitting.withdraw(result_id, reason, home, database)


@app.command()
def doctor(
    format: Format = "table",
    home: Home = None,
) -> None:
    """What is installed, devices, caches, and whether the model hub can be reached."""
    from . import looking

    looking.doctor(format, home)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    upload_limit: Annotated[str, typer.Option(metavar="SIZE", help="Most that a bundle may have.")] = "256MB",
    reads: Annotated[int, typer.Option(min=1, help="Most reads a minute of one address.")] = 3000,
    changes: Annotated[int, typer.Option(min=1, help="Most requests with a token a minute, of one address.")] = 60,
    checkers: Annotated[int, typer.Option(min=1, max=8, help="Processes that check submissions.")] = 1,
    home: Home = None,
    database: Database = None,
) -> None:
    """Serve the board: the page, a JSON API, and the way in for submissions."""
    from . import serving

    serving.serve(host, port, upload_limit, reads, changes, checkers, database, home)


app.add_typer(groups.token, name="token")
app.add_typer(groups.cache, name="cache")
