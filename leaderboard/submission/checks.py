"""Everything a receiver asks of a bundle. Each check raises BadInput with one line: file, path of the field, mend."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from ...backbones import BackboneCard
from ...backbones.card import file_digest
from ...backbones.errors import BadInput, NotApplicable, Unavailable
from ...backbones.reading import validate
from ...tasks import find_task
from ...tasks.datasets import DatasetCard
from ..result import Result
from .archive import Opened, shown
from .bundle import CARD, ENVIRONMENT, MANIFEST, Manifest, PlainName
from .parquet import refusals
from .record import (
    AHEAD,
    check_backbone,
    check_data,
    check_identity,
    check_paths,
    check_scores,
    check_task,
    check_times,
)
from .rescoring import rescore
from .signing import signed
from .strict import printable, read_json, read_yaml
from .truth import Truth

PLAIN = TypeAdapter(PlainName)


@dataclass(frozen=True)
class Checked:
    """One result that held: what it may be trusted for, why not for more, and its predictions in the bundle."""

    result: Result
    trust: Literal["reported", "rescored"]
    reason: str = ""
    predictions: Path | None = None


@dataclass
class Examined:
    """What was found of a bundle: `findings` are the reasons to refuse it, one line each."""

    manifest: Manifest | None = None
    card: BackboneCard | None = None
    checked: list[Checked] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    weights: dict[str, Path] = field(default_factory=dict)  # by digest

    def ask(self, check: Callable[..., Any], *args: Any) -> Any:
        """What a check gives; None where it finds something, which is noted."""
        try:
            return check(*args)
        except (BadInput, NotApplicable, Unavailable) as error:
            self.findings.append(" ".join(str(error).split()))
            return None


Progress = Callable[[str, int, int], None]


def examine(bundle: Opened, truth: Truth, progress: Progress = lambda what, done, total: None) -> Examined:
    """Every check of an opened bundle. Later checks wait for the earlier that they build on."""
    seen = Examined()
    seen.manifest = seen.ask(_manifest, bundle)
    if seen.manifest is None:
        return seen
    seen.ask(_listed, bundle, seen.manifest)
    if seen.findings:
        return seen
    seen.card = seen.ask(_card, bundle, seen.manifest)
    seen.ask(_environment, bundle)
    datasets = {Path(name).stem: seen.ask(_dataset, bundle, name) for name in _within(bundle, "datasets")}
    results = [seen.ask(_result, bundle, name) for name in _within(bundle, "results")]
    for name in _within(bundle, "weights"):
        if (digest := seen.ask(_weights, bundle, name, seen.card)) is not None:
            seen.weights[digest] = bundle.root / name
    if seen.findings or seen.card is None:
        return seen
    seen.ask(_together, bundle, seen.manifest, results, datasets)
    if seen.findings:
        return seen
    held = [c for r in results if (c := seen.ask(_cell, bundle, seen.manifest, seen.card, r, datasets, truth))]
    files = [(c.predictions, f"predictions/{c.result.id}.parquet", c.result.predictions.rows) for c in held]
    seen.findings += refusals([file for file in files if file[0]])
    if refused := [line for line in seen.findings if line.startswith("predictions/")]:
        held = [c for c in held if not any(c.result.id in line for line in refused)]
        held = [] if any("dies of it" in line for line in refused) else held  # what comes after was not tried
    for done, checked in enumerate(held):
        progress(f"scoring {checked.result.task.name}", done, len(held))
        again = seen.ask(_scored, checked, truth)
        seen.checked += [again] if again else []
    return seen


def _within(bundle: Opened, folder: str) -> list[str]:
    return sorted(name for name in bundle.sizes if name.startswith(f"{folder}/"))


def _manifest(bundle: Opened) -> Manifest:
    if MANIFEST not in bundle.sizes:
        raise BadInput(f"{MANIFEST}: $: is missing; `backbench submit` writes it")
    said = read_json(bundle.read(MANIFEST), MANIFEST)
    if said.get("format") != 1:
        raise BadInput(f"{MANIFEST}: format: {shown(said.get('format'))} is not read here, 1 is; update backbench")
    manifest = printable(validate, said, Manifest, MANIFEST)
    if manifest.created > datetime.now(UTC) + AHEAD:
        raise BadInput(f"{MANIFEST}: created: {manifest.created.isoformat()} is yet to come; set the clock")
    if not signed(manifest.submitter, manifest.signature, manifest.signed_bytes):
        raise BadInput(f"{MANIFEST}: signature: is not the submitter's for what it says; build the bundle again")
    return manifest


def _listed(bundle: Opened, manifest: Manifest) -> None:
    """The files are exactly those of the manifest."""
    there = set(bundle.sizes) - {MANIFEST}
    for name in (CARD, ENVIRONMENT):
        if name not in there:
            raise BadInput(f"{name}: $: is missing; `backbench submit` writes it")
    if extra := sorted(there - manifest.files.keys()):
        raise BadInput(f"{extra[0]}: sha256: is in the bundle, its manifest does not list it")
    if gone := sorted(manifest.files.keys() - there):
        raise BadInput(f"{MANIFEST}: files.{shown(gone[0])}: is listed, the bundle does not have it")
    for name, told in manifest.files.items():
        if bundle.sizes[name] != told.bytes:
            raise BadInput(f"{name}: bytes: {bundle.sizes[name]}, the manifest says {told.bytes}; it was changed")
        if file_digest(bundle.root / name) != told.sha256:
            raise BadInput(f"{name}: sha256: is not the manifest's; the file was changed")


def _card(bundle: Opened, manifest: Manifest) -> BackboneCard:
    card = read_yaml(bundle.read(CARD), BackboneCard, CARD)
    check_paths(card, CARD)
    _plain(card.name, f"{CARD}: name")
    if card.name != manifest.backbone:
        raise BadInput(f"{CARD}: name: {shown(card.name)!r}, the manifest says {shown(manifest.backbone)!r}")
    return card


def _environment(bundle: Opened) -> None:
    for library, version in read_json(bundle.read(ENVIRONMENT), ENVIRONMENT).items():
        if not isinstance(version, str) or len(version) > 200:
            raise BadInput(f"{ENVIRONMENT}: {shown(library)}: a version is a short text, got {shown(version)}")


def _dataset(bundle: Opened, name: str) -> DatasetCard:
    card = read_yaml(bundle.read(name), DatasetCard, name)
    if card.name != Path(name).stem:
        raise BadInput(f"{name}: name: {shown(card.name)!r} is not what the file is called")
    return card


def _result(bundle: Opened, name: str) -> Result:
    data = bundle.read(name)
    read_json(data, name)  # bounded and plain
    result = printable(Result.from_json, data, name)
    if result.id != Path(name).stem:
        raise BadInput(f"{name}: id: {result.id} is not what the file is called")
    for key, text in (("backbone.name", result.backbone.name), ("dataset.name", result.dataset.name)):
        _plain(text, f"{name}: {key}")
    for score in result.scores:
        if not re.fullmatch(r"[\w][\w .:@+/()&',=~-]*", score):
            raise BadInput(f"{name}: scores: {shown(score)!r} is no name of a score")
    return result


def _plain(text: str, where: str) -> None:
    try:
        PLAIN.validate_python(text)
    except ValidationError:
        raise BadInput(f"{where}: {shown(text)!r}: use letters, digits, spaces and ._@+:/()=,~-") from None


def _weights(bundle: Opened, name: str, card: BackboneCard | None) -> str:
    """The digest of weights, if they are what the card names and nothing but tensors."""
    from safetensors import SafetensorError, safe_open

    digest = file_digest(bundle.root / name)
    if card and not (card.checkpoint and Path(card.checkpoint.path).name == Path(name).name):
        raise BadInput(f"{name}: file: the card names no such checkpoint")
    if card and card.checkpoint and card.checkpoint.sha256 not in (None, digest):
        raise BadInput(f"{CARD}: checkpoint.sha256: is not that of {name}")
    try:
        with safe_open(bundle.root / name, framework="np"):
            return digest
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{name}: file: not safetensors: {shown(error)}") from None


def _together(bundle: Opened, manifest: Manifest, results: list[Result], datasets: dict[str, DatasetCard]) -> None:
    """What results, cards, predictions and manifest say of each other."""
    if not results:
        raise BadInput("results: $: there are none; run the suite first")
    first: dict[tuple, Result] = {}
    for result in results:
        where = f"results/{result.id}.json"
        for key in ((result.cell_id,), (result.protocol, result.seed)):
            if key in first:
                raise BadInput(f"{where}: cell_id: the same cell as results/{first[key].id}.json; hand one in")
            first[key] = result
        if result.backbone.name != manifest.backbone:
            raise BadInput(f"{where}: backbone.name: {shown(result.backbone.name)!r}, the bundle is of "
                           f"{shown(manifest.backbone)!r}")  # fmt: skip
        has = f"predictions/{result.id}.parquet" in bundle.sizes
        if has == (result.id in manifest.unverified):
            raise BadInput(
                f"{MANIFEST}: unverified.{result.id}: its predictions are in the bundle, leave it out"
                if has
                else f"predictions/{result.id}.parquet: $: is missing, and manifest.unverified does not say why"
            )
    ids = {result.id for result in results}
    for name in _within(bundle, "predictions"):
        if Path(name).stem not in ids:
            raise BadInput(f"{name}: $: belongs to no result of the bundle")
    if stray := sorted(manifest.unverified.keys() - ids):
        raise BadInput(f"{MANIFEST}: unverified.{stray[0]}: is no result of the bundle")
    if stray := sorted(datasets.keys() - {result.dataset.name for result in results}):
        raise BadInput(f"datasets/{stray[0]}.yaml: $: no result of the bundle is on it")


def _cell(
    bundle: Opened, manifest: Manifest, card: BackboneCard, result: Result, datasets: dict[str, DatasetCard],
    truth: Truth,
) -> Checked:  # fmt: skip
    """All checks of one record, before its predictions are opened; it is "rescored" if they follow."""
    where = f"results/{result.id}.json"
    task = check_task(result, where)
    check_scores(result, task, where)
    check_times(result, where)
    check_backbone(result, card, where)
    own = truth.card(result.dataset.name)
    described = own or datasets.get(result.dataset.name)
    if described is None:
        name = result.dataset.name
        raise BadInput(f"{where}: dataset.name: there is no data set {name!r} here, and no datasets/{name}.yaml")
    check_identity(result, task, described, where)
    data = truth.data(result.dataset.name, task, result.dataset.limit) if own else "a data set of the submitter's own"
    if not isinstance(data, str):
        check_data(result, task, data, truth, where)
    name = f"predictions/{result.id}.parquet"
    if name not in bundle.sizes:
        return Checked(result, "reported", manifest.unverified[result.id])
    path = bundle.root / name
    if manifest.files[name].sha256 != result.predictions.sha256:
        raise BadInput(f"{where}: predictions.sha256: is not that of {name}")
    if isinstance(data, str):
        return Checked(result, "reported", data, path)
    return Checked(result, "rescored", predictions=path)


def _scored(checked: Checked, truth: Truth) -> Checked:
    """The same, once its scores follow from its predictions, where they are there and our own labels too."""
    result, path = checked.result, checked.predictions
    if path and checked.trust == "rescored":
        task = find_task(result.task.name)
        data = truth.data(result.dataset.name, task, result.dataset.limit)
        assert not isinstance(data, str)
        rescore(result, path, f"predictions/{result.id}.parquet", task, data)
    return checked
