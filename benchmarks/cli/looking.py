"""Commands that look at one thing: show, check, doctor."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...backbones.errors import unknown
from .output import console, pick_format, print_facts, print_json, print_rows

if TYPE_CHECKING:
    from ...tasks.datasets import DatasetCard


def show(name: str, format: str, home: Path | None, database: str | None = None, picture: Path | None = None) -> None:
    """`backbench show`: whatever has that name; of a result also its picture as a file."""
    from ...backbones.registry import list_backbones
    from ...tasks.datasets.registry import find_dataset, list_datasets
    from ...tasks.registry import list_tasks
    from ..home import home_folder
    from ..suite import find_suite, list_suites

    pick_format(format, ("table", "json"))
    tasks, datasets = [task.name for task in list_tasks()], {card.name: card for card in list_datasets(home)}
    if picture:
        return _draw(name, picture, home_folder(home), database)
    if name in tasks:
        return print_facts(_task_facts(name), format)
    if name in list_suites():
        return print_facts(find_suite(name).model_dump(mode="json"), format)
    if name in datasets:
        return _show_dataset(datasets[name], format)
    if name in list_backbones():
        return print_facts(_backbone_facts(name), format)
    if len(name) >= 4 and set(name) <= set("0123456789abcdef"):
        return _show_result(name, format, home_folder(home), database)
    if name.endswith((".yaml", ".yml")) and _reads_as_dataset(Path(name)):
        return _show_dataset(find_dataset(name, home), format)
    if "/" in name or name.endswith((".yaml", ".yml")):
        return print_facts(_backbone_facts(name), format)
    known = [*list_backbones(), *tasks, *list_suites(), *datasets]
    raise unknown("backbone, task, dataset, suite or result", name, known)


def _draw(id: str, picture: Path, home: Path, database: str | None) -> None:
    from ..home import store_of
    from ..picture import write_picture

    write_picture(store_of(home, database).by_id(id), home, picture)
    print(f"picture: {picture}")


def _show_result(id: str, format: str, home: Path, database: str | None) -> None:
    """All of a result; of one that was trained here the curves as well."""
    from ...tasks.training.curve import read_curves, told
    from ..home import run_folder, store_of

    result = store_of(home, database).by_id(id)
    curves = read_curves(run_folder(home, result.cell_id))
    facts = result.model_dump(mode="json")
    if format == "json":
        return print_json(facts | ({"curves": curves} if curves else {}))
    print_facts(facts | ({"curves": {name: told(rows) for name, rows in curves.items()}} if curves else {}), format)


def _reads_as_dataset(path: Path) -> bool:
    """Whether a YAML file is a data set's card, which alone says of which kind it is."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and "kind" in content


def _show_dataset(card: "DatasetCard", format: str) -> None:
    """What it is, its splits, whose it is; what is needed, where that belongs, and which of it is there."""
    from ...tasks.datasets.inventory import inventory

    found = inventory(card)
    if format == "json":
        facts = card.model_dump(mode="json", exclude_defaults=True, by_alias=True)
        return print_json(facts | {"inventory": found})
    about = {"kind": ", ".join(card.kind), "source": card.source, "classes": len(card.classes or card.class_names)}
    if isinstance(card.class_names, str) or not about["classes"]:
        about["classes"] = card.class_names or "as its files have them"
    prompts = card.prompts if isinstance(card.prompts, str) else " | ".join(card.prompts)
    about |= {"prompts": prompts, "protocol": card.protocol, "license": card.license, "citation": card.citation}
    print(f"{card.name}: {card.description or 'a data set of your own'}\n")
    for key, value in about.items():
        if value:
            print(f"{key:<10}{value}")
    print()
    rows = [{"split": s["split"], "images": s["images"], "made of": s["made_of"]} for s in found["splits"]]
    print_rows(rows, format)
    print("\n" + "\n".join(_needed(card, found)))


def _needed(card: "DatasetCard", found: dict[str, Any]) -> list[str]:
    """Lines for a person who wants to have the data set."""
    if not found["files"]:
        return ["Nothing is needed: it is composed at run time."]
    local = found["where"] is not None
    there, missing = ("there  ", "MISSING") if local else ("in the cache", "not in the cache yet")
    head = f"Needed in {found['where']}:" if local else "From the hub, downloaded when it is first used:"
    lines = [head, *(f"  {there if file['there'] else missing}  {file['file']}" for file in found["files"])]
    if not found["missing"]:
        return lines
    if card.homepage:
        lines.append(f"{'Where it is to be had' if local else 'Its page'}: {card.homepage}")
    if card.prepare:
        lines.append(f"What to do: {card.prepare}")
    if local and card.source != "combined":
        lines.append(f"If you have it elsewhere: ln -s /where/it/is {found['where']}")
    return lines


def _task_facts(name: str) -> dict[str, Any]:
    import sys

    from ...tasks import find_task
    from ...tasks.task import settings_of

    task = find_task(name)
    return {
        "name": task.name,
        "family": task.family,
        "version": task.version,
        "description": (sys.modules[type(task).__module__].__doc__ or "").strip(),
        "needs": {
            "data": task.needs.data,
            "splits": list(task.needs.splits),
            "maps": task.needs.maps,
            "text": task.needs.text,
        },
        "scores": {
            key: {"unit": m.unit, "low": m.low, "high": m.high, "higher_is_better": m.higher_is_better}
            for key, m in task.scores.items()
        },
        "headline": task.headline,
        "recipe": settings_of(task.recipe()),
    }


def _backbone_facts(name: str) -> dict[str, Any]:
    """The card, and what is measured on the network itself when its weights are at hand."""
    from ...backbones import Unavailable, find_backbone, load_backbone

    card = find_backbone(name)
    facts: dict[str, Any] = {"card": card.model_dump(mode="json", exclude_defaults=True), "digest": card.digest()}
    try:
        backbone = load_backbone(card)
    except Unavailable as reason:
        return facts | {"measured": f"not measured: {reason}"}
    return facts | {
        "measured": {
            "parameters": backbone.parameters_count,
            "embed_dim": backbone.embed_dim,
            "levels": [{"channels": level.channels, "stride": level.stride} for level in backbone.levels],
            "text_tower": backbone.has_text,
            "transform": backbone.transform.identity,
            "weights_digest": backbone.weights_digest,
            "layers": len(backbone.layer_names),
        }
    }


def check(name: str, device: str, format: str) -> int:
    """`backbench check`: exit code 1 when a point fails."""
    from ...backbones import find_backbone
    from ...backbones.check import PROMISES, Point
    from ...backbones.check import check as check_backbone

    pick_format(format, ("table", "json"))
    card = find_backbone(name)
    if format == "json":
        points = check_backbone(card, device)
        print_json([asdict(point) for point in points])
        return int(not all(point.passed for point in points))

    from rich.text import Text

    screen, points = console(), []
    marks = {"pass": ("pass", "green"), "n/a": ("n/a ", "yellow"), "fail": ("FAIL", "bold red")}

    def tell(point: Point) -> None:
        points.append(point)
        detail = (point.detail, "" if point.state == "fail" else "dim")
        screen.print(Text.assemble(marks[point.state], f"  {point.name:<38}", detail), soft_wrap=True)
        status.update(f"{len(points)} of {len(PROMISES)} points")

    with screen.status("loading") as status:  # drawn on a terminal only
        check_backbone(card, device, watch=tell)
    print(f"{name}: " + ", ".join(f"{sum(p.state == state for p in points)} {state}" for state in marks))
    return int(not all(point.passed for point in points))


def doctor(format: str, home: Path | None) -> None:
    """`backbench doctor`."""
    from ..doctor import examine

    pick_format(format, ("table", "json"))
    print_rows(examine(home), format)
