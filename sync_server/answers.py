"""Answers to clients of the Yjs and Automerge doors that ask for what they lack.

Each may be a whole document, and many may ask at once. A question waits until there is room for its answer. Room is
what answers take that have not left, the same one for many counted once, and what is expected of questions under way.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from .core.validation import DiffRequest, Received
from .net.connection import Connection
from .net.outgoing import Outgoing

_KNOWN = 1_024
"""Documents of which it is known how large an answer was."""
_PATIENCE, _LEAST = 10.0, 64 << 10
"""If others wait: seconds after which an answer has to leave with so many bytes a second."""


@dataclass(slots=True)
class _Leaving:
    """An answer on its way. ``given``: bytes that had been written to the connection before."""

    connection: Connection
    since: float
    given: int


class Answers:
    """``most`` bytes; one answer alone always has room. ``put`` takes the questions, in their order. Used on the loop;
    an ``Outgoing`` may be dropped on any thread."""

    def __init__(self, most: int, put: Callable[[Received], None]) -> None:
        self._most, self._put = most, put
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, Received] = {}
        self._asked: dict[int, tuple[bytes, bytes]] = {}
        self._leaving: dict[int, _Leaving] = {}
        self._sizes: dict[bytes, int] = {}
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes of answers that have not left."""
        return self._held

    def ask(self, question: Received) -> None:
        """A question of a peer, which has no other under way."""
        self._waiting[question.peer] = question
        self._go_on()

    def answered(self, peers: Sequence[Connection], document: bytes, out: Outgoing) -> None:
        """An answer is there, for these."""
        self._sizes.pop(document, None)
        self._sizes[document] = out.size
        if len(self._sizes) > _KNOWN:
            del self._sizes[next(iter(self._sizes))]
        if not out.counted:
            out.counted = True
            self._held += out.size
            weakref.finalize(out, self._gone, out.size).atexit = False
        for connection in peers:
            self._leaving[connection.peer] = _Leaving(connection, self._loop.time(), connection.socket.given)

    def dealt_with(self, peer: int) -> None:
        """A question of a peer was answered or refused, if it had one."""
        if self._asked.pop(peer, None) is not None:
            self._go_on()

    def leave(self, peer: int) -> None:
        """A peer is gone."""
        self._waiting.pop(peer, None)
        self._asked.pop(peer, None)
        self._leaving.pop(peer, None)
        self._go_on()

    def tick(self) -> None:
        """To be called now and then: where others wait, whoever does not take what it asked for is cut."""
        now = self._loop.time()
        for peer, leaving in tuple(self._leaving.items()):
            late = now - leaving.since - _PATIENCE
            if not sum(leaving.connection.waiting):
                del self._leaving[peer]
            elif self._waiting and late > 0 and leaving.connection.socket.given - leaving.given < late * _LEAST:
                leaving.connection.socket.give_way()
        self._go_on()

    def _gone(self, size: int) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._less, size)

    def _less(self, size: int) -> None:
        self._held -= size
        self._go_on()

    def _go_on(self) -> None:
        """Ask what there is room for."""
        while self._waiting:
            peer, question = next(iter(self._waiting.items()))
            message = question.message
            assert isinstance(message, DiffRequest)
            expected = {key: self._expected(key[0]) for key in self._asked.values()}
            key = (message.document, message.version)
            before = self._held + sum(expected.values())
            if key not in expected and before and before + self._expected(message.document) > self._most:
                return
            del self._waiting[peer]
            self._asked[peer] = key
            self._put(question)

    def _expected(self, document: bytes) -> int:
        return self._sizes.get(document, self._most // 2)
