"""CLIP_benchmark's result tables: 13 models on 39 data sets, and the networks of the scaling laws on the same.

https://github.com/LAION-AI/CLIP_benchmark/tree/main/benchmark, Cherti et al. 2023 (arXiv 2212.07143)
"""

from collections.abc import Sequence

from pydantic import JsonValue

from ...backbones.errors import did_you_mean
from ..result import Identity
from .collecting import About, Collector, Given, Measure, source_of
from .names import identity, known
from .reading import Line, Table

ADDRESS = "https://github.com/LAION-AI/CLIP_benchmark/tree/main/benchmark"
BENCHMARK = About("clip-benchmark", "CLIP_benchmark: zero-shot", ADDRESS, "mit")
SCALING = About("clip-scaling", "CLIP_benchmark: scaling laws, zero-shot", ADDRESS, "mit")

SCORES = {  # column → metric
    "acc1": "top1",
    "acc5": "top5",
    "mean_per_class_recall": "mean_per_class",
    "mean_average_precision": "map",
    "image_retrieval_recall@5": "text_to_image_at_5",
    "text_retrieval_recall@5": "image_to_text_at_5",
}
# Of each task the scores that rank; a data set with several labels an image has no other than mAP.
RANKED = {
    "zeroshot_classification": ("top1", "map"),
    "zeroshot_retrieval": ("text_to_image_at_5", "image_to_text_at_5"),
}
TASKS = {"zeroshot_classification": "zero-shot", "zeroshot_retrieval": "image-text-retrieval"}
SHIFTED = ("imagenetv2", "imagenet-r", "imagenet_sketch", "objectnet", "imagenet-a", "imagenet-o")
MEANS = ("imagenet_robustness", "vtab", "vtab+")  # over the other data sets
DATASETS = {"imagenet1k": "imagenet-1k", "imagenetv2": "imagenet-v2", "mscoco_captions": "mscoco"}
DATA = {"CLIP-WIT": "wit-400m"}  # what the roster calls it; the others are called so, in lower case
OF_BENCHMARK = ("dataset", "model", "pretrained", "model_fullname", "task")
OF_SCALING = ("downstream_dataset", "model_fullname", "arch", "upstream_dataset", "task")
COSTS = ("samples_seen", "samples_seen_pretty", "gmacs", "gmacs_total")


def read(tables: Sequence[Table], about: About) -> list[Given]:
    """The figures of each table, of which there are two kinds. Raises BadInput."""
    return [_read(table, about) for table in tables]


def _read(table: Table, about: About) -> Given:
    scaling = "downstream_dataset" in table.columns
    table.expect(OF_SCALING if scaling else OF_BENCHMARK, (*SCORES, *(COSTS if scaling else ())), "such a table")
    collector = Collector(table, source_of(table, about.over(SCALING if scaling else BENCHMARK)))
    backbones: dict[str, Identity] = {}
    left_out = set()
    for line in table.lines:
        name = line.name("model_fullname")
        data = line.name("downstream_dataset" if scaling else "dataset")
        if data in MEANS:
            left_out.add(data)
            continue
        if name not in backbones:
            backbones[name] = _of_scaling(line) if scaling else _of_benchmark(line)
        for column in SCORES:
            if column in table.columns:
                collector.take(line, column, backbones[name], _measure(line, data, column))
    notes = (f"left out {', '.join(sorted(left_out))}: means over data sets",) if left_out else ()
    return collector.given(notes=notes)


def _measure(line: Line, data: str, column: str) -> Measure:
    task, metric = line.cells["task"], SCORES[column]
    if task not in TASKS:
        raise line.error("task", f"{task!r} is none of {', '.join(TASKS)}{did_you_mean(task, TASKS)}")
    family = "retrieval" if task == "zeroshot_retrieval" else "ood" if data in SHIFTED else "classification"
    dataset = DATASETS.get(data, data.removeprefix("vtab/").replace("_", "-"))
    return Measure(TASKS[task], family, dataset, metric, "ranked" if metric in RANKED[task] else "kept", scale=100)


def _of_benchmark(line: Line) -> Identity:
    return identity("open_clip", f"{line.name('model')}@{line.name('pretrained')}")


def _of_scaling(line: Line) -> Identity:
    """Of a released network, what the roster knows; of the paper's others, what the row says. `gmacs` are of one image
    and one text, so they are no MACs of a backbone."""
    architecture, _, tag = line.name("model_fullname").partition(" ")
    if not tag:
        raise line.error("model_fullname", "write an architecture, a space and the name of its weights")
    seen, gmacs = line.figure("samples_seen", 0, 1e15), line.figure("gmacs", 0, 1e9)
    more = {"samples_seen": seen and float(seen), "both_towers": None if gmacs is None else {"gmacs": float(gmacs)}}
    model = f"{architecture}@{tag}"
    if known(f"open_clip/{model}"):
        return identity("open_clip", model, **more)
    upstream = line.name("upstream_dataset")
    pretraining: JsonValue = {"method": "vision-language", "data": DATA.get(upstream, upstream.lower())}
    family = "vit" if architecture.startswith("ViT-") else None
    return identity("open_clip", model, model, family=family, pretraining=pretraining, **more)
