"""What the classes of a data set are called in prompts, and the prompts: from its card, or from a library's lists."""

import re
from collections.abc import Callable

from ...backbones.errors import BadInput, unknown
from .card import DatasetCard


def _open_clip_templates() -> tuple[str, ...]:
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


def _open_clip_classes() -> tuple[str, ...]:
    from open_clip import IMAGENET_CLASSNAMES

    return tuple(IMAGENET_CLASSNAMES)


Lists = dict[str, Callable[[], tuple[str, ...]]]
PROMPTS: Lists = {"open_clip/openai-imagenet": _open_clip_templates}  # the 80 of Radford et al. 2021
CLASS_NAMES: Lists = {"open_clip/imagenet": _open_clip_classes}


def prompts_of(card: DatasetCard) -> tuple[str, ...]:
    """The prompts of a card, with {} for the name. Raises BadInput for a list that no library has."""
    return _resolved(card, "prompts", card.prompts, PROMPTS)


def names_of(card: DatasetCard, classes: tuple[str, ...]) -> tuple[str, ...]:
    """What prompts call each of a reader's classes. Raises BadInput where their numbers differ."""
    if card.class_pattern:
        return tuple(_found(card.class_pattern, name) for name in classes)
    names = _resolved(card, "class_names", card.class_names, CLASS_NAMES)
    if names and len(names) != len(classes):
        raise BadInput(f"dataset {card.name}: class_names: {len(names)} names, but there are {len(classes)} classes")
    return names or classes


def _resolved(card: DatasetCard, key: str, given: tuple[str, ...] | str, lists: Lists) -> tuple[str, ...]:
    if not isinstance(given, str):
        return given
    if given not in lists:
        raise unknown("list", given, lists, where=f"dataset {card.name}: {key}")
    return lists[given]()


def _found(pattern: str, name: str) -> str:
    found = re.search(pattern, name)
    parts = [part for part in found.groups() if part] if found else []
    return " ".join(parts or [name]).replace("_", " ")
