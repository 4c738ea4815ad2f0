"""Commands that look: list, show, check, doctor."""

from pathlib import Path
from typing import Any

from ...backbones.errors import unknown
from .output import console, pick_format, print_facts, print_json, print_rows


def list_(what: str, grep: str | None, format: str) -> None:
    """`backbench list`."""
    listings = {"backbones": _backbones, "tasks": _tasks, "datasets": _datasets, "suites": _suites}
    if what not in listings:
        raise unknown("listing", what, listings, where="backbench list")
    pick_format(format, ("table", "json"))
    rows = listings[what]()
    if grep:
        rows = [row for row in rows if grep.lower() in " ".join(str(v) for v in row.values()).lower()]
    if format == "table" and not rows:
        print(f"no {what} here{f' with {grep!r}' if grep else ''}")
    else:
        print_rows(rows, format)
    if what == "backbones" and format == "table":
        print(
            "\nAlso any timm/NAME, open_clip/ARCH@TAG, transformers/ORG/NAME, torchvision/NAME@WEIGHTS, or CARD.yaml."
        )


def _backbones() -> list[dict[str, Any]]:
    from ...backbones.registry import find_backbone, list_backbones

    rows = []
    for name in list_backbones():
        card = find_backbone(name)
        how = card.pretraining
        rows.append(
            {
                "name": name,
                "source": card.source,
                "family": card.family,
                "pretraining": how.method if how else None,
                "data": how.data if how else None,
                "license": card.license,
            }
        )
    return rows


def _tasks() -> list[dict[str, Any]]:
    from ...tasks.registry import list_tasks

    return [
        {"name": t.name, "family": t.family, "version": t.version, "description": t.description} for t in list_tasks()
    ]


def _datasets() -> list[dict[str, Any]]:
    from ...tasks.datasets.registry import list_datasets

    return [
        {"name": card.name, "kind": ", ".join(card.kind), "source": card.source, "description": card.description or ""}
        for card in list_datasets()
    ]


def _suites() -> list[dict[str, Any]]:
    from ..suite import find_suite, list_suites

    rows = []
    for name in list_suites():
        suite = find_suite(name)
        rows.append(
            {
                "name": name,
                "tasks": len(suite.entries),
                "backbones": len(suite.backbones),
                "description": suite.description,
            }
        )
    return rows


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


def check(name: str, format: str) -> int:
    """`backbench check`: exit code 1 when a point fails."""
    from ...backbones import find_backbone
    from ...backbones.check import check as check_backbone

    pick_format(format, ("table", "json"))
    points = check_backbone(find_backbone(name))
    if format == "json":
        print_json([{"name": p.name, "passed": p.passed, "detail": p.detail} for p in points])
    else:
        screen = console()
        for point in points:
            mark = "[green]pass[/]" if point.passed else "[bold red]FAIL[/]"
            screen.print(f"{mark}  {point.name:<34}", end="")
            screen.print(point.detail, markup=False, style="dim" if point.passed else "")
        failed = sum(not point.passed for point in points)
        print(f"{name}: {len(points) - failed} of {len(points)} points passed")
    return int(any(not point.passed for point in points))


def doctor(format: str, home: Path | None) -> None:
    """`backbench doctor`."""
    from ..doctor import examine

    pick_format(format, ("table", "json"))
    print_rows(examine(home), format)
