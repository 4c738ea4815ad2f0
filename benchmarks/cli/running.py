"""Commands that run cells: run, estimate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...backbones.errors import BadInput
from ...backbones.loading import PLAIN, Loading, Precision, pick_device
from .output import console, print_rows
from .reporting import write_reports


def settings_of(pairs: Sequence[str] | None) -> dict[str, Any]:
    """`KEY=VALUE` words as a mapping; a value is read as YAML, so `[1, 5]`, `true` and `1e-3` mean what they say."""
    import yaml

    settings = {}
    for pair in pairs or ():
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise BadInput(f"--set {pair}: write KEY=VALUE, for example --set k=[5,10]")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise BadInput(f"--set {pair}: {text!r} is not a value; quote it if it is text") from None
        settings[key] = _number(value)
    return settings


def _number(value: Any) -> Any:
    """YAML 1.1 reads `1e-3` as text; a person means the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def loading_of(fast: bool, precision: Precision, channels_last: bool, compile: bool, device: str) -> Loading:
    """What the options of loading ask for. Raises BadInput where `--fast` comes with what it sets itself."""
    if not fast:
        return Loading(precision, channels_last, compile)
    if precision != PLAIN.precision or channels_last:
        raise BadInput("--fast sets --precision and --channels-last itself; leave them out")
    return Loading.fast(pick_device(device), compile)


def run(
    target: str,
    backbones: list[str] | None,
    dataset: str | None,
    pairs: list[str] | None,
    seeds: int | None,
    limit: int | None,
    strict: bool | None,
    device: str,
    loading: Loading,
    dry_run: bool,
    cache_size: str | None,
    wandb: bool,
    home: Path | None,
    database: str | None,
) -> int:
    """`backbench run`: exit code 1 when a cell failed."""
    from ..home import home_folder
    from ..launch import is_first
    from ..plan import find_backbones, plan, resolve
    from ..runner import Job, run_cells
    from .caching import size_of

    largest = None if cache_size is None else size_of(cache_size, "--cache-size")
    suite = resolve(target, dataset, settings_of(pairs))
    folder = home_folder(home)
    with console(stderr=True).status("planning"):
        found = find_backbones(backbones or suite.backbones)
        how = {"seeds": seeds, "limit": limit, "strict": strict, "loading": loading, "device": device}
        cells = plan(suite, found, folder, **how)
    if dry_run:
        _show_plan(cells, folder, database)
        return 0
    job = Job(folder, pick_device(device), largest, database)
    report = run_cells(suite, cells, job, workers=0, watch=True, wandb=wandb)
    if not is_first():
        return int(not report.ok)
    code = tell(report, job)
    if suite.report:
        write_reports(report, job)
    return code


def _show_plan(cells: Sequence[Any], home: Path, database: str | None) -> None:
    from ..home import run_folder, store_of

    done = store_of(home, database).cells()
    rows = []
    for cell in cells:
        skipped = (run_folder(home, cell.id) / "not-applicable").exists()
        state = "done" if cell.id in done else "not applicable" if skipped else "to run"
        rows.append(
            {
                "cell": cell.id[:12],
                "backbone": cell.card.name,
                "task": cell.asked,
                "dataset": cell.dataset.name,
                "seed": cell.seed,
                "state": state,
            }
        )
    print_rows(rows, "table")
    print(f"{len(rows)} cells, {sum(r['state'] == 'to run' for r in rows)} to run; nothing was run (--dry-run)")


def tell(report: Any, job: Any) -> int:
    """The end of a run: scores, what failed and why, where to look next."""
    from ..board import leaderboard

    screen = console()
    fresh = len(report.cells) - len(report.skipped)
    labels = {cell.id: cell.label for cell in report.cells}
    if len(report.suite.entries) == 1:
        _show_scores(report)
    elif report.results:
        leaderboard(report.suite, home=job.home, database=job.database).print(screen)
    by_task: dict[str, list[str]] = {}
    for cell in report.cells:
        if cell.id in report.not_applicable:
            by_task.setdefault(cell.task, []).append(report.not_applicable[cell.id])
    for task, reasons in by_task.items():
        others = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        screen.print(f"not applicable: {task}: {reasons[0]}{others}", style="dim", markup=False)
    for cell, reason in report.failed.items():
        console(stderr=True).print(f"failed: {labels[cell]}: {reason}", style="red", markup=False, soft_wrap=True)
    took = f"{report.seconds:.0f} s" if report.seconds < 120 else f"{report.seconds / 60:.1f} min"
    done_before = f", {len(report.skipped)} done before" if report.skipped else ""
    print(
        f"{len(report.cells)} cells: {fresh} run in {took}{done_before}, {len(report.failed)} failed. State: {job.home}"
    )
    if report.tracked:
        console(stderr=True).print(report.tracked, style="dim", markup=False, soft_wrap=True)
    return 0 if report.ok else 1


def _show_scores(report: Any) -> None:
    from ...leaderboard.listing import number

    rows = []
    for cell in report.cells:
        result = report.results.get(cell.id)
        if result is None:
            continue
        row = {"backbone": cell.card.name, "seed": cell.seed}
        for name, score in result.scores.items():
            if ":" not in name:  # those of single labels are in the record
                value, low, high = (number(v, score.unit) for v in (score.value, score.low, score.high))
                row[f"{name} {score.unit}"] = f"{value} [{low}, {high}]"
        rows.append(row | {"result": result.id})
    keys = dict.fromkeys(key for row in rows for key in row if key != "result")  # some have scores that others have not
    rows = [{key: row.get(key, "") for key in (*keys, "result")} for row in rows]
    if rows:
        print_rows(rows, "table", title=f"{report.suite.entries[0].task} on {report.cells[0].dataset.name}")


def estimate(
    target: str,
    backbones: list[str] | None,
    dataset: str | None,
    pairs: list[str] | None,
    limit: int | None,
    strict: bool | None,
    device: str,
    loading: Loading,
    format: str,
    home: Path | None,
) -> None:
    """`backbench estimate`."""
    from ..estimate import estimate_cells
    from ..home import home_folder
    from ..plan import find_backbones, plan, resolve
    from .output import pick_format

    pick_format(format, ("table", "json"))
    suite = resolve(target, dataset, settings_of(pairs))
    folder = home_folder(home)
    found = find_backbones(backbones or suite.backbones)
    cells = plan(suite, found, folder, limit=limit, strict=strict, loading=loading, device=device)
    with console(stderr=True).status("probing with 16 images a split"):
        rows = estimate_cells(cells, folder, pick_device(device))
    print_rows(rows, format)
    if format == "table":
        totals(rows)


def totals(rows: Sequence[dict[str, Any]]) -> None:
    """What an estimate comes to, in a line."""
    seconds, disk = (sum(row[key] for row in rows) for key in ("seconds", "disk_mb"))
    memory = max((row["memory_mb"] for row in rows), default=0)
    print(
        f"in all about {seconds / 60:.1f} min one after another, {disk:,.0f} MB disk, {memory:,.0f} MB memory a worker"
    )
