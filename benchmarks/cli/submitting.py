"""Commands of handing in and of checking what was handed in: submit, verify, withdraw, rerun."""

import getpass
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...backbones.errors import BadInput
from ...backbones.loading import Loading, pick_device
from .output import console, print_rows
from .running import tell, totals


def submit(
    card: str,
    suite: str,
    to: str | None,
    token_file: Path | None,
    with_weights: bool,
    limit: int | None,
    device: str,
    loading: Loading,
    home: Path | None,
    database: str | None,
) -> int:
    """`backbench submit`: check, estimate, run what is missing, bundle, send. Exit code 1 when any of it failed."""
    from ...backbones.check import check
    from ..estimate import estimate_cells
    from ..home import home_folder, store_of
    from ..plan import find_backbones, plan, resolve
    from ..runner import Job, run_cells
    from ..submit import destination, token_of, weights_of

    folder = home_folder(home)
    chosen = resolve(suite)
    [found] = find_backbones([card])
    target = destination(to, folder, found.name)
    token = token_of(token_file, os.environ) if target.kind == "server" else ""
    weights = weights_of(found) if with_weights else None
    screen = console()
    points = check(found)
    for point in points:
        if not point.passed:
            screen.print(f"FAIL  {point.name}: {point.detail}", style="red", markup=False)
    if failed := sum(not point.passed for point in points):
        print(f"{found.name}: {failed} of {len(points)} points of conformance failed; nothing was run")
        return 1
    facts = sum(point.state == "n/a" for point in points)
    print(f"{found.name}: {len(points) - facts} points of conformance passed, {facts} not applicable")
    cells = plan(chosen, [found], folder, limit=limit, loading=loading, device=device)
    job = Job(folder, pick_device(device), database=database)
    done = store_of(folder, database).cells()
    if rows := estimate_cells([c for c in cells if c.id not in done], folder, job.device):
        totals(rows)
    report = run_cells(chosen, cells, job, workers=0, watch=True)
    return tell(report, job) or _hand_in(found, chosen, report, job, target, token, weights)


def _hand_in(card: Any, suite: Any, report: Any, job: Any, target: Any, token: str, weights: Path | None) -> int:
    from ..board import leaderboard
    from ..submit import bundle, pull_request, send

    with _bars() as progress:
        manifest, seen = bundle(card, suite.name, report, job.home, target.folder, weights, progress)
    place = leaderboard(suite, home=job.home, database=job.database).place(card.name)
    print(f"{place or f'{card.name}: no rank yet; others to rank against: backbench run {suite.name}'}")
    again = sum(checked.trust == "rescored" for checked in seen.checked)
    print(
        f"bundle: {target.folder} ({len(seen.checked)} results of suite {suite.name}, {again} scored again from files)"
    )
    if target.kind == "pull-request":
        print(f"pull request: {target.root} holds the tree, {pull_request(target, manifest, seen)} the text")
    if target.kind == "server":
        _warn_in_clear(target.url)
        with _bars() as progress:
            answer = send(target.folder, target.url, token, progress)
        return _told(answer, target.url)
    return 0


def _warn_in_clear(url: str) -> None:
    from urllib.parse import urlsplit

    if url.startswith("http:") and urlsplit(url).hostname not in ("localhost", "127.0.0.1", "::1"):
        console(stderr=True).print("the token travels in clear over http; ask for an https address", style="yellow")


def _told(answer: dict[str, Any], url: str) -> int:
    """What a server says of a submission in the end; exit code 1 when it was not accepted."""
    detail = answer.get("detail")
    detail = detail if isinstance(detail, dict) else {}
    print(f"{url}: submission {answer['id']} {answer['state']}")
    said = detail.get("findings") or [detail["reason"]] if detail.get("reason") or detail.get("findings") else []
    for line in said:
        console(stderr=True).print(str(line), style="red", markup=False, soft_wrap=True)
    return 0 if answer["state"] == "accepted" else 1


def verify(
    bundle: Path | None,
    rerun: bool,
    accept: bool,
    allow_code: bool,
    server: str | None,
    token_file: Path | None,
    format: str,
    device: str,
    home: Path | None,
    database: str | None,
) -> int:
    """`backbench verify`: exit code 1 when a bundle does not hold, or a cell does not come out the same."""
    from ..home import home_folder

    if (bundle is None) != rerun:
        raise BadInput("verify: give a bundle to check, or --rerun to run the next drawn cell again")
    folder = home_folder(home)
    if bundle is None:
        return _rerun_next(folder, database, server, token_file, device, allow_code)
    if accept:
        return _accept(bundle, folder, database)
    from ...leaderboard.submission import Truth, inspect

    with _bars() as progress:
        seen = inspect(bundle, Truth(folder), progress=progress)
    rows = [{"state": "refused", "what": line, "why": ""} for line in seen.findings]
    rows += [
        {
            "state": checked.trust if checked.trust == "rescored" else "unverified",
            "what": f"{checked.result.id} {checked.result.task.name} on {checked.result.dataset.name}",
            "why": checked.reason,
        }
        for checked in seen.checked
    ]
    print_rows(rows, format)
    if format == "table":
        count = len(seen.findings)
        print(f"{bundle}: " + (f"{count} reasons to refuse it" if count else f"{len(rows)} results, all hold"))
    return 1 if seen.findings else 0


def _accept(bundle: Path, home: Path, database: str | None) -> int:
    from ...leaderboard.submission import receive
    from ..home import store_of

    with _bars() as progress:
        receipt = receive(bundle, store_of(home, database), home, getpass.getuser(), progress=progress)
    again = sum(entry.trust == "rescored" for entry in receipt.results)
    print(f"submission {receipt.id}: {len(receipt.results)} results of {receipt.backbone}, {again} scored again")
    print(f"drawn to be run again: {', '.join(receipt.checks)} (backbench verify --rerun)")
    return 0


def _rerun_next(
    home: Path, database: str | None, server: str | None, token_file: Path | None, device: str, allow_code: bool
) -> int:
    from ..home import store_of
    from ..submit import destination, token_of
    from ..verify import Here, There, rerun_next, why_not

    if server:
        to = destination(server, home, "")
        if to.kind != "server":
            raise BadInput(f"--server {server}: give its address, such as https://board.example.org")
        queue = There(to.url, token_of(token_file, os.environ))
        _warn_in_clear(to.url)
    else:
        queue = Here(store_of(home, database), getpass.getuser())
    with console(stderr=True).status("running the next drawn cell again"):
        done = rerun_next(queue, home, pick_device(device), allow_code)
    for check in [] if done else queue.waiting():
        print(f"{check.result.id}: {why_not(check, home, allow_code)}")
    if done is None:
        print("nothing to run again here")
        return 0
    if done.verdict.rows:
        print_rows(done.verdict.rows, "table")
    print(f"{done.check.result.id}: {done.verdict.text}; marked {done.outcome}" if done.outcome != "failed" else
          f"{done.check.result.id}: {done.verdict.text}; its mark stays")  # fmt: skip
    return 0 if done.outcome == "reproduced" else 1


def withdraw(result_id: str, reason: str, home: Path | None, database: str | None) -> None:
    """`backbench withdraw`."""
    from ..home import home_folder, store_of

    if not reason.strip() or not reason.isprintable() or len(reason) > 1000:
        raise BadInput("--reason: say in one line why; it stays in the history")
    store = store_of(home_folder(home), database)
    result = store.by_id(result_id)
    store.withdraw(result.id, reason.strip(), getpass.getuser())
    print(f"{result.id}: {result.task.name} of {result.backbone.name} is withdrawn; the history keeps why")


def rerun(result_id: str, source: str | None, device: str, home: Path | None, database: str | None) -> int:
    """`backbench rerun`: exit code 1 when the result is not reproduced."""
    from ..home import home_folder
    from ..rerun import rerun_result

    folder = home_folder(home)
    with console(stderr=True).status("running the cell again"):
        verdict = rerun_result(result_id, folder, pick_device(device), database, source)
    if verdict.rows:
        print_rows(verdict.rows, "table")
    print(f"{verdict.result}: {verdict.text}")
    return 0 if verdict.reproduced else 1


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """A function of what is done, how much, of how much, that draws a bar on a terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    screen = console(stderr=True)
    columns = TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), TimeRemainingColumn()
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bars:
        line = bars.add_task("", total=None)
        yield lambda what, done, total: bars.update(line, description=what, completed=done, total=total or None)
