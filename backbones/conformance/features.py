"""Points about what comes out: the embedding, the maps, the layers, the text."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import NotApplicable
from ..registry import library_of
from .subject import Broken, Subject, relative

# Sizes of the label sets that classifiers are usually trained on, and names that libraries give the classifier.
LABELS = {10, 100, 365, 1000, 1001, 10450, 11821, 21841, 21843}
CLASSIFIERS = {"fc", "head", "heads", "classifier", "logits", "linear", "last_linear", "output", "predictor"}
PASSING = (nn.Identity, nn.Dropout, nn.Flatten)


def normalisation_is_declared(subject: Subject) -> str:
    """Statistics are for pixels in 0..1, and a library's own weights get what the library says they were trained with.

    The classic mistakes: statistics of 0..255, and ImageNet's for everything (arXiv 2310.19909's code, for CLIP).
    """
    size, mean, std = (getattr(subject.backbone.input, key) for key in ("size", "mean", "std"))
    if min(mean) < 0 or max(mean) > 1 or min(std) <= 0 or max(std) > 1:
        raise Broken(f"mean {mean}, std {std} are not of pixels in 0..1; divide by 255?")
    for key, said in _library_says(subject).items():
        found = getattr(subject.backbone.input, key)
        if not np.allclose(found, said, atol=1e-3):
            raise Broken(f"{key} {_short(found)}, but by the library's own word these weights want {_short(said)}")
    return f"mean {_short(mean)}, std {_short(std)}, {size} px"


def transform_gives_what_forward_takes(subject: Subject) -> str:
    """An image of any shape becomes (3, size, size) floats, normalised as declared, and goes through."""
    backbone, side = subject.backbone, subject.backbone.input.size
    grey = backbone.transform(np.full((side + side // 3, side, 3), 200, np.uint8))
    if grey.shape != (3, side, side) or grey.dtype != torch.float32:
        raise Broken(f"an image becomes {tuple(grey.shape)} {grey.dtype}, not (3, {side}, {side}) float32")
    want = [(200 / 255 - m) / s for m, s in zip(backbone.input.mean, backbone.input.std, strict=True)]
    found = grey.mean((1, 2)).tolist()
    if not np.allclose(found, want, atol=1e-2):
        raise Broken(f"grey becomes {_short(found)}; with the declared mean and std it is {_short(want)}")
    if not subject.embed(grey[None].to(subject.device)).isfinite().all():
        raise Broken("a grey image gives values that are not finite")
    return f"an image becomes (3, {side}, {side})"


def embedding_is_a_vector(subject: Subject) -> str:
    """(B, D), floating point, finite, as wide as `embed_dim` says."""
    embedding, images = subject.embedding, subject.images
    if embedding.ndim != 2 or len(embedding) != len(images) or not embedding.is_floating_point():
        raise Broken(f"{tuple(embedding.shape)} {embedding.dtype}, not floats ({len(images)}, D)")
    if embedding.shape[1] != subject.backbone.embed_dim:
        raise Broken(f"{embedding.shape[1]} wide, embed_dim says {subject.backbone.embed_dim}")
    if not embedding.isfinite().all():
        raise Broken(f"{int((~embedding.isfinite()).sum())} values are not finite")
    return f"{embedding.shape[1]} dimensions"


def embedding_tells_images_apart(subject: Subject) -> str:
    """Different images give different embeddings."""
    embedding = subject.embedding
    spread = relative(embedding.double().mean(0).expand_as(embedding), embedding)
    if not spread > 1e-6:
        raise Broken(f"the embeddings of {len(embedding)} different images are the same")
    return f"relative spread {spread:.2g}"


def embedding_is_not_logits(subject: Subject) -> str:
    """Neither a classifier's scores nor a projection that was never trained (arXiv 2310.19909's code ranks both)."""
    features, _ = subject.observed
    assert features.embedding is not None
    modules = dict(subject.backbone.body.named_modules())
    for name, output in features.layers.items():
        if not isinstance(modules[name], (nn.Linear, nn.Conv2d)) or not _is(output, features.embedding):
            continue
        if f"{name}.weight" in subject.unfilled and not subject.untrained:
            raise Broken(f"it is the output of {name!r}, which no checkpoint filled: a random projection")
        # Scores come straight from the last layer that computes; what goes on after it is no classifier.
        last, leaf = name == _last_to_compute(features.layers, modules), name.rstrip(".0123456789").rpartition(".")[2]
        if features.embedding.shape[1] in LABELS or (last and leaf in CLASSIFIERS):
            raise Broken(f"it is the output of {name!r}, which looks like the classifier; take it off (`head:`)")
    embedding = subject.embedding
    if embedding.min() >= 0 and torch.allclose(embedding.sum(1), torch.ones_like(embedding[:, 0]), atol=1e-4):
        raise Broken("its values sum to 1: class probabilities")
    return "not the output of a classifier"


def maps_are_as_declared(subject: Subject) -> str:
    """As many maps as levels, fine to coarse, (B, C, H, W) with each level's channels and stride."""
    return _fitting_maps(subject, subject.images)


def takes_another_size(subject: Subject) -> str:
    """Larger images that are not square, as dense tasks have them; that a network is for one size is a fact."""
    levels, images = subject.backbone.levels, subject.images[:1]
    step = levels[-1].stride if levels else 32
    height, width = (step * (round(share * images.shape[-1] / step) + 1) for share in (1, 1.5))
    larger = torch.nn.functional.interpolate(images, (height, width), mode="bilinear")
    if levels:
        return _fitting_maps(subject, larger)
    embedding = subject.embed(larger)
    if embedding.shape != subject.embedding[:1].shape or not embedding.isfinite().all():
        raise Broken(f"at {height} x {width} px the embedding is {tuple(embedding.shape)}, or not finite")
    return f"at {height} x {width} px"


def layers_can_be_named(subject: Subject) -> str:
    """`forward(layers=…)` gives a named module's output."""
    names = subject.backbone.layer_names
    if not names:
        raise Broken("no layer has a name")
    found = subject.observed[0].layers
    if not found:
        raise Broken(f"none of {len(names)} layers gave an output")
    return f"{len(found)} of {len(names)} seen in a pass"


def text_meets_image(subject: Subject) -> str:
    """Texts and images come out in one space, texts told apart."""
    backbone = subject.backbone
    if not backbone.has_text:
        raise NotApplicable("no text tower")
    with torch.no_grad():
        projection = backbone(subject.images, projection=True).projection
        texts = backbone.embed_text(["a photo of a zero", "a photo of a dark seven", "a photo of a zero"])
    if projection is None or projection.ndim != 2 or texts.ndim != 2 or projection.shape[1] != texts.shape[1]:
        shape = None if projection is None else tuple(projection.shape)
        raise Broken(f"projection {shape} and text {tuple(texts.shape)} are not in one space")
    if not (projection.isfinite().all() and texts.isfinite().all()):
        raise Broken("projection or text has values that are not finite")
    if torch.equal(texts[0], texts[1]) or not torch.allclose(texts[0], texts[2], atol=1e-4):
        raise Broken("different texts give the same embedding, or the same text different ones")
    return f"{texts.shape[1]} dimensions"


def _library_says(subject: Subject) -> dict[str, Any]:
    """mean and std of a library's own weights, as it says itself; empty for weights of the user's own."""
    card = subject.card
    if card is None or card.checkpoint or not card.pretrained:
        return {}
    said = library_of(card.source).describe(card).input
    return {key: said[key] for key in ("mean", "std") if said.get(key) is not None}


def _fitting_maps(subject: Subject, images: Tensor) -> str:
    levels = subject.backbone.levels
    if not levels:
        raise NotApplicable("no feature maps")
    with torch.no_grad():
        maps = subject.backbone(images, embedding=False, maps=True).maps
    if len(maps) != len(levels):
        raise Broken(f"{len(maps)} maps, {len(levels)} levels")
    if [m.shape[-1] for m in maps] != sorted((m.shape[-1] for m in maps), reverse=True):
        raise Broken(f"maps run {[m.shape[-1] for m in maps]}, not fine to coarse")
    height, width = images.shape[2:]
    for index, (found, level) in enumerate(zip(maps, levels, strict=True)):
        if found.ndim != 4 or found.shape[:2] != (len(images), level.channels):
            raise Broken(f"map {index} is {tuple(found.shape)}, its level says {level.channels} channels")
        for cells, side in zip(found.shape[2:], (height, width), strict=True):
            # Convolutions without padding lose a cell at the border, or a few on a long way.
            if abs(cells - side / level.stride) > max(1.01, 0.2 * side / level.stride):
                raise Broken(f"map {index} is {cells} cells of {side} px, its level says stride {level.stride}")
        if not found.isfinite().all():
            raise Broken(f"map {index} has values that are not finite")
    return f"at {height} x {width} px: " + ", ".join(f"{level.channels} ch / {level.stride} px" for level in levels)


def _is(output: Any, embedding: Tensor) -> bool:
    """Whether a layer's output, averaged over places, is the embedding."""
    if not isinstance(output, Tensor):
        return False
    output = output.mean((2, 3)) if output.ndim == 4 else output
    return output.shape == embedding.shape and relative(output, embedding) < 1e-5


def _last_to_compute(layers: dict[str, Any], modules: dict[str, nn.Module]) -> str | None:
    """The last layer to run that has no layers inside and does not just pass on what it gets."""
    names = [name for name in layers if not any(modules[name].children()) and not isinstance(modules[name], PASSING)]
    return names[-1] if names else None


def _short(numbers: Any) -> str:
    return "(" + ", ".join(f"{number:.3g}" for number in numbers) + ")"
