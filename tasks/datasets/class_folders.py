"""Class folders that are not called by the classes: by their numbers, as ImageNet-V2's, or by ObjectNet's own names."""

import json
from collections.abc import Sequence
from typing import Any

from ...backbones.errors import BadInput
from .card import DatasetCard

LABELS, IDS = "imagenet_to_label_2012_v2", "pytorch_to_imagenet_2012_id.json"


def classes_of_folders(
    card: DatasetCard, name: str, folders: Sequence[str], classes: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """Class numbers by folder, in order of the first; folders that have none are left out. Raises BadInput.

    ObjectNet's objects may be of several of ImageNet's classes, and most of its 313 kinds are of none.
    """
    if card.splits[name].class_folders != "number":
        found = _objectnet(card, name, folders)
    else:
        if strange := sorted(folder for folder in folders if not folder.isdecimal()):
            raise BadInput(f"dataset {card.name}: splits.{name}: {strange[0]} is not the number of a class")
        found = {folder: (int(folder),) for folder in folders}
    if wrong := [folder for folder, right in found.items() if max(right) >= len(classes)]:
        raise BadInput(f"dataset {card.name}: splits.{name}: {wrong[0]}: there are {len(classes)} classes, from 0 on")
    return dict(sorted(found.items(), key=lambda one: (one[1], one[0])))


def _objectnet(card: DatasetCard, name: str, folders: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """By the mappings in ObjectNet's archive: folder → its label → ImageNet's labels → their class numbers."""
    mappings = card.at(name, "class_folders")
    try:
        labels = (mappings / LABELS).read_text(encoding="utf-8").splitlines()
        ids, called, same = (
            _object(mappings / file)
            for file in (IDS, "folder_to_objectnet_label.json", "objectnet_to_imagenet_1k.json")
        )
        numbers = {labels[int(line)].strip(): int(number) for number, line in ids.items()}
        wanted = {folder: same[called[folder]].split("; ") for folder in folders if called.get(folder) in same}
        return {folder: tuple(sorted(numbers[label] for label in told)) for folder, told in wanted.items()}
    except (OSError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise BadInput(f"{mappings}: these are not ObjectNet's mappings: {error}") from None
    except KeyError as error:
        raise BadInput(f"{mappings}: {LABELS} has no line {error}") from None


def _object(path: Any) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no object")
    return found
