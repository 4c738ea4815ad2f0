"""Tokens and what they open; withdrawing and restoring; the log that tells who did what."""

from datetime import timedelta

import pytest
from backbench.backbones.errors import BadInput
from backbench.leaderboard import Store
from backbench.leaderboard.server import tokens
from backbench.leaderboard.server.tokens import create_token, find_token, list_tokens, revoke_token
from backbench.leaderboard.tables import checks, moment
from backbench.leaderboard.tables import tokens as table


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_only_the_digest_of_a_token_is_kept(tmp_path):
    store = Store(tmp_path / "leaderboard.db")
    secret = create_token(store, "coral", "submit", timedelta(days=90), by="me")
    assert secret.startswith("backbench_")
    for path in tmp_path.iterdir():
        assert secret.encode() not in path.read_bytes()
        assert secret.removeprefix("backbench_").encode() not in path.read_bytes()
    found = find_token(store, secret)
    assert (found.name, found.state, found.scopes) == ("coral", "valid", ("submit",))
    assert found.expires > moment()
    assert find_token(store, secret[:-1]) is None
    assert find_token(store, "") is None
    assert [(e.by, e.action, e.subject) for e in store.history()] == [("me", "token created", "coral")]


@pytest.mark.parametrize(
    ("name", "scope", "says"),
    [("", "submit", "name it with"), ("a\nb", "submit", "name it with"), ("a", "maintian", "did you mean 'maintain'")],
)
def test_a_wrong_token_is_not_made(tmp_path, name, scope, says):
    store = Store(tmp_path / "leaderboard.db")
    with pytest.raises(BadInput, match=says):
        create_token(store, name, scope, None, by="me")
    assert list_tokens(store) == []


def test_a_name_is_taken_once_and_revoked_once(tmp_path):
    store = Store(tmp_path / "leaderboard.db")
    create_token(store, "coral", "submit", None, by="me")
    with pytest.raises(BadInput, match="already"):
        create_token(store, "coral", "maintain", None, by="me")
    with pytest.raises(BadInput, match="did you mean 'coral'"):
        revoke_token(store, "corla", by="me")
    revoke_token(store, "coral", by="me")
    revoke_token(store, "coral", by="me")
    assert [t.state for t in list_tokens(store)] == ["revoked"]
    assert [e.action for e in store.history("coral")] == ["token created", "token revoked"]


def test_what_is_shown_is_compared_with_every_token_in_constant_time(tmp_path, monkeypatch):
    store = Store(tmp_path / "leaderboard.db")
    secrets = [create_token(store, name, "submit", None, by="me") for name in "abc"]
    compared, plain = [], tokens.hmac.compare_digest
    monkeypatch.setattr(tokens.hmac, "compare_digest", lambda a, b: compared.append(a) or plain(a, b))
    assert find_token(store, secrets[0]).name == "a"
    assert len(compared) == 3


def test_tokens_open_what_they_are_for(server):
    def status(headers):
        return [
            server.client.get("/api/v1/submissions", headers=headers).status_code,
            server.client.get("/api/v1/log", headers=headers).status_code,
        ]

    expired = bearer(create_token(server.store, "expired", "maintain", timedelta(days=1), by="tests"))
    revoked = bearer(create_token(server.store, "revoked", "maintain", None, by="tests"))
    assert status(expired) == status(revoked) == [200, 200]
    with server.store.begin() as connection:
        yesterday = {"expires": moment()}
        connection.execute(table.update().where(table.c.name == "expired").values(**yesterday))
    revoke_token(server.store, "revoked", by="tests")
    assert status({}) == status(bearer("x")) == status(expired) == status(revoked) == [401, 401]
    assert status({"Authorization": "Basic YTpi"}) == [401, 401]
    assert status(server.submit) == [200, 403]
    assert status(server.maintain) == [200, 200]
    told = server.client.get("/api/v1/log", headers=expired)
    assert (told.json()["field"], told.headers["WWW-Authenticate"]) == ("header.authorization", "Bearer")
    assert "the token is expired" in told.json()["detail"]


def test_a_result_is_withdrawn_and_restored_with_its_history(server, invented):
    id = invented(1)[0].id
    act = f"/api/v1/results/{id}"
    for headers, status in (({}, 401), (server.submit, 403)):
        assert (
            server.client.post(
                f"{act}/withdraw", json={"reason": "trained on the test split"}, headers=headers
            ).status_code
            == status
        )
    reason = {"reason": "trained on the test split"}
    assert server.client.post(f"{act}/withdraw", json=reason, headers=server.maintain).status_code == 204
    found = server.client.get(act).json()
    assert found["withdrawn"] == reason["reason"]
    server.until("/api/v1/results?backbone=timm/net-0", lambda f: id not in [r["id"] for r in f["results"]])
    again = server.client.post(f"{act}/withdraw", json=reason, headers=server.maintain)
    assert (again.status_code, "withdrawn already" in again.json()["detail"]) == (409, True)
    back = {"reason": "it was not"}
    assert server.client.post(f"{act}/restore", json=back, headers=server.maintain).status_code == 204
    found = server.client.get(act).json()
    assert found["withdrawn"] is None
    assert [(e["action"], e["by"]) for e in found["history"]] == [("withdraw", "maintain"), ("restore", "maintain")]
    server.until("/api/v1/results?backbone=timm/net-0", lambda f: id in [r["id"] for r in f["results"]])


@pytest.mark.parametrize("body", [None, {}, {"reason": ""}, {"reason": "x" * 501}, {"reason": 5}, [], {"reason": None}])
def test_nothing_is_withdrawn_without_a_reason(server, invented, body):
    answer = server.client.post(f"/api/v1/results/{invented(1)[0].id}/withdraw", json=body, headers=server.maintain)
    assert answer.status_code == 422
    assert answer.json()["field"].startswith("body")


def test_what_is_not_there_cannot_be_withdrawn(server):
    answer = server.client.post(
        f"/api/v1/results/{'0' * 16}/withdraw", json={"reason": "gone"}, headers=server.maintain
    )
    assert (answer.status_code, answer.json()["field"]) == (404, "path.id")


def test_the_log_names_every_change(server):
    id = server.hand_in(b"{}").json()["id"]
    server.decided(id)
    log = server.client.get("/api/v1/log?limit=500", headers=server.maintain).json()
    assert log["total"] == len(log["events"])
    mine = [(e["by"], e["action"]) for e in log["events"] if e["subject"] == id]
    assert mine == [("submit", "accepted"), ("submit", "uploaded")]
    assert {"token created"} <= {e["action"] for e in log["events"]}
    one = server.client.get("/api/v1/log?limit=1&offset=1", headers=server.maintain).json()["events"]
    assert one == log["events"][1:2]


def test_results_that_wait_to_be_run_again_are_listed(server, invented):
    result = invented(1)[0]
    with server.store.begin() as connection:
        row = {"result_id": result.id, "submission_id": None, "state": "queued", "queued": moment(), "detail": {}}
        connection.execute(checks.insert().values(row))
    found = server.client.get("/api/v1/checks?state=queued", headers=server.maintain).json()
    assert [(c["result_id"], c["state"], c["finished"]) for c in found["checks"]] == [(result.id, "queued", None)]
    assert server.client.get("/api/v1/checks?state=done", headers=server.maintain).json()["total"] == 0

    check = f"/api/v1/checks/{found['checks'][0]['id']}"
    said = {
        "outcome": "contested",
        "text": "top1 55.0 then, 48.1 now",
        "rows": [{"score": "top1 %", "then": 55.0, "now": 48.1}],
    }
    assert server.client.post(check, json=said, headers=server.submit).status_code == 403
    assert (
        server.client.post(check, json=said | {"outcome": "fine"}, headers=server.maintain).json()["field"]
        == "body.outcome"
    )
    assert server.client.post("/api/v1/checks/999", json=said, headers=server.maintain).status_code == 404
    assert server.client.post(check, json=said, headers=server.maintain).status_code == 204
    assert server.client.post(check, json=said, headers=server.maintain).status_code == 409
    known = server.client.get(f"/api/v1/results/{result.id}").json()
    assert known["result"]["trust"] == "contested"
    assert (known["history"][-1]["by"], known["history"][-1]["detail"]["scores"]) == ("maintain", said["rows"])
    server.until("/api/v1/results?trust=contested", lambda f: [r["id"] for r in f["results"]] == [result.id])
