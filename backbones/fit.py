"""Which tensor of a file is which of a network: wrappers stripped, names mapped, and nothing guessed."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .errors import BadInput

Weights = dict[str, Tensor]
Convert = Callable[[Weights], Weights]  # from another code's names and arrangement to the library's own
KeyMap = Mapping[str, str | None]


def fit(
    weights: Weights,
    wanted: Weights,
    heads: tuple[str, ...],
    where: str,
    key_map: KeyMap | None = None,
    convert: Convert | None = None,
) -> Weights:
    """The tensors for exactly the names in `wanted`: a wrapper's prefix stripped, a classifier under `heads` left out.

    What lies outside the prefix (a projection head, an optimiser's state) belongs to the trainer, not to the network.
    Batch counters may be missing. Names that fit only after `convert` are mapped by `key_map` as they then are.
    Raises BadInput when anything else is missing, left over, or of another shape.
    """
    key_map = key_map or {}
    match = _match(rename(weights, key_map), wanted, heads)
    if not match.fits and len(match.complete) < 2 and convert:
        match = _converted(weights, wanted, heads, key_map, convert) or match
    if len(match.complete) > 1:
        one, all_of_them = min(match.complete), few(match.complete)
        raise BadInput(f"{where}: several networks in it fit; choose one: key_map: {{{one!r}: ''}} ({all_of_them})")
    if not match.fits:
        raise BadInput(f"{where}: {match.problem}{match.proposal}")
    for name in match.needed:
        have, want = tuple(match.found[name].shape), tuple(wanted[name].shape)
        if have != want:
            hint = ", or `model_args: {img_size: …}` for one made at another size" if "pos_embed" in name else ""
            raise BadInput(
                f"{where}: {name} has shape {have}, the network wants {want}; see `model` and `model_args`{hint}"
            )
    return {name: match.found.get(name, wanted[name]) for name in wanted}


def rename(weights: Weights, key_map: KeyMap) -> Weights:
    """Names with the longest matching prefix of `key_map` replaced, or left out where it maps to None.

    Where a prefix maps to nothing the network is what lies under it, and names under no prefix of the map are left out.
    """
    only = "" in key_map.values()
    renamed = {}
    for name, tensor in weights.items():
        prefix = max((old for old in key_map if name.startswith(old)), key=len, default=None)
        new = ("" if not only else None) if prefix is None else key_map[prefix]
        if new is None:
            continue
        new += name.removeprefix(prefix or "")
        if new in renamed:
            raise BadInput(
                f"key_map: {name!r} and another name in the file both become {new!r}; map one of them to null"
            )
        renamed[new] = tensor
    return renamed


@dataclass(frozen=True)
class _Match:
    """How the names of a file meet those of a network."""

    found: Weights  # what lies under the best prefix, by the network's names
    needed: list[str]
    missing: list[str]
    extra: list[str]
    prefixes: list[str]  # of all networks in the file that have something of this one, the best first
    complete: list[str]  # of those that have all of it
    names: list[str]  # all there are in the file

    @property
    def fits(self) -> bool:
        return not self.missing and not self.extra

    @property
    def problem(self) -> str:
        parts = []
        if self.missing:
            parts.append(f"lacks {len(self.missing)} of {len(self.needed)} names ({few(self.missing)})")
        if self.extra:
            parts.append(f"has {len(self.extra)} names that the network lacks ({few(self.extra)})")
        return " and ".join(parts)

    @property
    def proposal(self) -> str:
        """The `key_map` that would mend it, or mend most of it."""
        if not self.missing:
            parts = sorted({name.partition(".")[0] + "." * ("." in name) for name in self.extra})
            prefix = self.complete[0] if self.complete else ""
            left_out = ", ".join(f"{prefix + part!r}: null" for part in parts[:4])
            return f"; if they belong to the training alone, leave them out: key_map: {{{left_out}}}"
        best = self.prefixes[0] if self.prefixes else ""
        total = len(self.needed)
        if best:
            return f"; {total - len(self.missing)} of {total} fit with key_map: {{{best!r}: ''}}"
        # Perhaps the names are right and the network's carry a prefix instead.
        for head in sorted({name.partition(".")[0] for name in self.needed}):
            share = len({f"{head}.{name}" for name in self.names} & set(self.needed))
            if share > total / 2:
                return f"; {share} of {total} fit with key_map: {{'': '{head}.'}}"
        return "; is `model` the right one?"


def _match(weights: Weights, wanted: Weights, heads: tuple[str, ...]) -> _Match:
    needed = [name for name in wanted if not name.endswith("num_batches_tracked")]
    prefixes = _prefixes(weights, needed)
    complete = [prefix for prefix in prefixes if all(prefix + name in weights for name in needed)]
    if "" in complete:
        complete = [""]
    prefix = (complete or prefixes or [""])[0]
    found = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    extra = [name for name in found if name not in wanted and not name.startswith(tuple(f"{head}." for head in heads))]
    return _Match(
        found=found,
        needed=needed,
        missing=[name for name in needed if name not in found],
        extra=extra,
        prefixes=prefixes,
        complete=complete,
        names=list(weights),
    )


def _prefixes(weights: Iterable[str], needed: list[str]) -> list[str]:
    """Prefixes under which some of the needed names are found, the best first."""
    known = set(needed)
    counts: dict[str, int] = {}
    for name in weights:
        parts = name.split(".")
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in known:
                prefix = "".join(f"{part}." for part in parts[:cut])
                counts[prefix] = counts.get(prefix, 0) + 1
    return sorted(counts, key=lambda prefix: (-counts[prefix], len(prefix)))


def _converted(
    weights: Weights, wanted: Weights, heads: tuple[str, ...], key_map: KeyMap, convert: Convert
) -> _Match | None:
    """The match after the library's converter, of the network where the card says, or wherever one may lie."""
    place = {old: new for old, new in key_map.items() if not new}
    names = {old: new for old, new in key_map.items() if new != ""}
    inside = rename(weights, place)
    fitting: dict[str, _Match] = {}
    wrappers = Counter(f"{'.'.join(name.split('.')[:n])}." for name in inside for n in (1, 2))
    for prefix in ["", *(wrapper for wrapper, _ in wrappers.most_common(6))]:
        under = {name.removeprefix(prefix): tensor for name, tensor in inside.items() if name.startswith(prefix)}
        try:
            found = rename(convert(dict(under)), names)
        except Exception:  # a converter is written for the files it knows and trips over any other
            continue
        match = _match(found, wanted, heads)
        if len(match.complete) > 1:
            return match
        if match.fits and not _resampled(under, match) and not any(_same(match, other) for other in fitting.values()):
            fitting[prefix] = match
    return replace(next(iter(fitting.values())), complete=list(fitting)) if fitting else None


def _same(match: _Match, other: _Match) -> bool:
    return all(torch.equal(match.found[name], other.found[name]) for name in match.needed)


def _resampled(under: Weights, match: _Match) -> bool:
    """Whether the converter made up numbers: it may rename, reshape and stack (q, k and v), not stretch to fit."""
    sizes = {tensor.numel() for tensor in under.values()}
    made = {match.found[name].numel() for name in match.needed}
    return any(size not in sizes and (size % 3 or size // 3 not in sizes) for size in made)


def few(names: Iterable[str], most: int = 4) -> str:
    """The first of some names, for a message."""
    names = list(names)
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
