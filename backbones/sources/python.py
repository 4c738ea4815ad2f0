"""python: any module from a file of the user's own. Code runs here, and only because they named their file."""

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from ..card import BackboneCard, Input
from ..catching import catch
from ..checkpoint import load_checkpoint
from ..errors import BadInput, NotApplicable, did_you_mean, unknown
from ..interface import Backbone, Features
from .facts import Facts
from .outputs import WHOLE, Places, by_name, places_in_map, places_in_tokens
from .own_code import OwnCode
from .tokens import pool_tokens


def find(model: str) -> str:
    """Never: a python backbone needs a card. Raises BadInput."""
    raise BadInput(f"python/{model}: a python backbone needs a card (.yaml) that names its file and its `input`")


def describe(card: BackboneCard) -> Facts:
    """Nothing but what the card says."""
    return Facts()


def build(card: BackboneCard, input: Input) -> Backbone:
    """The backbone that the function in the card's file makes. Raises BadInput naming the user's line that failed."""
    code = OwnCode(card)
    body = code.make(card.model_args).float()
    if card.head:
        modules = dict(body.named_modules())
        if card.head not in modules:
            raise BadInput(
                f"{card.name}: head: no module {card.head!r} in {card.model}{did_you_mean(card.head, modules)}"
            )
        body.set_submodule(card.head, nn.Identity())
    if card.checkpoint:
        load_checkpoint(card, body, heads=(card.head,) if card.head else ())
    return PythonBackbone(card, input, body, code)


def classifier(card: BackboneCard, input: Input) -> nn.Module:
    """The card's network as it is made, with the module that is `head`: images to logits. Raises as `build`, and
    NotApplicable."""
    if not card.head:
        raise NotApplicable(f"{card.name} has no classifier: its card names none (`head`)")
    code = OwnCode(card)
    body = code.make(card.model_args).float()
    if card.checkpoint:
        load_checkpoint(card, body)
    return Logits(body, code)


class Logits(nn.Module):
    """A user's network that classifies; what its code raises is told as theirs."""

    def __init__(self, network: nn.Module, code: OwnCode):
        super().__init__()
        self.network, self._code = network, code

    def forward(self, images: Tensor) -> Tensor:
        """(B, C) logits of images (B, 3, H, W)."""
        with self._code.running():
            return self.network(images)


class PythonBackbone(Backbone):
    """A module whose output is the embedding, or tokens or a map to be pooled, or several maps in a list or mapping.

    Its maps are the outputs of the modules in the card's `levels`, or what it returns. A pass at the card's size, when
    it is built, measures how they are arranged, and raises BadInput for what cannot be read.
    """

    def __init__(self, card: BackboneCard, input: Input, body: nn.Module, code: OwnCode):
        super().__init__(card, input, body)
        self._code = code
        self._caught = [name for name in card.levels if name in dict(body.named_modules())]
        with torch.no_grad():
            output = self._pass(self._probe)
            levels = self._find_levels(output)
            self._places = {name: self._measure(name, output[name]) for name in {*levels, WHOLE} & output.keys()}
            sides = {name: self._map(name, output, self._probe).shape[-1] for name in levels}
            self._levels = sorted(levels, key=lambda name: -sides[name])  # fine to coarse
            self._pool(output, self._probe)  # what cannot be an embedding is told now, not in the middle of a run

    def extract(self, images: Tensor, *, embedding: bool, maps: bool, projection: bool) -> Features:
        """One pass; a module that returns several maps is embedded by the mean over places of the coarsest."""
        output = self._pass(images)
        return Features(
            embedding=self._pool(output, images) if embedding else None,
            maps=[self._map(name, output, images) for name in self._levels] if maps else [],
        )

    def _pass(self, images: Tensor) -> dict[str, Any]:
        """All that the card may speak of, by name: the parts of the output, and what came out of its `levels`."""
        caught: dict[str, Any] = {}
        try:
            with self._code.running(), catch(self.body, self._caught, caught):
                output = by_name(self.body(images))
        except BadInput as error:
            size, side = tuple(images.shape[-2:]), self.input.size
            if size == (side, side):
                raise
            reason = str(error).removeprefix(f"{self.name}: ")
            told = f"{self.name} takes images of {side} px, not {size[0]} x {size[1]}: {reason}"
            raise NotApplicable(told) from error.__cause__
        # Where all the card's levels are keys of the output, modules of the same names are not what is meant.
        return output if set(self.card.levels) <= output.keys() else output | caught

    def _find_levels(self, output: dict[str, Any]) -> list[str]:
        if self.card.levels:
            for name in self.card.levels:
                if name in output:
                    continue
                if name in self._caught:
                    raise BadInput(f"{self.name}: levels: module {name!r} does not run in a pass; name another")
                known = [key for key in (*output, *dict(self.body.named_modules())) if key]
                raise unknown("level", name, known, where=f"{self.name}: {self.card.model}")
            return list(self.card.levels)
        if WHOLE not in output:
            return list(output)
        # A lone map is a level too, if it has places at all; tokens are one where the card names their module.
        whole = output[WHOLE]
        return [WHOLE] if isinstance(whole, Tensor) and whole.ndim == 4 and sorted(whole.shape[1:])[1] > 1 else []

    def _measure(self, name: str, value: Any) -> Places | None:
        if not isinstance(value, Tensor) or value.ndim not in (3, 4):
            return None
        if value.ndim == 3:
            return places_in_tokens(value.shape[1], self.input.size)
        places = places_in_map(value.shape)
        if places is None and self.card.layout:
            return Places(self.card.layout)
        if places is None:
            with suppress(NotApplicable, KeyError):
                wide = self._pass(torch.cat([self._probe, self._probe], dim=3))
                places = places_in_map(value.shape, wide[name].shape)
        if places is None:
            raise BadInput(
                f"{self.name}: {self._told(name)} gives a map {tuple(value.shape)}: are its channels first or last? "
                "Say `layout: NCHW` or `layout: NHWC`"
            )
        return places

    def _map(self, name: str, output: dict[str, Any], images: Tensor) -> Tensor:
        value, places = output[name], self._places[name]
        if places is None:
            got = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise BadInput(
                f"{self.name}: {self._told(name)} gives {got}; a feature map is a tensor (B, C, H, W) or a grid of "
                "tokens: name those that are in `levels`"
            )
        return places.as_map(value, images)

    def _pool(self, output: dict[str, Any], images: Tensor) -> Tensor:
        pool, name = self.card.pool, WHOLE if WHOLE in output else next(reversed(self._levels), WHOLE)
        value, places = output.get(name), self._places.get(name)
        if isinstance(value, Tensor) and value.ndim == 3 and name == WHOLE:
            shape = tuple(value.shape)
            if pool == "auto":
                raise BadInput(f"{self.name}: {self.card.model} gives tokens {shape}; say `pool: cls` or mean")
            return pool_tokens(value, places.prefix if places else int(pool.startswith("cls")), pool, self.name)
        if pool not in ("auto", "mean"):
            raise BadInput(f"{self.name}: pool: {pool!r} is for tokens (B, N, D), and {self.card.model} gives none")
        if places and isinstance(value, Tensor):
            return places.as_map(value, images).mean((2, 3))
        if isinstance(value, Tensor) and value.ndim == 2:
            return value
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise BadInput(
            f"{self.name}: {self.card.model} gives {got}; an embedding is a tensor (B, D), or a map or tokens to pool"
        )

    def _told(self, name: str) -> str:
        return f"levels: {name!r}" if name in self.card.levels else f"{self.card.model}{f'[{name!r}]' if name else ''}"
