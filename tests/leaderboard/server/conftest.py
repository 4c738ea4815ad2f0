"""Servers over an invented store, and the tokens for them."""

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'backbench[serve]'")
sys.path.append(str(Path(__file__).parent))  # processes of a server import what they run by name

import stubs
from backbench.leaderboard import Result, Store
from backbench.leaderboard.server.app import make_app
from backbench.leaderboard.server.limits import Limits
from backbench.leaderboard.server.tokens import create_token
from fastapi.testclient import TestClient

PLENTY = Limits(reads=10**9, changes=10**9)
TASKS = ("linear-probe", "knn", "retrieval")


@dataclass
class Server:
    """A running server, its store, and two tokens as headers."""

    client: TestClient
    store: Store
    home: Path
    submit: dict[str, str]
    maintain: dict[str, str]

    def until(self, path: str, fits, headers=None, seconds: float = 30):
        """The JSON at a path, once it fits."""
        end = time.monotonic() + seconds
        while not fits(found := self.client.get(path, headers=headers).json()):
            assert time.monotonic() < end, found
            time.sleep(0.05)
        return found

    def hand_in(self, body: bytes, headers=None):
        """Posts a bundle."""
        kind = {"Content-Type": "application/zip"}
        return self.client.post("/api/v1/submissions", content=body, headers=(headers or self.submit) | kind)

    def decided(self, id: str):
        """A submission, once it is decided."""
        done = ("accepted", "refused", "failed")
        return self.until(f"/api/v1/submissions/{id}", lambda s: s["state"] in done, self.submit)


@pytest.fixture(scope="session")
def invented(content):
    """Makes results: `count` backbones over three tasks, each newer than the one before."""

    def make(count: int, first: int = 0) -> list[Result]:
        start = datetime(2026, 1, 1, tzinfo=UTC)
        return [
            Result.of(
                **content(f"timm/net-{number}", task, 40 + number % 50 + i),
                created=start + timedelta(minutes=3 * number + i),
            )
            for number in range(first, first + count)
            for i, task in enumerate(TASKS)
        ]

    return make


@pytest.fixture(scope="module")
def serving(tmp_path_factory, invented):
    """Starts servers: `serving(limits, database)`; they end with the module."""
    with ExitStack() as stack:

        def start(limits: Limits = PLENTY, database: str = "", rows: int = 6) -> Server:
            home = tmp_path_factory.mktemp("home")
            database = database or str(home / "leaderboard.db")
            store = Store(database)
            store.add_all(invented(rows))
            shown = [create_token(store, name, name, None, by="tests") for name in ("submit", "maintain")]
            headers = [{"Authorization": f"Bearer {secret}"} for secret in shown]
            app = make_app(stubs.site_of(home, database, limits))
            client = stack.enter_context(TestClient(app, raise_server_exceptions=False, follow_redirects=False))
            return Server(client, store, home, *headers)

        yield start


@pytest.fixture(scope="module")
def server(serving):
    """One server for a module's tests."""
    return serving()
