"""Does a backbone keep the interface's promises? Point by point, each with what was seen."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .card import BackboneCard
from .conformance.conduct import (
    batch_size_does_not_matter,
    channels_last_is_the_same,
    forward_changes_nothing,
    gradient_reaches_the_body,
    half_precision_is_close,
    same_image_same_embedding,
    threads_do_not_mix,
)
from .conformance.costs import (
    macs_are_counted,
    parameters_are_counted,
    peak_memory_is_measured,
    throughput_is_measured,
)
from .conformance.features import (
    embedding_is_a_vector,
    embedding_is_not_logits,
    embedding_tells_images_apart,
    layers_can_be_named,
    maps_are_as_declared,
    normalisation_is_declared,
    takes_another_size,
    text_meets_image,
    transform_gives_what_forward_takes,
)
from .conformance.loading import loads_strictly, random_state_untouched, same_weights_when_loaded_again
from .conformance.subject import Broken, Figure, Subject
from .errors import NotApplicable
from .interface import Backbone
from .registry import find_backbone, load_backbone

PROMISES: tuple[Callable[[Subject], str | Figure], ...] = (
    loads_strictly,
    same_weights_when_loaded_again,
    random_state_untouched,
    normalisation_is_declared,
    transform_gives_what_forward_takes,
    embedding_is_a_vector,
    embedding_tells_images_apart,
    embedding_is_not_logits,
    maps_are_as_declared,
    takes_another_size,
    layers_can_be_named,
    text_meets_image,
    same_image_same_embedding,
    batch_size_does_not_matter,
    forward_changes_nothing,
    gradient_reaches_the_body,
    half_precision_is_close,
    channels_last_is_the_same,
    threads_do_not_mix,
    parameters_are_counted,
    macs_are_counted,
    peak_memory_is_measured,
    throughput_is_measured,
)


@dataclass(frozen=True)
class Point:
    """One promise: its name, whether it was kept (or is not this backbone's to keep), and what was seen."""

    name: str
    state: Literal["pass", "fail", "n/a"]
    detail: str
    value: float | None = None
    unit: str | None = None

    @property
    def passed(self) -> bool:
        """Nothing speaks against it: kept, or not applicable."""
        return self.state != "fail"


def check(
    backbone: str | Path | BackboneCard | Backbone,
    device: str = "cpu",
    watch: Callable[[Point], object] = lambda point: None,
) -> list[Point]:
    """All points, each shown to `watch` as it comes. Raises BadInput, Unavailable where nothing can be loaded."""
    if isinstance(backbone, Backbone):
        subject = Subject(load_backbone(backbone, device))
    else:
        subject = Subject.of(backbone if isinstance(backbone, BackboneCard) else find_backbone(backbone), device)
    points = []
    for promise in PROMISES:
        points.append(_point(promise, subject))
        watch(points[-1])
    return points


def _point(promise: Callable[[Subject], str | Figure], subject: Subject) -> Point:
    name = promise.__name__.replace("_", " ")
    try:
        seen = promise(subject)
    except NotApplicable as fact:
        return Point(name, "n/a", _line(fact))
    except Broken as seen:
        return Point(name, "fail", _line(seen))
    except Exception as error:  # whatever goes wrong in a stranger's network, the other points are still looked at
        return Point(name, "fail", f"{type(error).__name__}: {_line(error)}")
    return (
        Point(name, "pass", seen.detail, seen.value, seen.unit)
        if isinstance(seen, Figure)
        else Point(name, "pass", seen)
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
