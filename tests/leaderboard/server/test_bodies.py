"""Answers that are made once: how much is kept, and what is given meanwhile."""

import asyncio

import pytest
from backbench.leaderboard.server.bodies import Body, Shelf
from processes import in_a_loop


def body(text: str) -> Body:
    return Body.of(text.encode(), "text/plain")


async def made(text: str) -> Body:
    return body(text)


def test_the_least_recently_used_goes_first():
    async def run():
        shelf, again = Shelf(size=30), []

        async def noted(text):
            again.append(text)
            return body(text)

        for key in "abc":
            await shelf.get((key,), lambda key=key: noted(key * 10))
        await shelf.get(("a",), lambda: noted("never"))
        await shelf.get(("d",), lambda: noted("d" * 10))
        await shelf.get(("a",), lambda: noted("never"))
        await shelf.get(("b",), lambda: noted("b" * 10))
        return again

    assert in_a_loop(run()) == ["a" * 10, "b" * 10, "c" * 10, "d" * 10, "b" * 10]


def test_what_fails_is_told_to_all_and_tried_again():
    async def run():
        shelf, tries = Shelf(), []

        async def failing():
            tries.append(1)
            await asyncio.sleep(0.01)
            raise ValueError("no")

        found = await asyncio.gather(*(shelf.get(("k",), failing) for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in found] == [ValueError] * 3
        assert len(tries) == 1
        return await shelf.get(("k",), lambda: made("now"))

    assert in_a_loop(run()).raw == b"now"


def test_who_goes_away_does_not_take_it_from_the_others():
    async def run():
        shelf, go = Shelf(), asyncio.Event()

        async def slow():
            await go.wait()
            return body("there")

        first, second = (asyncio.ensure_future(shelf.get(("k",), slow)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await second

    assert in_a_loop(run()).raw == b"there"


def test_the_answer_before_is_given_until_there_is_a_new_one_and_then_forgotten():
    async def run():
        before = Shelf()
        await before.get(("k",), lambda: made("old"))
        await before.get(("unasked",), lambda: made("old"))
        now = Shelf(before)
        given = [await now.get(("k",), lambda: made("new"))]
        await asyncio.sleep(0.01)
        given.append(await now.get(("k",), lambda: made("never")))
        later = Shelf(now)
        given.append(await later.get(("unasked",), lambda: made("made anew")))
        return [one.raw for one in given]

    assert in_a_loop(run()) == [b"old", b"new", b"made anew"]


def test_an_answer_that_cannot_be_made_any_more_is_not_given_for_ever():
    async def run():
        before = Shelf()
        await before.get(("k",), lambda: made("old"))
        now = Shelf(before)

        async def failing():
            raise ValueError("gone")

        assert (await now.get(("k",), failing)).raw == b"old"
        await asyncio.sleep(0.01)
        with pytest.raises(ValueError, match="gone"):
            await now.get(("k",), failing)

    in_a_loop(run())
