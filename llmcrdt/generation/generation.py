"""Generation: an answer under way, for those who read it and wait for it.

A generation only reads and appends through the document: to everybody else it is one more writer. It runs on a thread
of its own, and ends with it; the engine's thread never waits for a disk.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol, TypeVar

from ..at_exit import end_at_exit
from ..document.conversation import Conversation, core_of
from ..document.deltas import TextDelta
from ..document.entry import Entry
from .events import Ended, GenerationEvent, GenerationStats, Report
from .options import Busy


class Answering(Protocol):
    """The one that computes an answer: an engine, or a provider."""

    stats: GenerationStats

    @property
    def name(self) -> str:
        """The name of the model."""
        ...

    def compute(self, report: Report) -> Entry:
        """Compute it, and write it into the document; ``report`` hears of it. Called once, on the generation's thread.
        Raises what goes wrong; what was said by then is sealed as failed, or anybody may seal it."""
        ...

    def cancel(self) -> None:
        """Stop; ``compute`` then returns what was said, sealed as stopped. Any thread, any time."""
        ...


class Generation:
    """A generation under way. ``for piece in gen``, ``async for piece in gen``: the answer's text as it comes, from the
    beginning. ``gen.events()``: the same as typed events, with reasoning, tool calls and usage. ``gen.result()``,
    ``await gen``: the sealed entry. ``gen.cancel()`` stops it and keeps what was said.

    It is stopped too when its reader goes away: when the last one who reads ``async for``, ``events()`` or awaits it
    leaves before the end (``break``, an iterator that is closed, a task that is cancelled), and nobody else reads or
    waits. A plain ``for piece in gen`` that is left does not stop it, nor does a ``result(timeout)`` that is over.
    """

    def __init__(self, conversation: Conversation, answering: Answering, busy: Busy) -> None:
        """Starts it, on a thread of its own."""
        self._conversation, self._answering, self._busy = conversation, answering, busy
        self._changed = threading.Condition()
        self._events: list[GenerationEvent] = []
        self._done = False
        self._entry: Entry | None = None
        self._error: BaseException | None = None
        self._listeners: list[Callable[[], None]] = []
        self._readers = 0
        core_of(conversation).turn.begin(self, cancel_others=busy == "restart")
        self._thread = threading.Thread(target=self._work, name="llmcrdt-generation", daemon=True)
        end_at_exit(self, stop=Generation.cancel, finish=lambda self, seconds: self._thread.join(seconds))
        self._thread.start()

    @property
    def stats(self) -> GenerationStats:
        """Counts and seconds: total, reused, evaluated, sampled, time_to_first_token, ...; filled in as it goes."""
        return self._answering.stats

    def cancel(self) -> None:
        """Stop. The answer so far is kept, sealed as stopped; ``result()`` returns it. Harmless when it is over."""
        self._answering.cancel()

    def result(self, timeout: float | None = None) -> Entry:
        """Wait for the sealed entry. Raises what went wrong, and TimeoutError."""
        with self._reading(stop=False), self._changed:
            if not self._changed.wait_for(lambda: self._done, timeout):
                raise TimeoutError(f"The generation is not over after {timeout} s.")
        return self._outcome()

    def done(self) -> bool:
        """Whether it is over."""
        with self._changed:
            return self._done

    def events(self) -> Events:
        """All that happens, as typed events from the beginning; for ``for`` and ``async for``."""
        return Events(self)

    def __iter__(self) -> Iterator[str]:
        for event in self._read(stop=False):
            if isinstance(event, TextDelta):
                yield event.text

    def __aiter__(self) -> AsyncReader[str]:
        return AsyncReader(self, lambda event: event.text if isinstance(event, TextDelta) else None)

    def __await__(self) -> Generator[Any, None, Entry]:
        async def wait() -> Entry:
            with self._reading(stop=True):
                while True:
                    news = self._next_news()
                    if self.done():
                        return self._outcome()
                    await news

        return wait().__await__()

    def _read(self, *, stop: bool) -> Generator[GenerationEvent]:
        """The events from the beginning; ``stop``: who leaves stops the generation."""
        at = 0
        with self._reading(stop=stop):
            while True:
                with self._changed:
                    self._changed.wait_for(lambda at=at: self._done or len(self._events) > at)  # type: ignore[misc]
                events, done = self._since(at)
                yield from events
                at += len(events)
                if done:
                    self._outcome()
                    return

    @contextmanager
    def _reading(self, *, stop: bool) -> Iterator[None]:
        """Somebody reads or waits. ``stop``: they stop the generation if they are the last to leave it."""
        self._enter()
        try:
            yield
        finally:
            self._leave(stop=stop)

    def _enter(self) -> None:
        with self._changed:
            self._readers += 1

    def _leave(self, *, stop: bool) -> None:
        with self._changed:
            self._readers -= 1
            left_alone = stop and not self._done and not self._readers
        if left_alone:
            self.cancel()

    def _since(self, at: int) -> tuple[Sequence[GenerationEvent], bool]:
        """The events from this one on, and whether there will be no more."""
        with self._changed:
            return self._events[at:], self._done

    def _next_news(self) -> asyncio.Future[None]:
        """A future of the running loop that the next change ends."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not future.done():
                future.set_result(None)

        def listener() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(wake)

        with self._changed:
            self._listeners.append(listener)
        return future

    def _outcome(self) -> Entry:
        if self._error is not None:
            raise self._error
        assert self._entry is not None
        return self._entry

    def _tell(self, event: GenerationEvent | None = None, *, done: bool = False) -> None:
        with self._changed:
            if event is not None:
                self._events.append(event)
            self._done = self._done or done
            listeners, self._listeners = self._listeners, []
            self._changed.notify_all()
        for listener in listeners:
            listener()

    # the generation's own thread

    def _work(self) -> None:
        try:
            core = core_of(self._conversation)
            turn = core.turn if self._busy != "branch" else nullcontext()
            with turn, core.host.presence().generating(self._answering.name):
                self._entry = self._answering.compute(self._tell)
            self._tell(Ended(self._entry, self.stats.get("finish", "")))
        except BaseException as error:
            self._error = error
        finally:
            core_of(self._conversation).turn.end(self)
            self._tell(done=True)


_Read = TypeVar("_Read")


class AsyncReader(AsyncIterator[_Read]):
    """One loop over a generation, from the beginning: what ``wanted`` makes of its events, but None. A reader that
    drops it before the end, or ``aclose``s it, has left the generation."""

    def __init__(self, generation: Generation, wanted: Callable[[GenerationEvent], _Read | None]) -> None:
        self._generation, self._wanted = generation, wanted
        self._at = 0
        self._unread: Iterator[GenerationEvent] = iter(())
        self._reads = False
        self._left = False

    async def __anext__(self) -> _Read:
        if self._left:
            raise StopAsyncIteration
        if not self._reads:
            self._reads = True
            self._generation._enter()
        try:
            return await self._next()
        except BaseException:
            self._leave()
            raise

    async def _next(self) -> _Read:
        while True:
            for event in self._unread:
                found = self._wanted(event)
                if found is not None:
                    return found
            news = self._generation._next_news()
            events, done = self._generation._since(self._at)
            self._at += len(events)
            self._unread = iter(events)
            if not events and done:
                self._generation._outcome()
                raise StopAsyncIteration
            if not events:
                await news

    async def aclose(self) -> None:
        """Leave now."""
        self._leave()

    def __del__(self) -> None:
        # Not a generator: asyncio would close that only later, after what follows the loop.
        self._leave()

    def _leave(self) -> None:
        reads, self._reads, self._left = self._reads, False, True
        if reads:
            self._generation._leave(stop=True)


class Events:
    """Made by ``generation.events()``. Each loop over it gets all events, from the beginning."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation

    def __iter__(self) -> Generator[GenerationEvent]:
        return self._generation._read(stop=True)

    def __aiter__(self) -> AsyncReader[GenerationEvent]:
        return AsyncReader(self._generation, lambda event: event)
