"""A file of weights, read without running anything in it, into a network that must want exactly what it holds."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from .card import BackboneCard, file_digest
from .errors import BadInput, did_you_mean
from .hub import weights_from

# Where training code keeps the weights inside its file, the averaged ones first: those are what papers report.
NESTS = ("state_dict_ema", "model_ema", "ema_state_dict", "teacher", "target_encoder")
NESTS += ("state_dict", "model_state_dict", "model", "backbone", "encoder", "network", "net", "module")


def load_checkpoint(card: BackboneCard, body: nn.Module, heads: Iterable[str] = ()) -> None:
    """Load `card.checkpoint` into `body`, whose classifier is off; keys under `heads` may be left over.

    Raises BadInput where file, digest, names or shapes don't fit, Unavailable for a file out of reach.
    """
    path = fetch(card)
    weights = rename(read_weights(path), card.key_map)
    fitting = fit(weights, body.state_dict(), tuple(heads), where=f"{card.name}: {path.name}")
    body.load_state_dict(fitting)


def fetch(card: BackboneCard) -> Path:
    """The card's checkpoint as a local file, its sha256 verified where the card gives one."""
    assert card.checkpoint is not None
    source, want = card.checkpoint.path, card.checkpoint.sha256
    scheme = urlsplit(source).scheme if "://" in source else ""
    if scheme == "hf":
        path = _from_hub(source, card.name)
    elif scheme == "https":
        path = _from_url(source, card.name)
    elif scheme:
        raise BadInput(
            f"{card.name}: checkpoint: {source}: {scheme}:// is not read; give https://, hf:// or a local file"
        )
    else:
        path = card.folder / source
        if not path.is_file():
            beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise BadInput(f"{card.name}: checkpoint: no such file: {path}{did_you_mean(path.name, beside)}")
    if want and (got := file_digest(path)) != want:
        raise BadInput(
            f"{card.name}: checkpoint: {path} has sha256 {got}, the card says {want}: not the file that is meant"
        )
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file or a `torch.save`d state dict, which may be nested. Raises BadInput."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())
        if "weights_only" in reason.lower():
            raise BadInput(
                f"{path}: is a pickle that wants to run code ({_wanted(path)}), which is refused; "
                "save the bare weights: torch.save(model.state_dict(), …) or safetensors"
            ) from None
        raise BadInput(f"{path}: cannot be read as weights: {reason[:200] or type(error).__name__}") from None
    while isinstance(found, Mapping) and not any(isinstance(value, Tensor) for value in found.values()):
        inner = next((found[key] for key in NESTS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            raise BadInput(f"{path}: holds no weights; its keys are: {_few(map(str, found))}")
        found = inner
    if not isinstance(found, Mapping):
        raise BadInput(f"{path}: holds a {type(found).__name__}, not a mapping of names to tensors")
    return {str(key): value for key, value in found.items() if isinstance(value, Tensor)}


def rename(weights: dict[str, Tensor], key_map: Mapping[str, str]) -> dict[str, Tensor]:
    """Names with the longest matching prefix of `key_map` replaced.

    Where a prefix maps to nothing the network is what lies under it, and names under no prefix of the map are left out.
    """
    only = "" in key_map.values()
    renamed = {}
    for name, tensor in weights.items():
        prefix = max((old for old in key_map if name.startswith(old)), key=len, default=None)
        if prefix is not None:
            renamed[key_map[prefix] + name[len(prefix) :]] = tensor
        elif not only:
            renamed[name] = tensor
    return renamed


def fit(weights: dict[str, Tensor], wanted: dict[str, Tensor], heads: tuple[str, ...], where: str) -> dict[str, Tensor]:
    """The tensors for exactly the names in `wanted`: a wrapper's prefix stripped, a classifier under `heads` left out.

    What lies outside the prefix (a projection head, an optimiser's state) belongs to the trainer, not to the network.
    Batch counters may be missing. Raises BadInput when anything else is missing, left over, or of another shape.
    """
    needed = [name for name in wanted if not name.endswith("num_batches_tracked")]
    found = _prefixes(weights, needed)
    complete = [prefix for prefix in found if all(prefix + name in weights for name in needed)]
    if "" in complete:
        complete = [""]
    if len(complete) > 1:
        raise BadInput(
            f"{where}: several networks in it fit; choose one: key_map: {{{min(complete)!r}: ''}} ({_few(complete)})"
        )
    prefix = complete[0] if complete else ""
    missing = [name for name in needed if prefix + name not in weights]
    under = {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}
    extra = [name for name in under if name not in wanted and not name.startswith(tuple(f"{head}." for head in heads))]
    if missing or (extra and complete):
        problem = f"lacks {len(missing)} of {len(needed)} names ({_few(missing)})" if missing else ""
        surplus = f"has {len(extra)} names that the network lacks ({_few(extra)})" if extra else ""
        raise BadInput(f"{where}: {' and '.join(filter(None, (problem, surplus)))}{_proposal(weights, needed, found)}")
    for name in needed:
        if under[name].shape != wanted[name].shape:
            have, want = tuple(under[name].shape), tuple(wanted[name].shape)
            raise BadInput(f"{where}: {name} has shape {have}, the network wants {want}; see `model` and `model_args`")
    return {name: under.get(name, wanted[name]) for name in wanted}


def _prefixes(weights: Iterable[str], needed: list[str]) -> list[str]:
    """Prefixes under which some of the needed names are found, the best first."""
    ends = {name.rsplit(".", 2)[-2] + "." + name.rsplit(".", 1)[-1] if "." in name else name for name in needed}
    known = set(needed)
    counts: dict[str, int] = {}
    for name in weights:
        parts = name.split(".")
        if ".".join(parts[-2:]) not in ends and parts[-1] not in ends:
            continue
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in known:
                prefix = "".join(f"{part}." for part in parts[:cut])
                counts[prefix] = counts.get(prefix, 0) + 1
    return sorted(counts, key=lambda prefix: (-counts[prefix], len(prefix)))


def _proposal(weights: Mapping[str, Tensor], needed: list[str], found: list[str]) -> str:
    best = found[0] if found else ""
    if best:
        share = sum(best + name in weights for name in needed)
        return f"; {share} of {len(needed)} fit with key_map: {{{best!r}: ''}}"
    # Perhaps the names are right and the network's carry a prefix instead.
    ends = {name.partition(".")[0] for name in needed}
    for head in sorted(ends):
        share = sum(f"{head}.{name}" in needed for name in weights)
        if share > len(needed) / 2:
            return f"; {share} of {len(needed)} fit with key_map: {{'': '{head}.'}}"
    return "; is `model` the right one?"


def _few(names: Iterable[str], most: int = 4) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _wanted(path: Path) -> str:
    try:
        return _few(torch.serialization.get_unsafe_globals_in_checkpoint(str(path))) or "an object of its own"
    except Exception:
        return "an object of its own"


def _from_hub(source: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    parts, _, revision = source.removeprefix("hf://").partition("@")
    owner, _, rest = parts.partition("/")
    repo, _, file = rest.partition("/")
    if not file:
        raise BadInput(f"{name}: checkpoint: {source}: write hf://owner/name/file, then @revision if there is one")
    with weights_from("huggingface.co", name):
        return Path(hf_hub_download(f"{owner}/{repo}", file, revision=revision or None))


def _from_url(source: str, name: str) -> Path:
    import hashlib

    address = urlsplit(source)
    folder = Path(torch.hub.get_dir()) / "checkpoints" / hashlib.sha256(source.encode()).hexdigest()[:16]
    path = folder / (Path(address.path).name or "weights")
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with weights_from(address.netloc, name):
            torch.hub.download_url_to_file(source, str(path), progress=False)
    return path
