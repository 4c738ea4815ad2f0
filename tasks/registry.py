"""Tasks by name, found by reading their files and not by importing them, so that a listing is instant."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from ..backbones.errors import Unavailable, unknown
from .task import Task

ROOM = Path(__file__).parent
PLUGINS = "backbench.tasks"  # entry points of other packages: name = "package.module:Class"


@dataclass(frozen=True)
class TaskEntry:
    """What is known of a task before it is imported."""

    name: str
    family: str
    version: int
    description: str
    module: str
    class_name: str


@cache
def list_tasks() -> list[TaskEntry]:
    """Every task of the package and of plugins, by family and name; imports none of them."""
    found = [*_packaged(), *_plugged()]
    return sorted(found, key=lambda task: (task.family, task.name))


def find_task(name: str) -> Task:
    """The task of this name. Raises BadInput when there is none, Unavailable when its module can't be imported."""
    entry = next((task for task in list_tasks() if task.name == name), None)
    if entry is None:
        raise unknown("task", name, [task.name for task in list_tasks()])
    try:
        return getattr(import_module(entry.module), entry.class_name)()
    except ImportError as error:
        raise Unavailable(f"task {name}: {entry.module} cannot be imported: {error}; install what it needs") from error


def _packaged() -> Iterator[TaskEntry]:
    package = __name__.rpartition(".")[0]
    for path in sorted(ROOM.glob("*/*.py")):
        yield from _declared(path, f"{package}.{path.parent.name}.{path.stem}")


def _plugged() -> Iterator[TaskEntry]:
    for point in entry_points(group=PLUGINS):
        try:
            spec = find_spec(point.module)
        except ImportError:
            continue  # the package is half removed
        if spec and spec.origin:
            yield from (t for t in _declared(Path(spec.origin), point.module) if t.class_name == point.attr)


def _declared(path: Path, module: str) -> Iterator[TaskEntry]:
    """Tasks in a file: classes on `Task` with `name, family, version = "…", "…", 1` in their body."""
    source = path.read_text(encoding="utf-8")
    if "(Task)" not in source:
        return  # parsing is what takes time
    tree = ast.parse(source)
    description = (ast.get_docstring(tree) or "").partition("\n")[0].rstrip(".")
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(isinstance(b, ast.Name) and b.id == "Task" for b in node.bases):
            name, family, version = _names(node)
            yield TaskEntry(name, family, version, description, module, node.name)


def _names(node: ast.ClassDef) -> tuple[str, str, int]:
    for line in node.body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]).strip("()") == "name, family, version":
            return ast.literal_eval(line.value)
    raise TypeError(f'{node.name}: a task says `name, family, version = "…", "…", 1` in its class body')
