"""timm's result tables: ImageNet top-1 and top-5 of networks with their own classifiers, on eight test sets.

https://github.com/huggingface/pytorch-image-models/tree/main/results
"""

from collections.abc import Sequence
from pathlib import PurePath

from ...backbones.errors import BadInput, did_you_mean
from ..result import Identity
from .collecting import About, Collector, Given, Measure, source_of
from .names import identity, known
from .reading import Line, Table

ABOUT = About(
    "timm",
    "timm: ImageNet and its test sets",
    "https://github.com/huggingface/pytorch-image-models/tree/main/results",
    "apache-2.0",
)
DATASETS = {  # file → data set, family, whether it ranks
    "results-imagenet.csv": ("imagenet-1k", "classification", True),
    "results-imagenet-real.csv": ("imagenet-real", "classification", True),
    "results-imagenetv2-matched-frequency.csv": ("imagenet-v2", "ood", True),
    "results-sketch.csv": ("imagenet-sketch", "ood", True),
    "results-imagenet-a.csv": ("imagenet-a", "ood", True),
    "results-imagenet-r.csv": ("imagenet-r", "ood", True),
    # ImageNet's own images of the 200 classes of A and R: what these fall from, and part of imagenet-1k.
    "results-imagenet-a-clean.csv": ("imagenet-a-clean", "classification", False),
    "results-imagenet-r-clean.csv": ("imagenet-r-clean", "classification", False),
}
NEEDED = ("model", "img_size", "top1", "top5", "param_count", "crop_pct", "interpolation")
DERIVED = ("top1_err", "top5_err", "top1_diff", "top5_diff", "rank_diff")  # from the others, or from another table


def read(tables: Sequence[Table], about: About) -> list[Given]:
    """The figures of each table, which its file's name tells the data set of. Raises BadInput."""
    return [_read(table, about.over(ABOUT)) for table in tables]


def _read(table: Table, about: About) -> Given:
    file = PurePath(table.path).name
    if file not in DATASETS:
        hint = did_you_mean(file, DATASETS) or f"; known: {', '.join(DATASETS)}"
        raise BadInput(f"{table.path}: timm's tables tell their data set by their file's name{hint}")
    table.expect(NEEDED, DERIVED, "a table of timm's")
    dataset, family, ranks = DATASETS[file]
    top1 = Measure("own-classifier", family, dataset, "top1", "ranked" if ranks else "shown")
    top5 = Measure("own-classifier", family, dataset, "top5", "kept")
    collector = Collector(table, source_of(table, about))
    for line in table.lines:
        backbone = _backbone(line)
        collector.take(line, "top1", backbone, top1)
        collector.take(line, "top5", backbone, top5)
    return collector.given(ignored=tuple(column for column in table.columns if column in DERIVED))


def _backbone(line: Line) -> Identity:
    """A row is a network at one input size. The size that timm itself runs it at goes without saying; another is part
    of the row's name, as is that of a network which the roster does not know."""
    model = line.name("model")
    size, crop = line.figure("img_size", 1, 10_000), line.figure("crop_pct", 0, 10)
    millions = line.figure("param_count", 0, 1e9, grouped=True)
    input = {"size": size and int(size), "crop": crop and float(crop), "interpolation": line.cells["interpolation"]}
    if size is not None and size % 1:
        raise line.error("img_size", f"{size} is no number of pixels")
    usual = (known(f"timm/{model}") or {}).get("input_size")
    name = f"timm/{model}" if size is None or size == usual else f"timm/{model}@{int(size)}px"
    parameters = None if millions is None else round(millions * 10**6)
    return identity("timm", model, name, parameters, input={k: v for k, v in input.items() if v not in (None, "")})
