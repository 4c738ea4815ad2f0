"""Images in class folders: `<split>/<class>/<image>`, the layout of ImageNet and of torchvision's ImageFolder."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ...backbones.errors import BadInput
from ..task import Kind
from .card import DatasetCard
from .class_folders import classes_of_folders
from .dataset import Dataset, Split
from .faults import Faults, Found
from .integrity import content_digest
from .pictures import SUFFIXES, Pictures, listed


def open_imagefolder(card: DatasetCard, kind: Kind) -> Dataset:
    """The data set of a card whose splits are folders of class folders; classes sorted, or as the card lists them.

    A split with a `list` has those images alone. A folder that is not there is missed when its split is asked for.
    """
    if not card.splits:
        raise BadInput(f"dataset {card.name}: splits: say where the images are, such as `splits: {{train: train}}`")
    own = [name for name, spec in card.splits.items() if not spec.class_folders] or list(card.splits)
    there = [name for name in own if (images := card.splits[name].images) and (card.root / images).exists()]
    folders = [card.images(name) for name in there or own]
    classes = card.classes or tuple(sorted({name for folder in folders for name in _subfolders(folder)}))
    if not classes:
        raise BadInput(f"dataset {card.name}: {folders[0]} has no class folders with images in them")
    builders = {name: partial(_split, card, name, classes) for name in card.splits}
    return Dataset(card.name, kind, classes, builders)


def _subfolders(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]


def _split(card: DatasetCard, name: str, classes: Sequence[str]) -> Split:
    folder = card.images(name)
    if card.splits[name].class_folders:
        means = classes_of_folders(card, name, _subfolders(folder), classes)
    else:
        means = {class_name: (label,) for label, class_name in enumerate(classes)}
        if strangers := sorted(set(_subfolders(folder)) - set(classes)):
            raise BadInput(
                f"dataset {card.name}: {folder / strangers[0]} is none of the card's classes; add or move it"
            )
    paths, labels, accepted = [], [], []
    for class_folder, right in means.items():
        found = sorted(p for p in (folder / class_folder).rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        paths += found
        labels += [right[0]] * len(found)
        accepted += [right] * len(found)
    if not paths:
        raise BadInput(f"dataset {card.name}: {folder} has no images ({', '.join(sorted(SUFFIXES))}) in class folders")
    faults = Faults(card, name)
    if card.splits[name].lists:
        kept = _kept(card, name, paths, faults)
        paths, labels, accepted = ([column[i] for i in kept] for column in (paths, labels, accepted))
    ids = [p.relative_to(folder).as_posix() for p in paths]
    several = any(len(right) > 1 for right in accepted)
    digest = content_digest(faults, ids, paths, [ids, labels, *([accepted] if several else [])])
    return faults.spare(Split(Pictures(paths), np.array(labels), digest, ids, accepted=accepted if several else None))


def _kept(card: DatasetCard, name: str, paths: Sequence[Path], faults: Faults) -> list[int]:
    """Positions of the images whose file names are listed, one a line; those that are not there are `faults`.

    A line may have the class folder before the name, as the subsets of SimCLR have not.
    """
    wanted = {Path(line).name for file in card.splits[name].lists for line in listed(card.root / file)}
    kept = [i for i, path in enumerate(paths) if path.name in wanted]
    if missing := sorted(wanted - {paths[i].name for i in kept}):
        where = f"dataset {card.name}: splits.{name}.list"
        lines: dict[Found, str] = {("image", image): f"{where}: {image} is missing" for image in missing}
        said = f"{where}: {len(missing)} of {len(wanted)} are missing: {faults.named(missing)}" if faults.strict else ""
        faults.add(lines, said)
    return kept
