"""Points about loading: the right weights, all of them, and nothing else touched."""

import torch

from ..card import BackboneCard
from ..errors import NotApplicable
from ..registry import load_backbone
from .subject import Broken, Subject


def loads_strictly(subject: Subject) -> str:
    """Every tensor that matters comes from the checkpoint.

    Loaders refuse files with names missing or left over; here the network is loaded under another seed too, which shows
    what a factory of the user's own, or a library, left at random in spite of that.
    """
    card = _card(subject)
    if card.checkpoint is None and (not card.pretrained or (subject.untrained and _method(card) == "random")):
        raise NotApplicable(f"nothing to load: random weights, of init_seed {card.init_seed}, as the card says")
    if subject.untrained:
        if _method(card):
            raise Broken(f"the card says {_method(card)}, but every weight is random")
        raise NotApplicable("no checkpoint: every weight is random; say so by `pretraining: {method: random}`")
    total, unfilled = len(subject.backbone.body.state_dict()), sorted(subject.unfilled)
    if unfilled and _matter(subject):
        raise Broken(f"random, as no checkpoint fills them: {_few(unfilled)}; {len(unfilled)} of {total} tensors")
    source = card.checkpoint.path if card.checkpoint else card.model
    unused = f"; random but unused: {_few(unfilled)}" if unfilled else ", none of them random"
    return f"{total} tensors of {source}{unused}"


def same_weights_when_loaded_again(subject: Subject) -> str:
    """The same card gives the same weights, random ones too."""
    card, digest = _card(subject), subject.backbone.weights_digest
    # What comes out the same under another seed needs no third loading to be seen to stay the same.
    if (not card.pretrained or subject.unfilled) and load_backbone(card).weights_digest != digest:
        raise Broken("the digests of two loadings differ")
    return f"sha256 {digest[:12]}…"


def random_state_untouched(subject: Subject) -> str:
    """Loading leaves the global random states of torch, numpy and python as they were."""
    _card(subject)
    if subject.touched:
        raise Broken(f"changed by loading: {', '.join(subject.touched)}")
    return "by loading"


def _card(subject: Subject) -> BackboneCard:
    if subject.card is None:
        raise NotApplicable("given as an object: its loading was not seen")
    return subject.card


def _method(card: BackboneCard) -> str | None:
    return card.pretraining.method if card.pretraining else None


def _matter(subject: Subject) -> bool:
    """Whether any feature changes with the weights that no checkpoint filled."""
    mine, theirs = subject.backbone, subject.sibling
    wanted = {"maps": bool(mine.levels), "projection": mine.has_text}
    with torch.no_grad():
        a, b = mine(subject.images, **wanted), theirs(subject.images, **wanted)
        pairs = [(a.embedding, b.embedding), (a.projection, b.projection), *zip(a.maps, b.maps, strict=True)]
        if mine.has_text:
            pairs.append((mine.embed_text(["a photo"]), theirs.embed_text(["a photo"])))
    return any(x is not None and y is not None and not torch.equal(x, y) for x, y in pairs)


def _few(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
