"""The file of weights that a card names, as a local one: whole, and the very one that is meant."""

import hashlib
import os
import urllib.request
import uuid
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from .card import BackboneCard, file_digest
from .errors import BadInput, Unavailable, did_you_mean
from .hub import reachable, weights_from

PATIENCE = 60.0  # seconds without a byte until a download is given up


def fetch(card: BackboneCard) -> Path:
    """The card's checkpoint as a local file, its sha256 verified where the card gives one.

    Raises BadInput where there is no such file or it is another one, Unavailable for one out of reach.
    """
    assert card.checkpoint is not None
    source, want = card.checkpoint.path, card.checkpoint.sha256
    path = card.checkpoint_file
    scheme = "" if path else urlsplit(source).scheme
    if path is not None:
        _must_be_a_file(path, card.name)
    elif scheme == "hf":
        path = _from_hub(source, card.name)
    elif scheme == "https":
        path = _from_url(source, card.name, want)
    else:
        raise BadInput(
            f"{card.name}: checkpoint: {source}: {scheme}:// is not read; give https://, hf:// or a local file"
        )
    if want and (got := file_digest(path)) != want:
        raise BadInput(
            f"{card.name}: checkpoint: {path} has sha256 {got}, the card says {want}: not the file that is meant"
        )
    return path


def download(url: str, path: Path, sha256: str | None = None) -> None:
    """Write what is at `url` to `path`, where it appears whole and verified or not at all.

    Raises BadInput for another file than `sha256` says, OSError where it cannot be had or ends too early.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    request = urllib.request.Request(url, headers={"User-Agent": "backbench"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer, partial.open("wb") as file:
            if urlsplit(answer.url).scheme != urlsplit(url).scheme:
                raise BadInput(f"{url}: leads to {answer.url}, over a line that anybody can change; give another URL")
            sha = hashlib.sha256()
            while block := answer.read(1 << 20):
                file.write(block)
                sha.update(block)
            if answer.length:  # the bytes that were announced and did not come
                raise URLError(f"ended {answer.length} bytes too early")
        if sha256 and sha.hexdigest() != sha256:
            raise BadInput(
                f"{url}: has sha256 {sha.hexdigest()}, the card says {sha256}: not the file that is meant, and not kept"
            )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _must_be_a_file(path: Path, name: str) -> None:
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.suffix in (".safetensors", ".pth", ".pt", ".bin"))
        hint = f", say {path.name}/{inside[0]}" if inside else ""
        raise BadInput(f"{name}: checkpoint: {path} is a folder; name the file of weights in it{hint}")
    if not path.is_file():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise BadInput(f"{name}: checkpoint: no such file: {path}{did_you_mean(path.name, beside)}")


def _from_hub(source: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    parts, _, revision = source.removeprefix("hf://").partition("@")
    owner, _, rest = parts.partition("/")
    repo, _, file = rest.partition("/")
    if not file:
        raise BadInput(f"{name}: checkpoint: {source}: write hf://owner/name/file, then @revision if there is one")
    with weights_from("huggingface.co", name):
        return Path(hf_hub_download(f"{owner}/{repo}", file, revision=revision or None))


def _from_url(source: str, name: str, sha256: str | None) -> Path:
    import torch.hub

    address = urlsplit(source)
    folder = Path(torch.hub.get_dir()) / "checkpoints" / hashlib.sha256(source.encode()).hexdigest()[:16]
    path = folder / (Path(address.path).name or "weights")
    if not path.is_file():
        if not reachable(address.netloc):
            raise Unavailable(
                f"{name}: weights cannot be downloaded (no network to {address.netloc}?); "
                "give `checkpoint:` a local file"
            )
        try:
            download(source, path, sha256)
        except HTTPError as error:
            raise Unavailable(
                f"{name}: {source}: the server answers {error.code} {error.reason}; is the address right?"
            ) from None
        except (OSError, HTTPException) as error:
            raise Unavailable(
                f"{name}: {source}: cannot be downloaded ({error}); try again, or give `checkpoint:` a local file"
            ) from None
    return path
