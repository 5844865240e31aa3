"""Work on texts off the event loop."""

import asyncio
import threading

import pytest

from jaxlm.serve.text_work import TextWork


def test_each_client_has_one_at_a_time_and_others_do_not_wait():
    running, most, release = [], {}, threading.Event()

    def work(client):
        running.append(client)
        most[client] = max(most.get(client, 0), running.count(client))
        release.wait(20)
        running.remove(client)
        return client

    async def go():
        texts = TextWork()
        calls = [asyncio.create_task(texts.run(c, lambda c=c: work(c))) for c in ["a"] * 9 + ["b"]]
        while sorted(running) != ["a", "b"]:
            await asyncio.sleep(0.001)
        release.set()
        assert await asyncio.gather(*calls) == ["a"] * 9 + ["b"]
        assert not texts._locks
        assert not texts._users

    asyncio.run(go())
    assert most == {"a": 1, "b": 1}


def test_after_a_cancelled_one_the_next_begins_only_when_it_is_done():
    release, order = threading.Event(), []

    def first():
        release.wait(20)
        order.append("first")

    async def go():
        texts = TextWork()
        gone = asyncio.create_task(texts.run("a", first))
        later = asyncio.create_task(texts.run("a", lambda: order.append("second")))
        waits = asyncio.create_task(texts.run("a", lambda: order.append("never")))
        await asyncio.sleep(0.01)
        gone.cancel()
        waits.cancel()
        await asyncio.sleep(0.01)
        assert order == []
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await gone
        await later

    asyncio.run(go())
    assert order == ["first", "second"]


def test_short_texts_are_worked_on_at_once_and_errors_come_back():
    threads = []

    def work():
        threads.append(threading.current_thread())
        raise ValueError("wrong")

    async def go():
        texts = TextWork()
        for characters in (10, 100_000, None):
            with pytest.raises(ValueError, match="wrong"):
                await texts.run("a", work, characters=characters)

    asyncio.run(go())
    main = threading.main_thread()
    assert [thread is main for thread in threads] == [True, False, False]
