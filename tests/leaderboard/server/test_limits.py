"""Limits: of requests by caller, of the size of a body, of what waits."""

import pytest
from backbench.leaderboard.server.limits import Limits, RateLimit
from hypothesis import given
from hypothesis import strategies as st


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_caller_has_so_many_at_once_then_one_at_a_time():
    clock = Clock()
    limit = RateLimit(per_minute=3, clock=clock)
    assert [limit.wait("a") for _ in range(3)] == [0, 0, 0]
    assert limit.wait("a") == pytest.approx(20)
    assert limit.wait("b") == 0
    clock.now = 20
    assert [limit.wait("a") == 0 for _ in range(2)] == [True, False]


@given(st.integers(1, 50), st.lists(st.floats(0, 30), min_size=1, max_size=200))
def test_nobody_gets_more_than_the_bucket_and_what_flowed_in(per_minute, pauses):
    clock = Clock()
    limit = RateLimit(per_minute, clock=clock)
    passed = 0
    for pause in pauses:
        clock.now += pause
        passed += limit.wait("a") == 0
    assert passed <= per_minute + clock.now * per_minute / 60 + 1e-6


def test_memory_is_bounded():
    limit = RateLimit(per_minute=5, most=100)
    for number in range(1000):
        limit.wait(str(number))
    assert len(limit._left) == 100


def test_reads_of_an_address_are_limited(serving):
    server = serving(Limits(reads=20, changes=100))
    answers = [server.client.get("/health") for _ in range(25)]
    assert [a.status_code for a in answers[:10]] == [200] * 10
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert answers[-1].headers["X-Content-Type-Options"] == "nosniff"
    assert answers[-1].json()["detail"] == "too many requests from this address"


def test_tokens_cannot_be_tried_one_after_the_other(serving):
    server = serving(Limits(reads=10**9, changes=10))
    wrong = {"Authorization": "Bearer backbench_guess"}
    tried = [server.client.get("/api/v1/log", headers=wrong).status_code for _ in range(15)]
    assert tried[:10] == [401] * 10
    assert tried[-1] == 429
    assert server.hand_in(b"{}").status_code == 429  # of the same address


def test_an_upload_is_limited_by_what_it_says_and_by_what_comes(serving):
    server = serving(Limits(upload=1000, reads=10**9, changes=10**9))
    said = server.hand_in(b"x" * 1001)

    def chunks():
        for _ in range(20):
            yield b"x" * 100

    came = server.hand_in(chunks())  # without a length
    assert [(a.status_code, a.json()["status"]) for a in (said, came)] == [(413, 413)] * 2
    assert list((server.home / "incoming").iterdir()) == []
    assert server.hand_in(b"{}" + b" " * 998).status_code == 202
    big = server.client.post(
        f"/api/v1/results/{'0' * 16}/withdraw",
        content=b" " * 70_000,
        headers=server.maintain | {"Content-Type": "application/json"},
    )
    assert big.status_code == 413


def test_a_full_queue_says_when_to_come_again(serving):
    server = serving(Limits(queued=2, reads=10**9, changes=10**9))
    answers = [server.hand_in(b'{"do": "sleep", "seconds": 1}') for _ in range(3)]
    assert [a.status_code for a in answers] == [202, 202, 503]
    assert int(answers[2].headers["Retry-After"]) >= 1
    for answer in answers[:2]:
        assert server.decided(answer.json()["id"])["state"] == "accepted"
    assert server.hand_in(b"{}").status_code == 202
