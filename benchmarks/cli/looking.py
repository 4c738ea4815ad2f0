"""Commands that look at one thing: show, check, doctor."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...backbones.errors import unknown
from .output import console, pick_format, print_facts, print_json, print_rows


def show(name: str, format: str, home: Path | None) -> None:
    """`backbench show`: whatever has that name."""
    from ...backbones.registry import list_backbones
    from ...tasks.datasets.registry import list_datasets
    from ...tasks.registry import list_tasks
    from ..home import home_folder
    from ..suite import find_suite, list_suites

    pick_format(format, ("table", "json"))
    tasks, datasets = [task.name for task in list_tasks()], {card.name: card for card in list_datasets()}
    if name in tasks:
        return print_facts(_task_facts(name), format)
    if name in list_suites():
        return print_facts(find_suite(name).model_dump(mode="json"), format)
    if name in datasets:
        return print_facts(datasets[name].model_dump(mode="json", exclude_defaults=True, by_alias=True), format)
    if name in list_backbones():
        return print_facts(_backbone_facts(name), format)
    if len(name) >= 4 and set(name) <= set("0123456789abcdef"):
        from ...leaderboard import Store

        return print_facts(Store(home_folder(home) / "leaderboard.db").by_id(name).model_dump(mode="json"), format)
    if "/" in name or name.endswith((".yaml", ".yml")):
        return print_facts(_backbone_facts(name), format)
    known = [*list_backbones(), *tasks, *list_suites(), *datasets]
    raise unknown("backbone, task, dataset, suite or result", name, known)


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
