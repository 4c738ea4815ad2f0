"""What a library says of a model: the answers a card may leave out."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from ..card import BackboneCard, Family, Method, Pretraining


@dataclass(frozen=True)
class Facts:
    """Read from a library's own config; None where it does not say. `input` has the keys of `Input` that it knows."""

    input: dict[str, Any] = field(default_factory=dict)
    family: Family | None = None
    pretraining: Pretraining | None = None
    license: str | None = None
    paper: str | None = None

    def complete(self, card: BackboneCard) -> BackboneCard:
        """The card with its gaps filled; what the card says itself stands, and its identity does not change."""
        facts = asdict(self) | {"pretraining": self.pretraining}
        described = ("family", "pretraining", "license", "paper")
        if card.checkpoint or not card.pretrained:  # the library's word is about its own weights
            described = ("family",)
        return card.model_copy(update={k: facts[k] for k in described if getattr(card, k) is None})


def crop_of(size: int, resized: int) -> float:
    """The `crop` with which an image is resized to exactly `resized` pixels before a centre crop of `size`."""
    crop = min(1.0, size / resized)
    return crop if int(size / crop) >= resized else math.nextafter(crop, 0)


# Parts of the weights' names in use across libraries, the telling ones first: CLIP weights fine-tuned on ImageNet are
# named after both, and a self-supervised network that was fine-tuned with labels has seen labels.
_METHODS: tuple[tuple[tuple[str, ...], Method], ...] = (
    (
        ("clip", "openai", "laion", "datacomp", "webli", "metaclip", "dfn", "merged2b", "yfcc", "cc12m"),
        "vision-language",
    ),
    (("_ft_", "_ft"), "supervised"),
    (("dino", "mae", "lvd142m", "lvd1689m", "sat493m", "mim", "ijepa", "fcmae", "ssl", "simmim"), "self-supervised"),
    (("in1k", "in12k", "in21k", "in22k", "imagenet", "inat"), "supervised"),
)


def method_of(name: str) -> Method | None:
    """The pretraining method that a weights' name tells, or None."""
    name = name.lower()
    return next((method for parts, method in _METHODS if any(part in name for part in parts)), None)


_DATA = {
    "in1k": "imagenet-1k",
    "in12k": "imagenet-12k",
    "in21k": "imagenet-21k",
    "in22k": "imagenet-21k",  # two names for one set
    "lvd142m": "lvd-142m",
    "lvd1689m": "lvd-1689m",
    "laion400m": "laion-400m",
    "laion2b": "laion-2b",
    "datacomp": "datacomp",
    "openai": "wit-400m",
    "webli": "webli",
    "merged2b": "merged-2b",
}


def data_of(name: str) -> str | None:
    """The pretraining data that a weights' name tells, in the order of training, or None."""
    found = {data: name.lower().find(part) for part, data in _DATA.items() if part in name.lower()}
    return " + ".join(sorted(found, key=lambda data: found[data])) or None
