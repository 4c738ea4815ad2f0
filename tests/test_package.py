"""The package: what pyproject lists is what is there, and a wheel holds all of it and nothing else."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OUTSIDE = {"tests", "docker", "build", "dist"}  # folders that are no part of the package


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def subpackages():
    found = {"backbench"}
    for init in ROOT.rglob("__init__.py"):
        parts = init.parent.relative_to(ROOT).parts
        if parts and parts[0] not in OUTSIDE and not parts[0].startswith("."):
            found.add(".".join(("backbench", *parts)))
    return found


def test_the_leaderboard_is_called_whoever_imported_its_room_before(home):
    code = "import backbench.leaderboard; from backbench import leaderboard; leaderboard('quick')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "nothing to rank" in done.stderr  # it was called


def test_packages_are_the_folders(project):
    assert set(project["tool"]["setuptools"]["packages"]) == subpackages()


def test_top_level_is_the_one_agreed_on():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    folders = {name.split("/")[0] for name in listed if "/" in name}
    assert folders == {"backbones", "benchmarks", "docker", "leaderboard", "tasks", "tests", ".ci"}


def test_extras_are_all_there(project):
    assert set(project["project"]["optional-dependencies"]) == {
        "openmmlab", "ray", "diffusion", "wandb", "adversarial", "serve", "test",
    }  # fmt: skip


def test_constraints_cover_every_direct_dependency(project):
    lines = (ROOT / "docker" / "constraints.txt").read_text().lower().replace("_", "-").splitlines()
    pinned = {line.split("==")[0] for line in lines if "==" in line}
    direct = [*project["project"]["dependencies"]]
    for extra in project["project"]["optional-dependencies"].values():
        direct += extra
    names = {d.split("[")[0].split(">")[0].split("=")[0].lower().replace("_", "-") for d in direct}
    assert names <= pinned


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    # A copy, so that setuptools leaves no build/ in the checkout.
    source = out / "source"
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in listing.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "-w", "--no-isolation", "-o", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "backbench",
        next(n for n in names if "dist-info" in n).split("/")[0],
    }
    inside = {name.removeprefix("backbench/") for name in names}
    for folder, pattern in (
        ("backbones/cards", "**/*.yaml"),
        ("backbones", "roster.json"),
        ("backbones/mini/weights", "*.safetensors"),
        ("tasks/datasets/cards", "*.yaml"),
        ("benchmarks/suites", "*.yaml"),
        ("leaderboard/page", "**/*"),
        ("leaderboard/server/swagger", "*"),
    ):
        expected = {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).glob(pattern) if p.is_file()}
        assert expected
        assert expected <= inside
    code = {p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*.py*") if p.suffix in (".py", ".pyi")}
    code = {name for name in code if name.split("/")[0] not in OUTSIDE and not name.startswith(".")}
    assert code <= inside
    assert not [name for name in inside if name.startswith(("tests/", "docker/"))]


def test_wheel_runs_away_from_the_checkout(wheel, tmp_path):
    """Unpacked as an installer would, with the libraries of this environment, it finds its cards, data and weights."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    program = f"""
import sys
sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
sys.path.insert(0, {str(site)!r})
import backbench
assert backbench.__file__.startswith({str(site)!r}), backbench.__file__
from backbench.benchmarks.cli import code
sys.exit(code(["run", "knn", "--limit", "60", "--backbone", "mini/cnn-random", "--home", {str(tmp_path / "home")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "0 failed" in done.stdout


@pytest.mark.slow
def test_wheel_in_an_empty_environment_runs_quick(wheel, tmp_path):
    """The whole of it: a fresh environment, pip, and the quick suite."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    pip = [tmp_path / "venv" / "bin" / "python", "-m", "pip", "install", "-q", "--prefer-binary"]
    subprocess.run([*pip, "-c", ROOT / "docker" / "constraints.txt", wheel], check=True, cwd=tmp_path)
    [site] = (tmp_path / "venv").glob("lib/python*/site-packages")
    assert [p.name for p in site.glob("backbench*") if "dist-info" not in p.name] == ["backbench"]
    command = [tmp_path / "venv" / "bin" / "backbench", "run", "quick", "--home", tmp_path / "home"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
