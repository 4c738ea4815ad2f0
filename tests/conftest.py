"""What tests of several rooms share: a home of their own, the command line as a process, the real data."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
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


@pytest.fixture(scope="session")
def postgres_server():
    """URL of a PostgreSQL of our own, all but the database; reached by a socket alone. Skips where there is none."""
    places = [os.environ["PATH"], *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))]
    if (found := shutil.which("initdb", path=os.pathsep.join(places))) is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'backbench[serve]'")
    programs = Path(found).resolve().parent
    user = {"user": "postgres"} if os.getuid() == 0 else {}  # PostgreSQL refuses to run as root
    # A socket's path must be short, and pytest's folders are closed to other users.
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as scratch:
        folder = Path(scratch)
        if user:
            shutil.chown(folder, **user)
        data, socket = folder / "data", str(folder)
        initdb = [programs / "initdb", "-D", data, "-U", "test", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **user)
        # Whoever is called guarded needs a password.
        (data / "pg_hba.conf").write_text("local all guarded scram-sha-256\nlocal all all trust\n")
        settings = {"listen_addresses": "", "unix_socket_directories": socket, "fsync": "off"}
        words = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        log = (folder / "log").open("wb")
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, *words], stdout=log, stderr=log, cwd=folder, **user
        )
        ready = [programs / "pg_isready", "-q", "-h", socket]
        try:
            for _ in range(300):
                if server.poll() is not None or not subprocess.run(ready, check=False).returncode:
                    break
                time.sleep(0.05)
            assert server.poll() is None, (folder / "log").read_text()
            yield f"postgresql://test@/{{}}?host={socket}"
        finally:
            server.send_signal(signal.SIGQUIT)  # at once: nothing is kept
            server.wait(60)
            log.close()


@pytest.fixture
def postgres(postgres_server):
    """URL of a PostgreSQL database that is empty again; connections that another test forgot are closed."""
    import psycopg

    url = postgres_server.format("postgres")
    with psycopg.connect(url, autocommit=True) as connection:
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        connection.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}")
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
        connection.execute("GRANT USAGE ON SCHEMA public TO public")  # as in every new database
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, tmp_path):
    """Where results may be kept, once in each kind of database: a path, and a URL."""
    return tmp_path / "leaderboard.db" if request.param == "sqlite" else request.getfixturevalue("postgres")


@pytest.fixture(scope="session")
def chromium():
    """A browser that opens files and reaches nothing else."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not path:
        pytest.skip("no chromium here: apt-get install chromium")
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-quic", *quiet]
        )
        yield browser
        browser.close()
