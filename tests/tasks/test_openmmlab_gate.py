"""The gate: the only module that imports mm*, the versions it lets through, a compiled mmcv where there is one."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from backbench.backbones import Unavailable
from backbench.tasks.openmmlab import gate

ROOT = Path(__file__).parent.parent.parent
PACKAGES = {"mmengine", "mmcv", "mmdet", "mmseg", "mim"}
FOUND = {"mmengine": "0.10.7", "mmcv-lite": "2.1.0", "mmdet": "3.3.0", "mmsegmentation": "1.2.2"}


def imported(tree):
    """Names of modules that are imported somewhere in a file, by a statement or by `import_module("…")`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))


def test_no_other_module_imports_openmmlab():
    rooms = ("backbones", "tasks", "leaderboard", "benchmarks", "tests")
    files = [file for room in rooms for file in (ROOT / room).rglob("*.py")] + list(ROOT.glob("*.py"))
    found = {
        file.relative_to(ROOT).as_posix()
        for file in files
        for name in imported(ast.parse(file.read_text(encoding="utf-8")))
        if name.partition(".")[0] in PACKAGES
    }
    assert found == {"tasks/openmmlab/gate.py"}


def test_pins_are_those_of_the_extra():
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["openmmlab"]
    assert dict(line.split("==") for line in extra if "==" in line) == gate.WHEELS


@pytest.fixture
def installed(monkeypatch):
    """`installed(mmdet="3.2.0", …)`: what the gate is to find installed, and nothing else."""
    gate._open.cache_clear()
    yield lambda **found: monkeypatch.setattr(gate, "_version", {k.replace("_", "-"): v for k, v in found.items()}.get)
    gate._open.cache_clear()


def test_without_the_extra_the_message_is_how_to_install_it(installed):
    installed()
    with pytest.raises(Unavailable, match=r"not installed: pip install 'backbench\[openmmlab\]'"):
        gate.openmmlab("mmdet")


@pytest.mark.parametrize(
    "changed",
    [
        {"mmdet": "3.2.0"},
        {"mmsegmentation": None},
        {"mmcv_lite": None},
        {"mmcv": "2.1.0"},  # beside mmcv-lite
        {"onedl_mmcv": "2.3.6"},  # the fork beside the originals
    ],
)
def test_versions_that_do_not_work_together_are_refused(installed, changed):
    installed(**{name.replace("-", "_"): version for name, version in FOUND.items()} | changed)
    with pytest.raises(Unavailable, match=r"mmdet 3\.3\.0.*pip install 'backbench\[openmmlab\]'"):
        gate.openmmlab("mmdet")


@pytest.mark.parametrize("stack", [gate.WHEELS, gate.BUILT, gate.FORKED])
def test_versions_that_work_together_are_let_through(installed, stack):
    installed(**{name.replace("-", "_"): version for name, version in stack.items()})
    gate._check_versions()


COMPILED = """
import sys
from backbench.tasks.openmmlab.gate import openmmlab
print(*{name.partition(".")[0] for name in sys.modules})
import mmcv
mmcv.__path__.append(sys.argv[1])
print(openmmlab("mmcv._ext").__file__)
"""


def test_nothing_is_imported_before_it_is_asked_for_and_a_compiled_mmcv_is_used(tmp_path):
    pytest.importorskip("mmengine")
    (tmp_path / "_ext.py").write_text("nms = print")
    command = [sys.executable, "-c", COMPILED, str(tmp_path)]
    before, used = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "backbench" in before.split()
    assert not PACKAGES & set(before.split())
    assert used == str(tmp_path / "_ext.py")


def test_an_mmcv_compiled_for_another_torch_is_told_of(installed, monkeypatch):
    def import_module(name):
        if name == "mmcv._ext":
            raise ImportError("_ext.so: undefined symbol: _ZN3c10")

    installed(**{name.replace("-", "_"): version for name, version in gate.BUILT.items()})
    monkeypatch.setattr(gate, "import_module", import_module)
    with pytest.raises(Unavailable, match=r"compiled for another torch .*undefined symbol.*docker/README\.md"):
        gate.openmmlab("mmdet")
