"""Many at once: 64 who read and 8 who hand in, from another process than the server's. Every one is answered."""

import asyncio
import json
import random
import statistics
import time

import httpx
import pytest
from backbench.leaderboard import Store
from backbench.leaderboard.server.ledger import Ledger
from backbench.leaderboard.server.tokens import create_token
from processes import in_a_loop, started, until
from test_submitting import bundle_of

READERS, SUBMITTERS = 64, 8
PATHS = [
    "/", "/api/v1/boards", "/api/v1/ranking", "/api/v1/ranking?suite=quick&family=retrieval",
    "/api/v1/results?limit=100", "/api/v1/results?task=knn&offset=50", "/health",
]  # fmt: skip


async def crowd(url: str, headers: dict[str, str], bundles: list[bytes], reads: int) -> dict[str, list]:
    """What everybody was answered: (status, seconds) by kind of caller."""
    seen: dict[str, list] = {"read": [], "again": [], "submit": []}

    async def ask(client, kind, *args, **more):
        start = time.perf_counter()
        answer = await client.request(*args, **more)
        seen[kind].append((answer.status_code, time.perf_counter() - start))
        return answer

    def client(**headers):  # no certificates are read for each of them
        return httpx.AsyncClient(base_url=url, timeout=60, headers=headers, verify=False)

    async def reader(number, client):
        rng, tags = random.Random(number), {}
        async with client:
            for _ in range(reads):
                path = rng.choice(PATHS)
                kind, known = ("again", {"If-None-Match": tags[path]}) if path in tags else ("read", {})
                answer = await ask(client, kind, "GET", path, headers=known)
                if tag := answer.headers.get("ETag"):
                    tags[path] = tag
                await asyncio.sleep(rng.random() * 0.05)

    async def submitter(own, client):
        async with client:
            for body in own:
                while (await ask(client, "submit", "POST", "/api/v1/submissions", content=body)).status_code == 503:
                    await asyncio.sleep(0.5)

    own = [bundles[i::SUBMITTERS] for i in range(SUBMITTERS)]
    readers = [reader(i, client(**{"Accept-Encoding": "gzip"})) for i in range(READERS)]
    await asyncio.gather(*readers, *[submitter(mine, client(**headers)) for mine in own])
    return seen


def served(home, database: str, invented, rows: int, reads: int, each: int) -> None:
    store = Store(database)
    store.add_all(invented(rows))
    headers = {"Authorization": f"Bearer {create_token(store, 'crowd', 'submit', None, by='tests')}"}
    headers |= {"Content-Type": "application/zip"}
    bundles = [bundle_of(invented(1, first=rows + i)) for i in range(SUBMITTERS * each)]
    with started(home, database) as server:
        until(lambda: httpx.get(f"{server.url}/health").json()["page"] is not None)
        begin = time.perf_counter()
        seen = in_a_loop(crowd(server.url, headers, bundles, reads))
        took = time.perf_counter() - begin
        for kind, answers in seen.items():
            seconds = sorted(1000 * s for _, s in answers)
            p50, p95 = statistics.median(seconds), seconds[int(0.95 * len(seconds))]
            print(
                f"\n{kind}: {len(answers)} answers, p50 {p50:.0f} ms, p95 {p95:.0f} ms, most {seconds[-1]:.0f} ms",
                end="",
            )
        print(f"; {took:.1f} s in all")
        assert len(seen["read"]) + len(seen["again"]) == READERS * reads
        assert {status for status, _ in seen["read"] + seen["again"]} <= {200, 302, 304}
        assert {status for status, _ in seen["submit"]} <= {202, 503}
        taken = len(bundles)
        assert sum(status == 202 for status, _ in seen["submit"]) == taken
        until(lambda: Ledger(store).page(None, "accepted", 0, 1)[0] == taken, 120)
        assert len(store.all()) == 3 * (rows + taken)  # nothing was lost
        until(lambda: json.loads(httpx.get(f"{server.url}/health").text)["results"] == 3 * (rows + taken))


def test_some_who_read_and_hand_in_are_all_answered(tmp_path, invented):
    served(tmp_path, str(tmp_path / "leaderboard.db"), invented, rows=50, reads=4, each=1)


def test_on_postgresql_too(tmp_path, invented, postgres):
    served(tmp_path, postgres, invented, rows=20, reads=3, each=1)


@pytest.mark.slow
def test_many_who_read_and_hand_in_are_all_answered(tmp_path, invented):
    served(tmp_path, str(tmp_path / "leaderboard.db"), invented, rows=2000, reads=100, each=10)
