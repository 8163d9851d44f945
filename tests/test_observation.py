"""Observers: callbacks hear everything in order, and so do loops, in threads and in coroutines."""

from __future__ import annotations

import asyncio
import gc
import random
import threading

import pytest

from llmcrdt.exceptions import InvalidContent
from llmcrdt.observation import Observation, Observers


def test_everybody_hears_everything_from_the_call_on_in_order() -> None:
    """For random times of coming and going, of callbacks and of loops that read at random moments."""
    for seed in range(200):
        choose = random.Random(seed)
        observers: Observers[int] = Observers()
        heard: list[tuple[int, list[int], Observation[int], int | None]] = []
        for n in range(30):
            if choose.random() < 0.2:
                got: list[int] = []
                heard.append((n, got, observers.add(choose.choice([None, got.append])), None))
            for place, (begin, got, observation, end) in enumerate(heard):
                if end is None and choose.random() < 0.05:
                    if observation._inbox is not None:
                        got.extend(observation._inbox.take()[0] for _ in range(n - begin - len(got)))
                    observation()
                    heard[place] = (begin, got, observation, n)
            observers.tell(n)
        observers.end()
        for begin, got, observation, end in heard:
            if observation._inbox is not None and end is None:
                got.extend(observation)
            assert got == list(range(begin, 30 if end is None else end)), seed


def test_a_thread_reads_until_it_ends() -> None:
    observers: Observers[int] = Observers()
    read: list[int] = []
    observation = observers.add(None)
    thread = threading.Thread(target=lambda: read.extend(observation))
    thread.start()
    for n in range(100):
        observers.tell(n)
    observers.end()
    thread.join(60)
    assert read == list(range(100))
    assert list(observers.add(None)) == [], "what begins after the end has ended"


def test_a_coroutine_reads_what_a_thread_tells() -> None:
    observers: Observers[int] = Observers()

    async def read() -> list[int]:
        with observers.add(None) as numbers:
            thread = threading.Thread(target=lambda: [observers.tell(n) for n in range(100)])
            thread.start()
            found = [number async for number in numbers if number < 50 or numbers()]
        thread.join()
        return found

    assert asyncio.run(read()) == list(range(50))
    assert not observers


def test_a_loop_that_is_left_is_forgotten() -> None:
    observers: Observers[int] = Observers()

    async def leave() -> None:
        async for number in observers.add(None):
            if number == 3:
                break

    async def main() -> None:
        task = asyncio.create_task(leave())
        await asyncio.sleep(0)
        for n in range(5):
            observers.tell(n)
        await task

    asyncio.run(main())
    gc.collect()
    observers.tell(5)
    assert not observers


def test_a_cancelled_reader_loses_nothing() -> None:
    observers: Observers[int] = Observers()
    numbers = observers.add(None)

    async def main() -> int:
        task = asyncio.ensure_future(numbers.__anext__())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        observers.tell(7)
        return await numbers.__anext__()

    assert asyncio.run(main()) == 7


def test_a_loop_needs_an_observation_of_its_own() -> None:
    observers: Observers[int] = Observers()
    with pytest.raises(TypeError, match=r"observe\(\) without one"):
        next(observers.add(lambda number: None))
    with pytest.raises(InvalidContent, match="callback is int"):
        observers.add(5)  # type: ignore[arg-type]
