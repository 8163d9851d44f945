"""Observers: callbacks that hear of things in order, and loops that do."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Generic, TypeVar

from .arguments import check_callback

Told = TypeVar("Told")


class _Inbox(Generic[Told]):
    """All that a loop has not read yet. Any thread. ``left``: nobody reads it any more; ``ended``: nothing more
    comes."""

    def __init__(self) -> None:
        self.left = self.ended = False
        self._items: deque[Told] = deque()
        self._changed = threading.Condition()
        self._wakers: list[Callable[[], None]] = []

    def put(self, item: Told) -> None:
        with self._changed:
            if not self.left:
                self._items.append(item)
            self._wake()

    def end(self) -> None:
        """All that is in there can still be read."""
        with self._changed:
            self.ended = True
            self._wake()

    def take(self, waker: Callable[[], None] | None = None) -> list[Told]:
        """The next item in a list. An empty list: there is none, and ``waker`` will be called when that may be
        otherwise; without one this waits. Raises StopIteration where none will come."""
        with self._changed:
            while not self._items:
                if self.left or self.ended:
                    raise StopIteration
                if waker is not None:
                    self._wakers.append(waker)
                    return []
                self._changed.wait()
            return [self._items.popleft()]

    def _wake(self) -> None:
        wakers, self._wakers = self._wakers, []
        self._changed.notify_all()
        for waker in wakers:
            waker()


class Observation(Generic[Told]):
    """The result of an ``observe`` method. Call it to hear no more; once more is harmless. As a context manager it does
    so at the end.

    Made without a callback it is read in a loop, ``for`` or ``async for``, that gets everything from the call of
    ``observe`` on, in order, and ends after it was called, or when the observed object is closed. A loop that is left
    is forgotten with its ``Observation``. One loop reads it.
    """

    def __init__(self, stop: Callable[[], None], inbox: _Inbox[Told] | None) -> None:
        self._stop, self._inbox = stop, inbox

    def __call__(self) -> None:
        self._stop()
        if self._inbox is not None:
            self._inbox.left = True
            self._inbox.end()

    def __enter__(self) -> Observation[Told]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self()

    def __iter__(self) -> Observation[Told]:
        return self

    def __next__(self) -> Told:
        return self._read().take()[0]

    def __aiter__(self) -> Observation[Told]:
        return self

    async def __anext__(self) -> Told:
        import asyncio  # loads much that a command which reads does not need

        loop, inbox = asyncio.get_running_loop(), self._read()
        while True:
            came = asyncio.Event()

            def wake(came: asyncio.Event = came) -> None:
                with suppress(RuntimeError):  # the loop was closed meanwhile
                    loop.call_soon_threadsafe(came.set)

            try:
                found = inbox.take(wake)
            except StopIteration:
                raise StopAsyncIteration from None
            if found:
                return found[0]
            await came.wait()

    def __del__(self) -> None:
        if self._inbox is not None:
            self._inbox.left = True  # no lock here: this may run anywhere

    def _read(self) -> _Inbox[Told]:
        if self._inbox is None:
            raise TypeError("This observer has a callback; observe() without one can be read in a loop.")
        return self._inbox


class Observers(Generic[Told]):
    """All who observe one thing. Any thread. ``run`` runs callbacks, in order, at once or on another thread."""

    def __init__(self, run: Callable[[Callable[[], None]], None] = lambda call: call()) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._ended = False
        self._tells: tuple[tuple[Callable[[Told], None], _Inbox[Told] | None], ...] = ()

    def __bool__(self) -> bool:
        return bool(self._tells)

    def add(self, callback: Callable[[Told], None] | None, *first: Told) -> Observation[Told]:
        """Tell ``callback`` of everything from now on, or, without one, the loop that reads what is returned; of
        ``first`` at once. Raises InvalidContent for a callback that can't be called."""
        check_callback(callback)
        inbox: _Inbox[Told] | None = None
        if callback is None:
            inbox = _Inbox()
            callback = inbox.put
        one = (callback, inbox)
        for told in first:
            callback(told)
        with self._lock:
            self._tells = (*self._tells, one)
            if self._ended and inbox is not None:
                inbox.end()

        def stop() -> None:
            with self._lock:
                self._tells = tuple(each for each in self._tells if each is not one)

        return Observation(stop, inbox)

    def tell(self, what: Told) -> None:
        """Tell everybody, in order."""
        if any(inbox is not None and inbox.left for _, inbox in self._tells):
            with self._lock:
                self._tells = tuple(each for each in self._tells if each[1] is None or not each[1].left)
        for callback, _ in self._tells:
            self._run(lambda callback=callback: callback(what))  # type: ignore[misc]

    def end(self) -> None:
        """Nothing more comes: loops end after what was told."""
        with self._lock:
            self._ended = True
        for _, inbox in self._tells:
            if inbox is not None:
                self._run(inbox.end)
