"""mini: backbench's own six small networks, timm's classes with weights that ship in the package."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..card import BackboneCard, Input, Pretraining
from ..errors import BadInput, Unavailable, unknown
from ..mini import networks
from .facts import Facts
from .timm import TimmBackbone


def find(model: str) -> str:
    """The name itself. Raises BadInput with the nearest ones."""
    if model not in networks.SPECS:
        raise unknown("mini backbone", model, networks.SPECS)
    return model


def describe(card: BackboneCard) -> Facts:
    """What the network's specification says."""
    spec = networks.SPECS[find(card.model)]
    return Facts(
        input={key: getattr(spec, key) for key in ("size", "mean", "std", "interpolation")},
        family=spec.family,  # pyright: ignore[reportArgumentType]
        pretraining=Pretraining(method=spec.method, data=spec.data),  # pyright: ignore[reportArgumentType]
        license="apache-2.0",
    )


def build(card: BackboneCard, input: Input) -> TimmBackbone:
    """The backbone of a mini card; `pretrained: false` gives the untrained network."""
    if card.checkpoint or card.model_args:
        raise BadInput(
            f"{card.name}: a mini backbone takes no checkpoint and no model_args; use source: timm or python"
        )
    try:
        network = networks.load(card.model) if card.pretrained else networks.build(card.model)
    except FileNotFoundError:
        file = networks.WEIGHTS / f"{card.model}.safetensors"
        raise Unavailable(f"{card.name}: its weights are not in this installation ({file}); install again") from None
    if isinstance(network, networks.DualTower):
        return MiniDualTower(card, input, network)
    return TimmBackbone(card, input, network)


class MiniDualTower(TimmBackbone):
    """An image tower with timm's interface beside a text tower."""

    has_text = True
    body: networks.DualTower

    @property
    def image_tower(self) -> Any:
        """The image tower."""
        return self.body.image

    def project(self, last: Tensor) -> Tensor:
        """(B, T) in the text tower's space."""
        return self.body.image_proj(self.body.image.forward_head(last, pre_logits=True))

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """(N, T) text embeddings."""
        return self.body.encode_text(list(texts))
