"""Handing in: the bundle of a finished run, checked as its receiver will, and sent where it is wanted."""

import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from ..backbones import Backbone, BackboneCard, BadInput, Unavailable
from ..leaderboard.submission import (
    Examined,
    Manifest,
    Truth,
    inspect,
    key_of,
    pack,
    packaged,
    predictions_file,
    zipped,
)
from .cell import environment
from .runner import Report

TRIES = 6  # of a request that a busy server turns away
LONGEST = 60.0  # seconds between two of them
DECIDED = ("accepted", "refused", "failed")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Destination:
    """Where a bundle goes: `folder` is where it is written; then `kind` says what becomes of it."""

    kind: Literal["folder", "server", "pull-request"]
    folder: Path
    url: str = ""
    root: Path = Path()  # of a pull request's tree


def destination(to: str | None, home: Path, name: str) -> Destination:
    """What `--to` asks for, checked before anything runs. Raises BadInput."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")
    if to and re.match(r"^[A-Za-z][A-Za-z0-9+.-]*://", to):
        parts = urlsplit(to)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise BadInput(f"--to {to}: give a directory, pr:DIRECTORY, or a server such as https://board.example.org")
        return Destination("server", home / "submissions" / plain, to.rstrip("/"))
    pull = bool(to) and str(to).startswith("pr:")
    root = Path(str(to).removeprefix("pr:")).expanduser() if to else home / "submissions"
    if root.exists() and not root.is_dir():
        raise BadInput(f"--to {to}: is a file; name a directory")
    if pull:
        return Destination("pull-request", root / "submissions" / plain, root=root)
    return Destination("folder", root / plain)


def bundle(
    card: BackboneCard | Backbone,
    suite: str,
    report: Report,
    home: Path,
    target: Path,
    weights: Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> tuple[Manifest, Examined]:
    """Write the bundle of a finished run to `target`, and read it back as a receiver would, scores computed again.

    Raises BadInput if it does not hold; then nothing is left of it.
    """
    card = card.card if isinstance(card, Backbone) else card
    own = {cell.dataset.name: cell.dataset for cell in report.cells if cell.dataset.name not in packaged()}
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        part = Path(scratch) / target.name
        manifest = pack(
            part,
            card,
            suite,
            report.results.values(),
            lambda result: predictions_file(home, result),
            own.values(),
            environment(),
            key_of(home),
            version("backbench"),
            weights,
            lambda done, total: progress("packing", done, total),
        )
        truth = Truth(home, {cell.dataset.name: cell.dataset for cell in report.cells})
        found = inspect(part, truth, progress=progress)
        if found.findings:
            raise BadInput(f"the bundle does not hold: {found.findings[0]}")
        _replace(part, target)
    return manifest, found


def _replace(part: Path, target: Path) -> None:
    import shutil

    if target.exists():
        if any(target.iterdir()) and not (target / "manifest.json").is_file():
            raise BadInput(f"{target}: holds something else than a bundle; name another directory with --to")
        shutil.rmtree(target)
    part.replace(target)


def weights_of(card: BackboneCard | Backbone) -> Path:
    """The file that `--with-weights` adds. Raises BadInput unless it is safetensors, which holds numbers alone."""
    card = card.card if isinstance(card, Backbone) else card
    path = card.checkpoint_file
    if path is None:
        raise BadInput(f"{card.name}: --with-weights: its card names no checkpoint of your own; leave it out")
    if path.suffix != ".safetensors":
        raise BadInput(f"{card.name}: --with-weights: {path.name} is not safetensors; convert it, or leave it out")
    return path


def token_of(file: Path | None, environment: Mapping[str, str]) -> str:
    """The token in a file or in $BACKBENCH_TOKEN. Raises BadInput where there is none; it is never printed."""
    try:
        token = (file.read_text(encoding="utf-8") if file else environment.get("BACKBENCH_TOKEN", "")).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--token-file {file}: {getattr(error, 'strerror', None) or 'not text'}") from None
    if not re.fullmatch(r"[\x21-\x7e]{8,500}", token):
        where = f"--token-file {file}" if file else "$BACKBENCH_TOKEN"
        raise BadInput(f"{where}: holds no token; ask the board's keepers for one, and put it into --token-file")
    return token


def send(folder: Path, url: str, token: str, progress: Progress = lambda what, done, total: None) -> dict[str, Any]:
    """Hand a bundle to a server and wait until it is checked; what the server says of it in the end.

    Raises BadInput for what the server refuses, Unavailable where it does not answer.
    """
    with tempfile.TemporaryDirectory() as scratch:
        archive = zipped(folder, Path(scratch) / "bundle.zip")
        size = archive.stat().st_size
        headers = {"Content-Type": "application/zip", "Content-Length": str(size)}
        say = lambda done: progress("sending", done, size)  # noqa: E731
        answer = ask("POST", f"{url}/api/v1/submissions", token, lambda: _chunks(archive, say), headers)
    id, state = answer.get("id"), answer
    if not isinstance(id, str) or not re.fullmatch(r"[A-Za-z0-9-]{1,64}", id):
        raise Unavailable(f"{url}: answers without the id of a submission; is it a backbench server?")
    pause = 0.2
    while state.get("state") not in DECIDED:
        progress("being checked", 0, 0)
        time.sleep(pause)
        pause = min(5.0, pause * 1.5)
        state = ask("GET", f"{url}/api/v1/submissions/{id}", token)
    return state


def ask(
    method: str,
    url: str,
    token: str = "",
    content: Callable[[], Iterator[bytes]] | None = None,
    headers: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The JSON object that a server answers to `content` or a JSON `body`; a busy one is asked again after a while.

    Raises BadInput for what it refuses, with its reason, and Unavailable where it does not answer.
    """
    import httpx

    name = urlsplit(url).netloc
    headers = {**(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
    said = "no answer"
    for turn in range(TRIES):
        wait = min(LONGEST, 0.5 * 2**turn)
        try:
            sent: dict[str, Any] = {"content": content() if content else None} if body is None else {"json": body}
            answer = httpx.request(method, url, headers=headers, timeout=httpx.Timeout(30, read=120), **sent)
        except httpx.HTTPError as error:
            said = str(error) or type(error).__name__
        else:
            if answer.status_code not in (429, 502, 503, 504):
                return _understood(answer, name)
            said = f"{answer.status_code} {_reason(answer)}"
            wait = min(LONGEST, float(after) if (after := answer.headers.get("Retry-After", "")).isdigit() else wait)
        if turn + 1 < TRIES:
            time.sleep(wait)
    raise Unavailable(f"{name}: {said} ({TRIES} tries); try again later")


def _understood(answer: Any, name: str) -> dict[str, Any]:
    if answer.status_code >= 500:
        raise Unavailable(f"{name}: {answer.status_code} {_reason(answer)}")
    if answer.status_code >= 300:
        raise BadInput(f"{name}: {answer.status_code} {_reason(answer)}")
    if answer.status_code == 204:
        return {}
    try:
        said = answer.json()
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise Unavailable(f"{name}: answers something else than JSON; is it a backbench server?")
    return said


def _reason(answer: Any) -> str:
    """Why a server refuses, in one line: problem details (RFC 9457), else FastAPI's own, else what the status means."""
    try:
        said = answer.json()
    except ValueError:
        said = {}
    text = said.get("detail") or said.get("title") if isinstance(said, dict) else None
    text = " ".join(str(text or answer.reason_phrase).split())
    return text if text.isprintable() else ascii(text)


def _chunks(path: Path, say: Callable[[int], None]) -> Iterator[bytes]:
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 18):
            yield chunk
            say(done := done + len(chunk))


def pull_request(to: Destination, manifest: Manifest, found: Examined) -> Path:
    """Write the text of a pull request beside the tree that it adds; its path."""
    bundle = to.folder.relative_to(to.root).as_posix()
    rescored = sum(checked.trust == "rescored" for checked in found.checked)
    lines = [
        f"# {manifest.backbone} on {manifest.suite}",
        "",
        "| task | data | score | 95 % interval | result | checked |",
        "|---|---|---:|---|---|---|",
    ]
    for checked in found.checked:
        result, score = checked.result, checked.result.headline
        said = "scored again" if checked.trust == "rescored" else f"unverified: {checked.reason}"
        lines.append(
            f"| {result.task.name} | {result.dataset.name} | {score.value:.2f} {score.unit} "
            f"| {score.low:.2f} to {score.high:.2f} | `{result.id}` | {said.replace('|', '/')} |"
        )
    lines += [
        "",
        "## Checked before this was written",
        "- every file has the sha256 of the manifest, which is signed",
        "- every record follows the schema; task versions, recipes, data fingerprints and cell ids fit each other",
        f"- {rescored} of {len(found.checked)} results follow from their predictions: values and intervals",
        "",
        f"Submission `{manifest.digest}`, by the key `{manifest.submitter}`.",
        "",
        "## For the reviewer",
        "Nothing in this tree is code. These check it again, take it in, and run a cell of it here:",
        "```bash",
        f"backbench verify {bundle}",
        f"backbench verify {bundle} --accept",
        "backbench verify --rerun",
        "```",
        "",
    ]
    path = to.root / "PULL_REQUEST.md"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
