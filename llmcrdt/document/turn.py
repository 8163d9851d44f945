"""The turns of one conversation in this process, and everybody who computes on it. Knows no engine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, TypeVar


class Cancels(Protocol):
    """A generation, queued or under way."""

    def cancel(self) -> None: ...


_Prefetcher = TypeVar("_Prefetcher")


class Turn:
    """A conversation has one. Any thread.

    ``with turn``: it is yours to generate; one generation of a conversation runs at a time.
    """

    def __init__(self) -> None:
        self._mine = threading.Lock()
        self._lock = threading.Lock()
        self._generations: set[Cancels] = set()
        self._prefetchers: list[Any] = []

    def __enter__(self) -> None:
        self._mine.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mine.release()

    def begin(self, generation: Cancels, *, cancel_others: bool) -> None:
        """It is queued from now on; ``cancel_others``: in place of those that are."""
        with self._lock:
            others = tuple(self._generations) if cancel_others else ()
            self._generations.add(generation)
        for other in others:
            other.cancel()

    def end(self, generation: Cancels) -> None:
        """It is over."""
        with self._lock:
            self._generations.discard(generation)

    def prefetcher(
        self, keep: Callable[[_Prefetcher], bool], fits: Callable[[_Prefetcher], bool], make: Callable[[], _Prefetcher]
    ) -> tuple[_Prefetcher, bool]:
        """The first prefetcher that ``fits``, or one that is made, and whether it was; after dropping those that are
        not to ``keep``."""
        with self._lock:
            self._prefetchers = [each for each in self._prefetchers if keep(each)]
            for each in self._prefetchers:
                if fits(each):
                    return each, False
            self._prefetchers.append(made := make())
            return made, True
