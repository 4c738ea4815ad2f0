"""From a name, a path or a card to a backbone."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from .card import BackboneCard, Source
from .errors import BadInput, Unavailable, unknown
from .loading import Decoder, Loading, Precision, pick_device
from .reading import read_card, validate

if TYPE_CHECKING:
    from .interface import Backbone

CARDS = Path(__file__).parent / "cards"
SOURCES: tuple[str, ...] = get_args(Source)


@cache
def _cards() -> dict[str, Path]:
    """Every packaged card by its name, and those that installed packages add (an entry point is a file or a folder)."""
    found = {path.relative_to(CARDS).as_posix().removesuffix(".yaml"): path for path in sorted(CARDS.rglob("*.yaml"))}
    for entry in entry_points(group="backbench.backbones"):
        root = Path(entry.load())
        paths = sorted(root.rglob("*.yaml")) if root.is_dir() else [root]
        for path in paths:
            name = path.relative_to(root).as_posix() if root.is_dir() else entry.name
            found.setdefault(name.removesuffix(".yaml"), path)
    return found


def list_backbones() -> list[str]:
    """Names of all cards that come with backbench or with an installed plugin; no library is imported."""
    return sorted(_cards())


def find_backbone(name: str | Path) -> BackboneCard:
    """The card of a packaged name, a path to a card (.yaml), or a library's name such as `timm/resnet50.a1_in1k`.

    Raises BadInput with the nearest names; only a library's name imports that library, and nothing is built.
    """
    text = str(name)
    if text.endswith((".yaml", ".yml")):
        return _read(Path(name))
    if text in _cards():
        return _read(_cards()[text], name=text)
    source, _, model = text.partition("/")
    if source not in SOURCES or not model:
        raise _unknown(text)
    library = library_of(source)
    model = library.find(model)
    name = f"{source}/{model}"  # as the library writes it in full, with the tag of its weights
    if name in _cards():
        return _read(_cards()[name], name=name)
    card = validate({"name": name, "source": source, "model": model}, BackboneCard, where=text)
    try:
        return library.describe(card).complete(card)
    except Unavailable:  # the description is on a hub out of reach; loading will say so
        return card


def load_backbone(
    backbone: "str | Path | BackboneCard | Backbone",
    device: str = "cpu",
    precision: Precision = "float32",
    channels_last: bool = False,
    compile: bool = False,
    decoder: Decoder = "pil",
) -> "Backbone":
    """A backbone in eval mode on `device`, its weights float32; a Backbone comes back as it was loaded, moved.

    The same card gives the same weights, random ones too, and the global random state stays as it was.
    `precision`, `channels_last`, `compile`, `decoder`: see `Loading`. Raises BadInput, Unavailable.
    """
    from .interface import Backbone

    loading, device = Loading(precision, channels_last, compile, decoder), pick_device(device)
    if isinstance(backbone, Backbone):
        return backbone.to(device)
    card = backbone if isinstance(backbone, BackboneCard) else find_backbone(backbone)
    library = library_of(card.source)
    try:
        facts = library.describe(card)
        input = card.input.over(facts.input)
    except ValidationError as error:
        missing = ", ".join(str(problem["loc"][0]) for problem in error.errors())
        raise BadInput(f"{card.name}: nothing says {missing} of its input; give `input: {{size, mean, std}}`") from None
    except BadInput as error:
        raise BadInput(f"{card.name}: {error}") from None
    with random_state_of(card.init_seed):
        built = library.build(facts.complete(card), input)
    return built.float().eval().to(device).load_as(loading)


def _read(path: Path, name: str = "") -> BackboneCard:
    card = read_card(path, BackboneCard)
    stem = path.name.removesuffix(".yaml").removesuffix(".yml")
    return card.model_copy(update={"name": card.name or name or stem, "folder": path.parent})


def library_of(source: str) -> Any:
    """The module of `sources/` that reads a source. Raises BadInput, Unavailable."""
    try:
        return import_module(f".sources.{source}", __package__)
    except ModuleNotFoundError as error:
        if error.name == f"{__package__}.sources.{source}":
            raise BadInput(f"source {source} is not read by this version; use source: python with a file") from None
        missing = (error.name or source).partition(".")[0]
        package = "'backbench[diffusion]'" if missing == "diffusers" else missing
        raise Unavailable(f"source {source}: the package {missing!r} is not installed; pip install {package}") from None


def _unknown(name: str) -> BadInput:
    if "/" not in name:  # `resnet18` means a library's: worth importing timm for, as this is an error anyway
        return unknown(
            "backbone", name, [*list_backbones(), *(f"timm/{model}" for model in library_of("timm").names())]
        )
    return unknown("backbone", name, [*list_backbones(), *(f"{source}/" for source in SOURCES)])


@contextmanager
def random_state_of(seed: int) -> Iterator[None]:
    """Inside, torch, numpy and python draw from `seed`; afterwards all three are as they were."""
    import numpy as np
    import torch

    legacy = np.random  # the global generators are what libraries draw from, so they are what must be kept
    python, numpy = random.getstate(), legacy.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            torch.manual_seed(seed)
            legacy.seed(seed % 2**32)
            random.seed(seed)
            yield
        finally:
            legacy.set_state(numpy)
            random.setstate(python)
