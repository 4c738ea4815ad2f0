"""The roster's figures, from networks built without memory: on the meta device tensors have shapes and no values.

No network is asked: where a description lies on a hub (transformers, diffusers) a card's own words are all there is.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch

from .card import BackboneCard, Input
from .errors import Unavailable
from .interface import Backbone
from .registry import find_backbone, library_of
from .roster import packaged
from .sources.facts import Facts

Entry = dict[str, Any]


def write(file: Path) -> None:
    """Measure every packaged card, list every name of weights, and write both, a line each."""
    cards = {}
    for name in packaged():
        cards[name] = entry_of(find_backbone(name))
        print(name, *(f"{key}={cards[name].get(key)}" for key in ("params", "macs", "embed_dim")))
    parts = {"cards": cards, "libraries": dict(sorted(library_names()))}
    text = ['"made_by": "python -m backbench.backbones.roster"']
    text += [f"{json.dumps(part)}: {{\n{_lines(entries)}\n}}" for part, entries in parts.items()]
    file.write_text("{\n" + ",\n".join(text) + "\n}\n", encoding="utf-8")


def entry_of(card: BackboneCard) -> Entry:
    """The facts of one card; `digest` is the card's, so that an entry that is out of date shows.

    params, macs (multiply-accumulates from one image of its size to the embedding), embed_dim and levels are those of
    the image tower alone, with its projection where the tower holds it.
    """
    with without_hub():
        try:
            facts = library_of(card.source).describe(card)
        except Unavailable:
            facts = Facts()
    full = facts.complete(card)
    entry: Entry = {"digest": card.digest(), "source": card.source, "family": full.family}
    entry |= {
        "method": full.pretraining and full.pretraining.method,
        "data": full.pretraining and full.pretraining.data,
    }
    entry |= {"license": full.license, "paper": full.paper}
    if facts.input:
        input = card.input.over(facts.input)
        entry |= {"input": input.model_dump(), **measure(card, input)}
    return entry


def measure(card: BackboneCard, input: Input) -> Entry:
    """The figures of the network of a card."""
    try:
        backbone = _weightless(card, input, "meta")
    except NotImplementedError:  # a constructor that reads values off its tensors
        backbone = _weightless(card, input, "cpu")
    return {
        "params": sum(p.numel() for p in backbone.image_tower.parameters()),
        "macs": backbone.macs,
        "embed_dim": backbone.embed_dim,
        "levels": [[level.channels, level.stride] for level in backbone.levels],
        "text_tower": backbone.has_text,
    }


def library_names() -> Iterator[tuple[str, list[Any]]]:
    """Every name of weights that timm, open_clip and torchvision ship: family, method, data, input size, licence."""
    import open_clip
    import timm
    from torchvision import models

    names = [f"timm/{name}" for name in timm.list_pretrained()]
    names += [f"open_clip/{architecture}@{tag}" for architecture, tag in open_clip.list_pretrained()]
    for architecture in models.list_models(module=models):
        weights: Any = models.get_model_weights(architecture)
        names += [f"torchvision/{architecture}@{tag.name}" for tag in weights]
    for name in names:
        source, _, model = name.partition("/")
        facts = library_of(source).describe(BackboneCard(source=source, model=model))  # pyright: ignore[reportArgumentType]
        how = facts.pretraining
        yield name, [facts.family, how and how.method, how and how.data, facts.input.get("size"), facts.license]


def _weightless(card: BackboneCard, input: Input, device: str) -> Backbone:
    # Weights are not looked for; open_clip moves its model to a device of its own unless told, and its tokenizers,
    # some of which lie on a hub, play no part in an image tower.
    args = card.model_args | ({"device": device} if card.source == "open_clip" else {})
    bare = card.model_copy(update={"pretrained": False, "checkpoint": None, "model_args": args})
    with torch.device(device), patch("open_clip.get_tokenizer"), without_hub():
        backbone: Backbone = library_of(card.source).build(bare, input)
    return backbone.requires_grad_(False).eval()


@contextmanager
def without_hub() -> Iterator[None]:
    """Inside, no model hub can be reached and nothing of one is cached: the same figures on every machine."""
    from huggingface_hub import constants

    from . import hub

    with ExitStack() as stack:
        empty = stack.enter_context(TemporaryDirectory())
        stack.enter_context(patch.object(constants, "HF_HUB_CACHE", empty))
        stack.enter_context(patch.object(hub, "reachable", lambda host: False))
        yield


def _lines(entries: dict[str, Any]) -> str:
    return ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
