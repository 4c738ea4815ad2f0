"""What tests of several rooms share: a home of their own, the command line as a process, the real data."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("unhurried", deadline=None)  # a busy machine is no error
settings.load_profile("unhurried")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty BACKBENCH_HOME."""
    folder = tmp_path / "home"
    monkeypatch.setenv("BACKBENCH_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def real_data():
    """The folder of real images and weights; skips where there is none."""
    folder = os.environ.get("BACKBENCH_REAL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("BACKBENCH_REAL_DATA does not name the folder of real data")
    return Path(folder)


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Lines of stdout and stderr that say something."""
        return [line for line in (self.out + self.err).splitlines() if line.strip()]


def backbench(*words: str, home: Path, timeout: float = 600, **environment: str) -> Ended:
    """Run the command line as a user would, in a process of its own."""
    command = [sys.executable, "-c", "from backbench.benchmarks.cli import main; main()", *map(str, words)]
    env = os.environ | {"BACKBENCH_HOME": str(home), "PYTHONWARNINGS": "ignore"} | environment
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env, stdin=subprocess.DEVNULL)
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def command():
    """`command("run", …, home=folder)`: the command line in a process of its own."""
    return backbench


@pytest.fixture
def cli(home):
    """`cli("run", "quick", …)` in the test's own home."""

    def call(*words: str, **options) -> Ended:
        return backbench(*words, home=home, **options)

    return call


@pytest.fixture
def tiny(tmp_path):
    """Path of a card for a small random network of timm's, so that no test waits for weights."""
    card = tmp_path / "tiny.yaml"
    card.write_text("source: timm\nmodel: test_resnet\npretrained: false\ninput: {size: 64}\n")
    return card


@pytest.fixture(scope="session")
def quick(tmp_path_factory):
    """A home in which the whole quick suite has run: minutes of work, done once and shared by all test processes."""
    from filelock import FileLock

    base = tmp_path_factory.getbasetemp()
    # Under pytest-xdist each process has a folder of its own below the common one.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "quick"
    with FileLock(f"{folder}.lock"):
        ended = backbench("run", "quick", home=folder, timeout=3000)
    assert ended.code == 0, ended.out + ended.err
    return folder
