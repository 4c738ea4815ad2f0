"""A backbone under examination, and what several points look at, computed once."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..card import BackboneCard
from ..interface import Backbone, Features
from ..loading import Loading
from ..registry import load_backbone


class Broken(Exception):
    """A promise that was not kept; the message says what was seen instead."""


@dataclass(frozen=True)
class Figure:
    """A number that was measured on the way, with the sentence about it."""

    detail: str
    value: float
    unit: str


class Subject:
    """A loaded backbone, three pictures as it wants them, and the passes that points share.

    `card` is None where the backbone came as an object, so that nothing is known of its loading.
    """

    def __init__(self, backbone: Backbone, card: BackboneCard | None = None, touched: tuple[str, ...] = ()):
        self.backbone, self.card, self.touched = backbone, card, touched
        self.device = next((str(p.device) for p in backbone.parameters()), "cpu")
        self.images = backbone.transform.normalise(_pictures(backbone.input.size)).to(self.device)

    @classmethod
    def of(cls, card: BackboneCard, device: str) -> "Subject":
        """The backbone of a card; `touched` are the random states that loading did not leave alone."""
        before = random_state()
        loaded = load_backbone(card, device)
        touched = tuple(name for name, state in random_state().items() if state != before[name])
        return cls(loaded, card, touched)

    def embed(self, images: Tensor) -> Tensor:
        """(B, D) of a pass of its own. Raises Broken where no tensor comes back."""
        with torch.no_grad():
            embedding = self.backbone(images).embedding
        if not isinstance(embedding, Tensor):
            raise Broken("no embedding came back")
        return embedding

    @cached_property
    def embedding(self) -> Tensor:
        """(3, D) of the three pictures."""
        return self.embed(self.images)

    @cached_property
    def observed(self) -> tuple[Features, int]:
        """A pass over the first picture with every layer caught, and its multiply-accumulates."""
        with torch.no_grad(), _Counter() as counter:
            features = self.backbone(self.images[:1], layers=self.backbone.layer_names)
        return features, counter.flops // 2

    @cached_property
    def sibling(self) -> Backbone:
        """The same card under another `init_seed`: what a checkpoint fills is the same in both, the rest is not."""
        assert self.card is not None
        other = self.card.model_copy(update={"init_seed": self.card.init_seed + 1})
        return load_backbone(other, self.device)

    @cached_property
    def unfilled(self) -> frozenset[str]:
        """Names of the body's tensors that no checkpoint filled: they are random. Empty where loading was not seen."""
        if self.card is None:
            return frozenset()
        theirs = self.sibling.body.state_dict()
        return frozenset(name for name, mine in _tensors(self.backbone).items() if _differ(mine, theirs.get(name)))

    @cached_property
    def untrained(self) -> bool:
        """Whether all weights are random: an untrained network, as opposed to one with a hole in it."""
        # What starts as ones or zeros is the same under every seed.
        weights = [
            name
            for name, weight in self.backbone.body.named_parameters()
            if weight.requires_grad and weight.numel() > 1 and weight.min() != weight.max()
        ]
        return bool(weights) and self.unfilled.issuperset(weights)


class _Counter(TorchDispatchMode):
    """Floating-point operations by torch's own formulas, one operator at a time: functional code is seen too."""

    # torch's FlopCounterMode also books them by module, which some networks' forward does not survive.
    flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        return result


def random_state() -> dict[str, Any]:
    """The global random states, comparable."""
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002 - the global state is what is looked at
    return {
        "torch": torch.random.get_rng_state().numpy().tobytes(),
        "numpy": (numpy["state"]["key"].tobytes(), numpy["state"]["pos"], numpy["has_gauss"]),
        "python": random.getstate(),
    }


def relative(found: Tensor, want: Tensor) -> float:
    """How far two tensors are apart, as a share of the second's norm."""
    found, want = found.double(), want.double()  # an untrained network may give values near float32's smallest
    return float((found - want).norm() / want.norm().clamp_min(1e-300))


@contextmanager
def loaded_as(backbone: Backbone, loading: Loading) -> Iterator[None]:
    """Inside, the backbone computes as `loading` says; afterwards as before."""
    before = backbone.loading
    try:
        backbone.load_as(loading)
        yield
    finally:
        backbone.load_as(before)


def _pictures(side: int) -> Tensor:
    """(3, 3, side, side) uint8: colours in large fields, in small ones, and in single pixels."""
    draw = torch.Generator().manual_seed(0)
    fields = [torch.rand(1, 3, cells, cells, generator=draw) for cells in (3, 9, side)]
    pixels = [torch.nn.functional.interpolate(field, (side, side), mode="bilinear") for field in fields]
    return (torch.cat(pixels) * 255).round().to(torch.uint8)


def _tensors(backbone: Backbone) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in backbone.body.state_dict().items() if isinstance(tensor, Tensor)}


def _differ(mine: Tensor, theirs: Tensor | None) -> bool:
    if theirs is None or mine.shape != theirs.shape:
        return True
    return bool(((mine != theirs) & (mine == mine)).any())  # NaN is not equal to itself
