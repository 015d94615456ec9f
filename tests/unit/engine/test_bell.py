"""One call across threads wakes every reader of an event loop."""

import asyncio
import threading

from tokamak.engine.async_llm import Bell


def test_what_arrives_together_is_told_in_one_call():
    async def told() -> tuple[int, bool]:
        loop, calls = asyncio.get_running_loop(), []
        events = [asyncio.Event() for _ in range(20)]
        inner = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *given: calls.append(1) or inner(*given)
        bell = Bell(loop)

        def step() -> None:
            for event in events:
                bell.ring(event)

        thread = threading.Thread(target=step)
        thread.start()
        thread.join()  # the loop stands still meanwhile, as it does while it works
        await asyncio.wait_for(asyncio.gather(*(event.wait() for event in events)), 10)
        del loop.call_soon_threadsafe
        return len(calls), all(event.is_set() for event in events)

    assert asyncio.run(told()) == (1, True)


def test_no_reader_sleeps_on_when_the_bell_rings_while_it_is_answered():
    """Two threads ring 4,000 times while the loop answers; a lost one would leave its event unset."""

    async def rung() -> None:
        bell = Bell(asyncio.get_running_loop())
        events = [[asyncio.Event() for _ in range(2000)] for _ in range(2)]
        threads = [threading.Thread(target=lambda e=e: [bell.ring(event) for event in e]) for e in events]
        for thread in threads:
            thread.start()
        await asyncio.wait_for(asyncio.gather(*(event.wait() for both in events for event in both)), 30)
        for thread in threads:
            thread.join()

    asyncio.run(rung())


def test_a_closed_loop_is_no_error():
    async def made() -> tuple[Bell, asyncio.Event]:
        return Bell(asyncio.get_running_loop()), asyncio.Event()

    bell, event = asyncio.run(made())
    bell.ring(event)
    bell.ring(event)
