"""Handing in: to disk, into the queue, through a check elsewhere; and what becomes of what goes wrong."""

import asyncio
import json
import signal
from pathlib import Path

import httpx
import pytest
from backbench.backbones.errors import Unavailable
from backbench.leaderboard import Store
from backbench.leaderboard.server import intake
from backbench.leaderboard.server.ledger import Ledger
from backbench.leaderboard.server.limits import Limits
from backbench.leaderboard.server.problems import Refused
from backbench.leaderboard.server.tokens import create_token
from processes import in_a_loop, started, until
from starlette.requests import ClientDisconnect
from stubs import House


def bundle_of(results) -> bytes:
    return json.dumps({"results": [json.loads(r.to_json()) for r in results]}).encode()


def test_a_bundle_is_taken_in_and_ranked(server, invented):
    answer = server.hand_in(bundle_of(invented(1, first=40)))
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/api/v1/submissions/{answer.json()['id']}"
    done = server.decided(answer.json()["id"])
    assert (done["state"], done["by"], len(done["detail"]["receipt"]["results"])) == ("accepted", "submit", 3)
    server.until("/api/v1/results?backbone=timm/net-40", lambda found: found["total"] == 3)
    assert list((server.home / "incoming").iterdir()) == []


@pytest.mark.parametrize(
    ("body", "state", "says"),
    [
        (b'{"do": "refuse"}', "refused", "results/1.json: scores.top1.value: 120.0"),
        (b"PK", "refused", ".zip: not a zip file"),
        (b'{"do": "die"}', "failed", "its process died"),
        (b'{"do": "fail"}', "failed", "unexpected RuntimeError"),
        (b'{"do": "lack"}', "failed", "no network here"),
    ],
)
def test_what_is_wrong_is_said_and_the_server_goes_on(server, body, state, says):
    done = server.decided(server.hand_in(body).json()["id"])
    assert done["state"] == state
    assert says in done["detail"]["findings"][0]
    assert str(server.home) not in json.dumps(done)
    assert server.decided(server.hand_in(b"{}").json()["id"])["state"] == "accepted"


def test_a_check_that_takes_too_long_is_ended(serving):
    server = serving(Limits(seconds=1.5, reads=10**9, changes=10**9))
    server.decided(server.hand_in(b"{}").json()["id"])  # the process has started
    done = server.decided(server.hand_in(b'{"do": "sleep", "seconds": 60}').json()["id"])
    assert (done["state"], "longer than 1.5 seconds" in done["detail"]["findings"][0]) == ("failed", True)
    assert server.decided(server.hand_in(b"{}").json()["id"])["state"] == "accepted"


@pytest.mark.parametrize(
    ("body", "kind", "status", "says"),
    [
        (b"", "application/zip", 400, "the body is empty"),
        (b"{}", "application/json", 415, "application/zip"),
        (b"{}", "", 415, "application/zip"),
    ],
)
def test_what_is_no_bundle_is_turned_away(server, body, kind, status, says):
    answer = server.client.post("/api/v1/submissions", content=body, headers=server.submit | {"Content-Type": kind})
    assert answer.status_code == status
    assert says in answer.json()["detail"]
    assert list((server.home / "incoming").iterdir()) == []


def test_everybody_sees_what_is_theirs(server):
    other = create_token(server.store, "other", "submit", None, by="tests")
    stranger = {"Authorization": f"Bearer {other}"}
    id = server.hand_in(b"{}", stranger).json()["id"]
    path = f"/api/v1/submissions/{id}"
    assert [server.client.get(path, headers=h).status_code for h in (stranger, server.submit, server.maintain)] == [
        200,
        404,
        200,
    ]
    mine = server.client.get("/api/v1/submissions", headers=stranger).json()
    assert (mine["total"], mine["submissions"][0]["id"]) == (1, id)
    everything = server.client.get("/api/v1/submissions?limit=200", headers=server.maintain).json()
    assert {s["by"] for s in everything["submissions"]} >= {"other", "submit"}
    accepted = server.client.get("/api/v1/submissions?state=refused", headers=stranger).json()
    assert accepted == {"total": 0, "offset": 0, "submissions": []}


class Inlet:
    """An intake without a server around it; `changed` grows with every bundle that is accepted."""

    def __init__(self, folder: Path):
        self.house, self.changed = House(folder, str(folder / "leaderboard.db")), []
        self.ledger = Ledger(self.house.store)
        take_note = lambda: self.changed.append(1)  # noqa: E731
        self.intake = intake.Intake(folder / "in", self.ledger, self.house.receive, Limits(), take_note)

    def run(self, chunks):
        """Hands in what comes in chunks, and waits until it is accepted."""

        async def whole():
            await self.intake.start()
            try:
                submission = await self.intake.take(chunks(), "somebody")
                while not self.changed:
                    await asyncio.sleep(0.05)
                return submission
            finally:
                await self.intake.stop()

        return in_a_loop(asyncio.wait_for(whole(), 60))


@pytest.mark.parametrize("breaks", ["gone", "slow"])
def test_an_upload_that_breaks_off_leaves_nothing(tmp_path, monkeypatch, breaks):
    monkeypatch.setattr(intake, "PATIENCE", 0.1)
    inlet = Inlet(tmp_path)

    async def chunks():
        yield b"x" * 100
        if breaks == "slow":
            await asyncio.sleep(5)
        raise ClientDisconnect

    with pytest.raises(ClientDisconnect if breaks == "gone" else Refused):
        inlet.run(chunks)
    assert list((tmp_path / "in").iterdir()) == []
    assert inlet.intake.waiting == 0
    assert inlet.ledger.undecided() == []


def test_when_the_database_is_away_it_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(intake, "COME_BACK", 0.05)
    inlet, moved = Inlet(tmp_path), Ledger.move

    def failing_once(self, *args):
        monkeypatch.setattr(Ledger, "move", moved)
        raise Unavailable("the database is away")

    monkeypatch.setattr(Ledger, "move", failing_once)

    async def chunks():
        yield b"{}"

    assert inlet.ledger.find(inlet.run(chunks).id).state == "accepted"


def test_a_server_that_was_killed_takes_up_what_it_was_checking(tmp_path, invented):
    database = str(tmp_path / "leaderboard.db")
    store = Store(database)
    store.add_all(invented(2))
    headers = {"Authorization": f"Bearer {create_token(store, 'a', 'submit', None, by='tests')}"}
    headers |= {"Content-Type": "application/zip"}
    with started(tmp_path, database) as first:
        slow = b'{"do": "sleep", "seconds": 600}'
        bodies = [slow, bundle_of(invented(1, first=70)), bundle_of(invented(1, first=71))]
        posted = [httpx.post(f"{first.url}/api/v1/submissions", content=b, headers=headers) for b in bodies]
        assert [p.status_code for p in posted] == [202] * 3
        ids = [p.json()["id"] for p in posted]
        until(lambda: (tmp_path / "asleep").exists())  # the first is being checked, the others wait
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(10)
    assert [Ledger(store).find(id).state for id in ids] == ["checking", "queued", "queued"]
    (tmp_path / "incoming" / f"{ids[0]}.zip").write_bytes(b"{}")  # so that the test need not wait for it
    (tmp_path / "incoming" / "half.part").write_bytes(b"what was coming in")
    with started(tmp_path, database) as second:
        until(lambda: all(Ledger(store).find(id).state == "accepted" for id in ids))
        until(lambda: httpx.get(f"{second.url}/api/v1/results?backbone=timm/net-71").json()["total"] == 3)
        assert list((tmp_path / "incoming").iterdir()) == []
        # An orderly end, too, leaves what is being checked for the next start.
        last = httpx.post(f"{second.url}/api/v1/submissions", content=slow, headers=headers).json()["id"]
        until(lambda: Ledger(store).find(last).state == "checking")
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(20) in (0, -signal.SIGTERM)
    assert Ledger(store).find(last).state == "checking"
    assert (tmp_path / "incoming" / f"{last}.zip").exists()
    assert sorted(e.action for e in store.history(ids[1])) == ["accepted", "uploaded"]  # taken in once
