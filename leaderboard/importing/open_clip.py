"""OpenCLIP's result tables: zero-shot classification on 35 data sets, image-text retrieval, and what models cost.

https://github.com/mlfoundations/open_clip/tree/main/docs
"""

from collections.abc import Sequence

from ...backbones.errors import BadInput
from ..published import Use
from ..result import Identity
from .collecting import About, Collector, Given, Measure, source_of
from .names import identity
from .reading import Line, Table

ADDRESS = "https://github.com/mlfoundations/open_clip/tree/main/docs"
ZERO_SHOT = About("open-clip", "OpenCLIP: zero-shot classification", ADDRESS, "mit")
RETRIEVAL = About("open-clip-retrieval", "OpenCLIP: zero-shot retrieval", ADDRESS, "mit")

NAMES = ("name", "pretrained")
COSTS = ("params (M)", "FLOPs (B)")
AVERAGES = ("Average perf. on 35 datasets", "Average perf. on 38 datasets", "Average score")
SHIFTED = ("ImageNet Sketch", "ImageNet v2", "ImageNet-A", "ImageNet-O", "ImageNet-R", "ObjectNet")
CLASSIFIED = (
    "ImageNet 1k|Caltech-101|CIFAR-10|CIFAR-100|CLEVR Counts|CLEVR Distance|Country211|Describable Textures|EuroSAT|"
    "FGVC Aircraft|Food-101|GTSRB|KITTI Vehicle Distance|MNIST|Oxford Flowers-102|Oxford-IIIT Pet|Pascal VOC 2007|"
    "PatchCamelyon|Rendered SST2|RESISC45|Stanford Cars|STL-10|SUN397|SVHN|iWildCam|Camelyon17|FMoW|Dollar Street|GeoDE"
)
# Which score a column has is the main_metric of DataComp's tasklist.yml (Gadre et al. 2023); top-1 where it says none.
METRICS: dict[str, str] = {
    "Caltech-101": "mean_per_class",
    "FGVC Aircraft": "mean_per_class",
    "Oxford Flowers-102": "mean_per_class",
    "Oxford-IIIT Pet": "mean_per_class",
    "iWildCam": "macro_f1",
    "FMoW": "worst_region_top1",
    "Dollar Street": "worst_group_top5",
    "GeoDE": "worst_group_top1",
}
PROFILE = ("model", "image_size", "image_width", "text_width", "embed_dim", "mparams", "image_mparams", "text_mparams")
PROFILE += ("gflops", "image_gflops", "text_gflops")


def _share(task: str, family: str, dataset: str, metric: str, use: Use = "ranked") -> Measure:
    return Measure(task, family, dataset, metric, use, scale=100)


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")


def _measures() -> dict[str, Measure]:
    found = {c: _share("zero-shot", "classification", _slug(c), METRICS.get(c, "top1")) for c in CLASSIFIED.split("|")}
    found |= {c: _share("zero-shot", "ood", _slug(c), "top1") for c in SHIFTED}
    for column, dataset in (("Flickr", "flickr30k"), ("MSCOCO", "mscoco")):
        found[column] = _share("image-text-retrieval", "retrieval", dataset, "mean_recall_at_1")
        for direction, metric in (("image", "text_to_image"), ("text", "image_to_text")):
            for k in (1, 5, 10):
                key, use = f"{column} {direction} retr. R@{k}", "ranked" if k == 1 else "kept"
                found[key] = _share("image-text-retrieval", "retrieval", dataset, f"{metric}_at_{k}", use)
    found["WinoGAViL"] = _share("association", "retrieval", "winogavil", "jaccard_10_12")
    found["WinoGAViL avg jaccard score"] = _share("association", "retrieval", "winogavil", "jaccard")
    for group in ("10", "10-12", "12", "5", "5-6", "6"):
        metric = f"jaccard_{group.replace('-', '_')}"
        found[f"WinoGAViL jaccard score {group}"] = _share("association", "retrieval", "winogavil", metric, "kept")
    return found


MEASURES = _measures()


def read(tables: Sequence[Table], about: About) -> list[Given]:
    """The figures of each table; model_profile.csv among them tells what their networks cost. Raises BadInput."""
    profiles = [table for table in tables if table.columns[:2] == PROFILE[:2]]
    costs = {line.name("model"): line for table in profiles for line in _profile(table).lines}
    results = [table for table in tables if table not in profiles]
    if not results:
        raise BadInput(f"{profiles[0].path}: says what models cost and has no results; give their tables with it")
    return [_read(table, about, costs) for table in results]


def _profile(table: Table) -> Table:
    table.expect(PROFILE, (), "OpenCLIP's profile of models")
    return table


def _read(table: Table, about: About, costs: dict[str, Line]) -> Given:
    table.expect((*NAMES, *COSTS), (*AVERAGES, *MEASURES), "a table of OpenCLIP's")
    columns = [column for column in table.columns if column in MEASURES]
    of_retrieval = not any(MEASURES[column].task == "zero-shot" for column in columns)
    collector = Collector(table, source_of(table, about.over(RETRIEVAL if of_retrieval else ZERO_SHOT)))
    for line in table.lines:
        backbone = _backbone(line, costs.get(line.name("name")))
        for column in columns:
            collector.take(line, column, backbone, MEASURES[column])
    notes = () if costs else ("parameters are of both towers; with model_profile.csv: of the image tower, and MACs",)
    return collector.given(tuple(column for column in table.columns if column in AVERAGES), notes)


def _backbone(line: Line, cost: Line | None) -> Identity:
    """An architecture with weights. Its FLOPs are of one image and one text, two a multiply-accumulate (OpenCLIP counts
    by torch.utils.flop_counter): kept as they are, MACs are half of the image tower's own in the profile."""
    both, flops = line.figure("params (M)", 0, 1e9), line.figure("FLOPs (B)", 0, 1e9)
    millions = cost.figure("image_mparams", 0, 1e9) if cost else both
    image = cost.figure("image_gflops", 0, 1e9) if cost else None
    return identity(
        "open_clip",
        f"{line.name('name')}@{line.name('pretrained')}",
        parameters=None if millions is None else round(millions * 10**6),
        macs=None if image is None else round(image * 10**9 / 2),
        both_towers={
            key: float(value)
            for key, value in (("parameters_millions", both), ("flops_billions", flops))
            if value is not None
        },
    )
