"""What everybody reads: the page, boards, results, rankings, comparisons; made once, sent packed, not sent twice."""

import gzip
import re
import threading
from hashlib import sha256

import pytest
from backbench.leaderboard.server import docs, reading


@pytest.mark.parametrize(
    "path", ["/api/v1/boards", "/api/v1/ranking", "/api/v1/results?limit=500", "/docs", "/docs/start.js"]
)
def test_who_has_an_answer_is_not_sent_it_again(server, path):
    first = server.client.get(path)
    assert first.status_code == 200
    tag = first.headers["ETag"]
    again = server.client.get(path, headers={"If-None-Match": f'"other", {tag}'})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert server.client.get(path, headers={"If-None-Match": 'W/"other"'}).content == first.content


def test_answers_are_packed_for_who_takes_it(server):
    def raw(accept):
        with server.client.stream("GET", "/api/v1/ranking", headers={"Accept-Encoding": accept}) as answer:
            return answer.headers.get("Content-Encoding"), b"".join(answer.iter_raw())

    plain, (kind, packed) = raw("identity")[1], raw("br, gzip;q=0.5")
    assert kind == "gzip"
    assert gzip.decompress(packed) == plain
    assert len(packed) < len(plain) / 3
    assert [raw(accept)[0] for accept in ("gzip;q=0", "gzip; q=0.0", "*;q=0", "deflate", "*")] == [None] * 4 + ["gzip"]


def test_ranking_is_the_board_as_data(server):
    board = server.client.get("/api/v1/ranking", params={"suite": "quick"}).json()["board"]
    assert [row["standing"]["rank"] for row in board["rows"]] == [1, 2, 3, 4, 5, 6]
    assert board["rows"][0]["backbone"] == "timm/net-5"
    one = server.client.get("/api/v1/ranking", params={"family": "retrieval"}).json()["board"]
    assert [column["task"] for column in one["columns"]] == ["retrieval"]


def test_ranking_is_of_those_that_are_asked_for(server):
    def names(**asked):
        board = server.client.get("/api/v1/ranking", params=asked).json()["board"]
        return [(row["backbone"], row["standing"]["rank"]) for row in board["rows"]]

    assert names(where=["architecture=net-1", "architecture=net-3"]) == [("timm/net-3", 1), ("timm/net-1", 2)]
    assert names(same="architecture", like="timm/net-2") == [("timm/net-2", 1)]


def test_results_are_filtered_and_come_in_pages(server, invented):
    mine = invented(6)
    found = server.client.get("/api/v1/results", params={"task": "knn", "limit": 2, "offset": 1}).json()
    wanted = [r for r in reversed(mine) if r.task.name == "knn"]
    assert (found["total"], [r["id"] for r in found["results"]]) == (6, [r.id for r in wanted[1:3]])
    named = server.client.get("/api/v1/results", params={"backbone": "timm/net-3"}).json()
    assert {r["task"] for r in named["results"]} == {"linear-probe", "knn", "retrieval"}
    for nothing in ({"trust": "reproduced"}, {"dataset": "other"}, {"backbone": "' OR 1=1 --"}, {"offset": 99}):
        assert server.client.get("/api/v1/results", params=nothing).json()["results"] == []


def test_one_result_is_whole(server, invented):
    mine = invented(1)[0]
    found = server.client.get(f"/api/v1/results/{mine.id}").json()
    assert found == {"result": mine.model_dump(mode="json"), "withdrawn": None, "history": []}
    assert server.client.get(f"/api/v1/results/{mine.id[:10]}").json() == found


def test_a_comparison_is_made_elsewhere(server):
    names = ["timm/net-1", "timm/net-2"]
    found = server.client.get("/api/v1/compare", params={"backbone": names}).json()["comparison"]
    assert (found[0]["a"], found[0]["b"]) == tuple(names)


@pytest.mark.parametrize(
    ("path", "status", "field", "says"),
    [
        ("/api/v1/ranking?famly=retrieval", 422, "query.famly", "did you mean 'family'?"),
        ("/api/v1/boards?x=1", 422, "query.x", "there are: none"),
        ("/api/v1/ranking?suite=quik", 400, None, "did you mean 'quick'?"),
        ("/api/v1/ranking?suite=../../etc/passwd.yaml", 422, "query.suite", "pattern"),
        ("/api/v1/ranking?suite=quick&source=timm", 400, "query.source", "not both"),
        ("/api/v1/ranking?source=timm", 400, None, "no published table 'timm' in home"),
        ("/api/v1/results?limit=5000", 422, "query.limit", "less than or equal to 500"),
        ("/api/v1/results?trust=sure", 422, "query.trust", "'reported'"),
        ("/api/v1/results/0123456789abcdef", 404, "path.id", "there is no result '0123456789abcdef'"),
        ("/api/v1/ranking?where=famly=cnn", 400, "query.where", "did you mean 'family'"),
        ("/api/v1/ranking?where=family=vit", 400, "query.where", "cnn"),
        ("/api/v1/ranking?same=data&like=timm/net-x", 400, "query.like", "did you mean"),
        ("/api/v1/results/%27%3B--", 422, "path.id", "pattern"),
        ("/api/v1/compare?backbone=timm/net-1", 422, "query.backbone", "at least 2"),
        ("/api/v1/compare?backbone=timm/net-1&backbone=timm/net-1", 400, "query.backbone", "twice"),
        ("/api/v1/compare?backbone=timm/net-1&backbone=timm/net-11x", 400, None, "did you mean"),
        ("/api/v1/nothing", 404, None, "Not Found"),
        ("/docs/../app.py", 404, None, "Not Found"),
        ("/docs/nothing.js", 404, None, "'nothing.js'"),
    ],
)
def test_a_wrong_question_is_told_in_one_line_with_its_field(server, path, status, field, says):
    answer = server.client.get(path)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["field"]) == (status, field)
    assert says in problem["detail"]
    assert "\n" not in problem["detail"]
    assert str(server.home) not in answer.text


def test_the_page_is_written_anew_when_the_store_changes(serving, invented):
    server = serving()
    first = server.until("/health", lambda h: h["page"] is not None)
    leads = server.client.get("/")
    assert (leads.status_code, leads.headers["Location"]) == (302, f"board/{first['page']}/")
    index = f"/{leads.headers['Location']}"
    assert "of 18 results" in server.client.get(index).text
    assert server.client.get(f"{index}app.js").headers["Content-Encoding"] == "gzip"
    server.store.add_all(invented(2, first=6))
    now = server.until("/health", lambda h: h["page"] != first["page"])
    assert now["results"] == 24
    assert "of 24 results" in server.client.get(f"/board/{now['page']}/").text
    server.until("/api/v1/ranking", lambda found: found["revision"] == now["revision"])
    # Who looks at the old one goes on with it; what is long gone leads to the newest.
    assert "of 18 results" in server.client.get(index).text
    assert server.client.get("/board/999/").headers["Location"] == "../../"
    assert server.client.get("/board/999/app.js").status_code == 404
    same = server.client.get(f"{index}api/v1/results/{invented(1)[0].id}?limit=1", follow_redirects=True)
    assert same.url.path == f"/api/v1/results/{invented(1)[0].id}"


def test_a_revision_that_cannot_be_served_is_told_and_the_one_before_is_served(serving, invented):
    server = serving()
    before = server.client.get("/health").json()
    (server.home / "broken").touch()
    server.store.add_all(invented(1, first=8))
    behind = server.until("/health", lambda h: h["status"] == "behind")
    assert (behind["revision"], behind["results"]) == (before["revision"], 18)
    assert len(server.client.get("/api/v1/ranking").json()["board"]["rows"]) >= 6
    (server.home / "broken").unlink()
    assert server.until("/health", lambda h: h["status"] == "ok")["results"] == 21


def test_nobody_waits_for_what_somebody_changed(serving, invented, monkeypatch):
    server = serving()
    old = server.client.get("/api/v1/ranking").json()
    let_go = threading.Event()

    def slow(board):
        assert let_go.wait(30)
        return reading_as_data(board)

    reading_as_data = reading.as_data
    monkeypatch.setattr(reading, "as_data", slow)
    server.store.add_all(invented(1, first=8))
    server.until("/health", lambda health: health["results"] == 21)
    assert server.client.get("/api/v1/ranking").json() == old  # while the new one is being made
    let_go.set()
    now = server.until("/api/v1/ranking", lambda found: found["revision"] > old["revision"])
    assert len(now["board"]["rows"]) == 7


def test_the_documentation_is_what_its_list_says():
    listed = re.findall(r"\| `(\S+)` \| `([0-9a-f]{64})` \|", (docs.FOLDER / "README.md").read_text())
    assert len(listed) == 5
    for name, digest in listed:
        assert sha256((docs.FOLDER / name).read_bytes()).hexdigest() == digest, name
    assert {path.name for path in docs.FOLDER.iterdir()} == {n for n, _ in listed} | {
        "README.md",
        "index.html",
        "start.js",
    }


@pytest.mark.parametrize(
    "path", ["%2e%2e/%2e%2e/leaderboard.db", "..%2f..%2fleaderboard.db", ".hidden", "%00", "a%5Cb", "a//b"]
)
def test_the_page_leads_to_nothing_else(server, path):
    page = server.until("/health", lambda h: h["page"] is not None)["page"]
    answer = server.client.get(f"/board/{page}/{path}")
    assert answer.status_code == 404


def test_every_answer_has_the_security_headers(server):
    page = server.until("/health", lambda h: h["page"] is not None)["page"]
    for path in ("/health", "/", f"/board/{page}/", "/docs", "/api/v1/boards", "/nothing", "/api/v1/submissions"):
        headers = server.client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["X-Frame-Options"] == "DENY"
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in policy
        assert "http" not in policy
        assert "Access-Control-Allow-Origin" not in headers
    assert "'unsafe-inline'" not in server.client.get("/docs").headers["Content-Security-Policy"].split("style-src")[0]


def test_asked_for_at_once_an_answer_is_made_once(server, monkeypatch):
    made = []

    def counted(board):
        made.append(1)
        threading.Event().wait(0.2)
        return {"schema_version": 1, "title": "", "source": "", "columns": [], "rows": [], "left_out": {}}

    monkeypatch.setattr(reading, "as_data", counted)
    ask = [
        threading.Thread(target=server.client.get, args=("/api/v1/ranking?family=classification",)) for _ in range(8)
    ]
    for thread in ask:
        thread.start()
    for thread in ask:
        thread.join()
    assert len(made) == 1
