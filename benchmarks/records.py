"""Somebody else's record of a result, by its id: from a page, a bundle, a server, or a file. Nothing of it is run."""

import json
import re
from pathlib import Path
from typing import Any

from ..backbones import BadInput, Unavailable
from ..leaderboard import Result
from ..leaderboard.submission import opened

CALL = re.compile(rb"\s*backbench\.row\((.*)\);?\s*", re.DOTALL)  # how a page's file of records reads
LARGEST = 64 << 20  # bytes of one
WAIT = 30  # seconds for a server's answer


def record(id: str, source: str) -> Result:
    """The result whose id starts with `id`, in a page (folder or URL), a bundle (folder or zip), a server's URL, or a
    JSON file. Raises BadInput where it is not there or not whole, Unavailable where nobody answers."""
    if not re.fullmatch(r"[0-9a-f]{4,16}", id):
        raise BadInput(f"{id!r} is no id of a result; it is 4 to 16 of the digits 0-9 and a-f")
    if re.match(r"^https?://", source):
        return _of_url(id, source.rstrip("/").removesuffix("/index.html"))
    if "://" in source:
        raise BadInput(f"--from {source}: give a folder, a file, or a URL that starts with https://")
    path = Path(source).expanduser()
    if path.name == "index.html":
        path = path.parent
    if (path / "rows" / "index.json").is_file():
        return _of_page(id, source, lambda name: _bytes(path / name))
    if path.is_dir() or path.suffix == ".zip":
        return _of_bundle(id, path)
    if not path.is_file():
        raise BadInput(f"--from {source}: no such file or folder; give a page's folder, a bundle, a URL, or a record")
    return _chosen(id, [Result.from_json(_bytes(path), where=source)], source)


def _of_page(id: str, source: str, read: Any) -> Result:
    index = _json(read("rows/index.json"), f"{source}: rows/index.json")
    numbers = {number for key, number in index.items() if key.startswith(id)} if isinstance(index, dict) else set()
    if not numbers:
        raise BadInput(f"--from {source}: there is no result {id!r} on this page")
    if len(numbers) > 1:
        raise BadInput(f"--from {source}: results of {len(numbers)} backbones start with {id!r}; type more of the id")
    [number] = numbers
    if type(number) is not int or number < 0:
        raise BadInput(f"{source}: rows/index.json: {id}: is no number of a file")
    where = f"{source}: rows/{number}.js"
    call = CALL.fullmatch(read(f"rows/{number}.js"))
    records = _json(call[1], where) if call else None
    if not isinstance(records, list):
        raise BadInput(f"{where}: not a page's file of records")
    near = [r for r in records if isinstance(r, dict) and str(r.get("id", "")).startswith(id)]
    return _chosen(id, [Result.from_json(json.dumps(r), where=where) for r in near], source)


def _of_bundle(id: str, path: Path) -> Result:
    with opened(path) as bundle:
        names = [name for name in bundle.sizes if name.startswith(f"results/{id}")]
        return _chosen(id, [Result.from_json(bundle.read(name), where=name) for name in names], str(path))


def _of_url(id: str, url: str) -> Result:
    """A server's answer, else what a static page of the same address has."""
    said = _get(f"{url}/api/v1/results/{id}")
    if said is not None:
        try:
            answer = json.loads(said)
        except ValueError:
            answer = None
        if isinstance(answer, dict):
            return _chosen(id, [Result.from_json(json.dumps(answer.get("result", answer)), where=url)], url)

    def read(name: str) -> bytes:
        if (found := _get(f"{url}/{name}")) is None:
            raise BadInput(f"--from {url}: neither a server's result {id!r} nor a page's {name} is there")
        return found

    return _of_page(id, url, read)


def _get(url: str) -> bytes | None:
    """What a URL gives, None for nothing. Raises Unavailable where nobody answers, BadInput for too much."""
    import httpx

    try:
        with httpx.stream("GET", url, timeout=WAIT, follow_redirects=True) as answer:
            if answer.status_code >= 500 or answer.status_code == 429:
                raise Unavailable(f"{url}: {answer.status_code} {answer.reason_phrase}; try again later")
            if answer.status_code != 200:
                return None
            body = bytearray()
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > LARGEST:
                    raise BadInput(f"{url}: over {LARGEST >> 20} MiB; a record is some kilobytes")
            return bytes(body)
    except httpx.InvalidURL as error:
        raise BadInput(f"--from {url}: {error}") from None
    except httpx.HTTPError as error:
        raise Unavailable(f"{url}: {error or type(error).__name__}") from None


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST:
            raise BadInput(f"{path}: over {LARGEST >> 20} MiB; a record is some kilobytes")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None


def _json(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not valid JSON: {error}") from None


def _chosen(id: str, found: list[Result], source: str) -> Result:
    fits = {result.id: result for result in found if result.id.startswith(id)}
    if len(fits) != 1:
        said = "there is no result" if not fits else f"{len(fits)} results start with"
        raise BadInput(f"--from {source}: {said} {id!r}")
    return next(iter(fits.values()))
