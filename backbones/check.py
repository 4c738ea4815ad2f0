"""Does a backbone keep the interface's promises? Point by point, each with what was seen."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .card import BackboneCard
from .interface import Backbone
from .registry import find_backbone, load_backbone

# Sizes of the label sets that classifiers are usually trained on, and names that libraries give the classifier.
LABELS = {10, 100, 365, 1000, 1001, 10450, 11821, 21841, 21843}
CLASSIFIERS = {"fc", "head", "heads", "classifier", "logits", "last_linear", "output", "predictor"}


@dataclass(frozen=True)
class Point:
    """One promise: its name, whether it was kept, and what was seen."""

    name: str
    passed: bool
    detail: str


class Broken(Exception):
    """A promise that was not kept; the message says what was seen instead."""


def check(backbone: str | Path | BackboneCard | Backbone, device: str = "cpu") -> list[Point]:
    """All points of the interface; only `loads` when it does not load. A name that is not there raises BadInput."""
    if isinstance(backbone, Backbone):
        loaded = backbone.to(device)
        points = [Point("loads", True, "given as an object")]
    else:
        card = backbone if isinstance(backbone, BackboneCard) else find_backbone(backbone)
        points, loaded = _loading(card, device)
        if loaded is None:
            return points
    images = _images(loaded, device)
    return points + [_point(promise, loaded, images) for promise in PROMISES]


def _loading(card: BackboneCard, device: str) -> tuple[list[Point], Backbone | None]:
    before = _random_state()
    try:
        loaded = load_backbone(card, device)
        again = load_backbone(card, device)
    except Exception as error:
        return [Point("loads", False, _line(error))], None
    touched = [name for name, state in _random_state().items() if state != before[name]]
    same = loaded.weights_digest == again.weights_digest
    return [
        Point("loads", True, f"{loaded.parameters_count:,} parameters"),
        Point("same weights when loaded again", same, loaded.weights_digest[:12] if same else "the two digests differ"),
        Point("random state untouched", not touched, f"changed: {', '.join(touched)}" if touched else "by loading"),
    ], loaded


def _point(promise: Callable[[Backbone, Tensor], str], backbone: Backbone, images: Tensor) -> Point:
    name = promise.__name__.strip("_").replace("_", " ")
    try:
        return Point(name, True, promise(backbone, images))
    except Exception as error:  # whatever goes wrong in a stranger's network, the other points are still looked at
        return Point(name, False, _line(error))


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    kind = type(error).__name__
    return text if isinstance(error, Broken) else f"{kind}: {text}"


def _images(backbone: Backbone, device: str) -> Tensor:
    side = backbone.input.size
    pixels = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return backbone.transform.normalise(pixels).to(device)


def _random_state() -> dict[str, str]:
    return {
        "torch": str(torch.random.get_rng_state().tolist()),
        "numpy": str(np.random.get_state(legacy=False)["state"]["key"].tolist()),  # noqa: NPY002 - the global state is what is looked at
        "python": str(random.getstate()),
    }


def _embed(backbone: Backbone, images: Tensor) -> Tensor:
    with torch.no_grad():
        embedding = backbone(images).embedding
    if not isinstance(embedding, Tensor):
        raise Broken("no embedding came back")
    return embedding


# -- the promises: each says what it saw, or raises Broken ------------------------------------------------------------


def normalisation_is_declared(backbone: Backbone, images: Tensor) -> str:
    """Statistics are for pixels in 0..1; the classic mistake is to give them for 0..255."""
    mean, std = backbone.input.mean, backbone.input.std
    if min(mean) < 0 or max(mean) > 1 or min(std) <= 0 or max(std) > 1:
        raise Broken(f"mean {mean}, std {std} are not of pixels in 0..1; divide by 255?")
    return f"mean {mean}, std {std}, {backbone.input.size} px"


def embedding_is_a_vector(backbone: Backbone, images: Tensor) -> str:
    """(B, D), floating point, finite, as wide as `embed_dim` says."""
    embedding = _embed(backbone, images)
    if embedding.ndim != 2 or len(embedding) != len(images) or not embedding.is_floating_point():
        raise Broken(f"{tuple(embedding.shape)} {embedding.dtype}, not floats ({len(images)}, D)")
    if embedding.shape[1] != backbone.embed_dim:
        raise Broken(f"{embedding.shape[1]} wide, embed_dim says {backbone.embed_dim}")
    if not embedding.isfinite().all():
        raise Broken(f"{int((~embedding.isfinite()).sum())} values are not finite")
    return f"{embedding.shape[1]} dimensions"


def embedding_tells_images_apart(backbone: Backbone, images: Tensor) -> str:
    """Different images give different embeddings."""
    embedding = _embed(backbone, images)
    spread = float((embedding - embedding.mean(0)).norm() / embedding.norm())
    if not spread > 1e-6:
        raise Broken(f"the embeddings of {len(images)} different images are the same")
    return f"relative spread {spread:.2g}"


def embedding_is_not_logits(backbone: Backbone, images: Tensor) -> str:
    """The classifier is off: its scores are not features (a known mistake: arXiv 2310.19909's code has two)."""
    outputs: list[tuple[str, Any]] = []
    hooks = [
        module.register_forward_hook(lambda _m, _i, output, name=name: outputs.append((name, output)))
        for name, module in backbone.body.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    ]
    try:
        embedding = _embed(backbone, images)
    finally:
        for hook in hooks:
            hook.remove()
    for name, output in outputs:
        output = output.mean((2, 3)) if output.ndim == 4 else output
        same = output.shape == embedding.shape and torch.allclose(output, embedding, atol=1e-6)
        if same and (embedding.shape[1] in LABELS or CLASSIFIERS & set(name.split("."))):
            raise Broken(f"it is the output of {name!r}, which looks like the classifier; take it off (`head:`)")
    if embedding.min() >= 0 and torch.allclose(embedding.sum(1), torch.ones_like(embedding[:, 0]), atol=1e-4):
        raise Broken("its values sum to 1: class probabilities")
    return "not the output of a classifier"


def maps_are_as_declared(backbone: Backbone, images: Tensor) -> str:
    """As many maps as levels, fine to coarse, (B, C, H, W) with each level's channels and stride."""
    if not backbone.levels:
        return "no feature maps"
    return _fits(backbone, images)


def maps_at_another_size(backbone: Backbone, images: Tensor) -> str:
    """Maps of larger images too, as dense tasks need them."""
    if not backbone.levels:
        return "no feature maps"
    coarsest = backbone.levels[-1].stride
    side = coarsest * (round(1.5 * images.shape[-1] / coarsest) + 1)
    return _fits(backbone, torch.nn.functional.interpolate(images, (side, side), mode="bilinear"))


def _fits(backbone: Backbone, images: Tensor) -> str:
    with torch.no_grad():
        maps = backbone(images, embedding=False, maps=True).maps
    side = images.shape[-1]
    if len(maps) != len(backbone.levels):
        raise Broken(f"{len(maps)} maps, {len(backbone.levels)} levels")
    if [m.shape[-1] for m in maps] != sorted((m.shape[-1] for m in maps), reverse=True):
        raise Broken(f"maps run {[m.shape[-1] for m in maps]}, not fine to coarse")
    for index, (found, level) in enumerate(zip(maps, backbone.levels, strict=True)):
        if found.ndim != 4 or found.shape[:2] != (len(images), level.channels):
            raise Broken(f"map {index} is {tuple(found.shape)}, its level says {level.channels} channels")
        # Convolutions without padding lose a cell at the border, or a few on a long way.
        want = side / level.stride
        if max(abs(cells - want) for cells in found.shape[2:]) > max(1.01, 0.2 * want):
            raise Broken(
                f"map {index} is {tuple(found.shape[2:])} cells of {side} px, its level says stride {level.stride}"
            )
        if not found.isfinite().all():
            raise Broken(f"map {index} has values that are not finite")
    return f"at {side} px: " + ", ".join(f"{level.channels} ch / {level.stride} px" for level in backbone.levels)


def batch_size_does_not_matter(backbone: Backbone, images: Tensor) -> str:
    """An image's embedding is its own, whoever stands beside it in the batch."""
    together = _embed(backbone, images)
    alone = torch.cat([_embed(backbone, image[None]) for image in images])
    off = float((together - alone).norm() / together.norm().clamp_min(1e-12))
    if not off < 1e-3:
        raise Broken(f"alone and in a batch differ by {off:.2g} of their norm; batch statistics, or dropout?")
    return f"relative difference {off:.1g}"


def same_image_same_embedding(backbone: Backbone, images: Tensor) -> str:
    """Two passes in eval mode agree bit for bit on a CPU."""
    first, second = _embed(backbone, images), _embed(backbone, images)
    if backbone.training or not torch.equal(first, second):
        raise Broken("two passes over the same images differ; dropout, masking or noise in eval mode?")
    return "two passes agree bit for bit"


def forward_changes_nothing(backbone: Backbone, images: Tensor) -> str:
    """A pass leaves weights, buffers and the global random state as they were."""
    before, state = {name: t.clone() for name, t in backbone.state_dict().items()}, _random_state()
    _embed(backbone, images)
    changed = [name for name, tensor in backbone.state_dict().items() if not torch.equal(tensor, before[name])]
    changed += [f"{name}'s random state" for name, now in _random_state().items() if now != state[name]]
    if changed:
        raise Broken(f"changed by a pass: {', '.join(changed[:3])}")
    return f"{len(before)} tensors as before"


def gradient_reaches_the_body(backbone: Backbone, images: Tensor) -> str:
    """Fine-tuning is possible: the embedding's gradient comes down to the weights."""
    wanted = [(p, p.requires_grad) for p in backbone.parameters()]
    try:
        for parameter, _ in wanted:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            embedding = backbone(images[:2]).embedding
        if not embedding.requires_grad:
            raise Broken("the embedding is cut off from the weights (detach or no_grad inside?)")
        # The sum of a normalised vector is constant; a fixed direction has a gradient everywhere.
        direction = torch.linspace(-1, 1, embedding.shape[1], device=embedding.device)
        gradients = torch.autograd.grad((embedding * direction).sum(), [p for p, _ in wanted], allow_unused=True)
    finally:
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)
    reached = sum(g is not None and bool(g.isfinite().all()) and bool(g.abs().sum() > 0) for g in gradients)
    if reached == 0:
        raise Broken("no weight gets a finite gradient")
    return f"{reached} of {len(wanted)} tensors"


def layers_can_be_named(backbone: Backbone, images: Tensor) -> str:
    """`forward(layers=…)` gives a named module's output."""
    names = backbone.layer_names
    if not names:
        raise Broken("no layer has a name")
    with torch.no_grad():
        found = backbone(images[:1], layers=names).layers
    if not found:
        raise Broken(f"none of {len(names)} layers gave an output")
    return f"{len(found)} of {len(names)} seen in a pass"


def text_meets_image(backbone: Backbone, images: Tensor) -> str:
    """Where there is a text tower, texts and images come out in one space, texts told apart."""
    if not backbone.has_text:
        return "no text tower"
    with torch.no_grad():
        projection = backbone(images, projection=True).projection
        texts = backbone.embed_text(["a photo of a zero", "a photo of a dark seven", "a photo of a zero"])
    if projection is None or projection.ndim != 2 or texts.ndim != 2 or projection.shape[1] != texts.shape[1]:
        shape = None if projection is None else tuple(projection.shape)
        raise Broken(f"projection {shape} and text {tuple(texts.shape)} are not in one space")
    if not (projection.isfinite().all() and texts.isfinite().all()):
        raise Broken("projection or text has values that are not finite")
    if torch.equal(texts[0], texts[1]) or not torch.allclose(texts[0], texts[2], atol=1e-4):
        raise Broken("different texts give the same embedding, or the same text different ones")
    return f"{texts.shape[1]} dimensions"


PROMISES = (
    normalisation_is_declared,
    embedding_is_a_vector,
    embedding_tells_images_apart,
    embedding_is_not_logits,
    maps_are_as_declared,
    maps_at_another_size,
    batch_size_does_not_matter,
    same_image_same_embedding,
    forward_changes_nothing,
    gradient_reaches_the_body,
    layers_can_be_named,
    text_meets_image,
)
