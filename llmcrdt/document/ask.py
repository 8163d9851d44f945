"""Ask: what people have of a question that some model, somewhere, is to answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..exceptions import AskFailed, ConversationDeleted, EntryNotFound, RepoClosed
from ..ids import EntryId, SessionId
from .act_writer import ActWriter
from .acts import Question, ValidWhile
from .asks import ENDED, AskState, AskStatus, question_of, status_of, statuses
from .canonical import JSON
from .core import ConversationCore
from .entry import Entry


class Ask:
    """Made by ``Conversation.ask`` and ``asks``. All that it says is read from the document, as of now; any method from
    any thread. ``ask.result()`` and ``await ask`` wait for the answer, ``follow()`` gives it as it grows."""

    def __init__(self, core: ConversationCore, question: Question) -> None:
        self._core, self._question = core, question

    @property
    def id(self) -> EntryId:
        """Its id, the same on every device."""
        return self._question.ask

    @property
    def model(self) -> str:
        """The model that is asked: a name, a pattern of names, or "" for any."""
        return self._question.model

    @property
    def settings(self) -> Mapping[str, JSON]:
        """Options of the generation, as they were given."""
        return self._question.settings

    @property
    def author(self) -> str:
        """The signature of whoever asks."""
        return self._question.author

    @property
    def asked_at(self) -> float:
        """Seconds since 1970 on the asker's clock."""
        return self._question.asked_at / 1000

    @property
    def after(self) -> tuple[EntryId, ...]:
        """The entries that were the last ones when it was asked."""
        return self._question.after

    @property
    def instead_of(self) -> EntryId | None:
        """The answer in place of which another one is asked for."""
        return self._question.instead_of

    @property
    def valid_while(self) -> ValidWhile:
        """How long it counts: "frame", as long as the list stands that it was asked on, or "always"."""
        return self._question.valid_while

    @property
    def state(self) -> AskState:
        """waiting, taken, streaming, answered, failed, stopped or outdated (docs/state-sync.md)."""
        return self.status().state

    @property
    def answer(self) -> Entry | None:
        """The entry that answers it, as far as it has grown; None while there is none."""
        return self.status().answer

    @property
    def workers(self) -> tuple[SessionId, ...]:
        """The sessions that have taken it and not replied."""
        return self.status().workers

    @property
    def failure(self) -> tuple[str, str] | None:
        """Why it failed: a code for programs, and a text; None where it has not."""
        status = self.status()
        return (status.code, status.text) if status.state == "failed" else None

    def status(self) -> AskStatus:
        """All of that at once."""
        with self._core.reading():
            return status_of(self._core.view, self._question)

    def cancel(self) -> None:
        """Take it back, and stop whoever answers it; what was said stays. Harmless when it is over."""
        if self.status().state not in ENDED:
            ActWriter(self._core).stop_ask(self.id)

    def result(self, timeout: float | None = None) -> Entry:
        """Wait for the whole answer. Raises AskFailed where it ends without, TimeoutError after ``timeout`` seconds."""
        for status in self._statuses(timeout):
            if status.state in ENDED:
                return _answer(status)
        raise TimeoutError(f"Nothing has answered ask {self.id} after {timeout} s. It goes on waiting.")

    def follow(self, timeout: float | None = None) -> Iterator[Entry]:
        """The answer each time that it has grown, the last time whole. Raises as ``result``; ``timeout`` counts from
        one change to the next."""
        before = None
        while True:
            for status in self._statuses(timeout):
                answer = status.answer
                if answer is not None and answer != before:
                    before = answer
                    yield answer
                    break
                if status.state in ENDED:
                    _answer(status)
                    return
            else:
                raise TimeoutError(f"Nothing has answered ask {self.id} for {timeout} s. It goes on waiting.")

    def __await__(self) -> Generator[Any, None, Entry]:
        import asyncio  # loads much that a command which reads does not need

        async def wait() -> Entry:
            loop, changed = asyncio.get_running_loop(), asyncio.Event()

            def wake() -> None:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(changed.set)

            with self._watching(wake):
                while (status := self.status()).state not in ENDED:
                    await changed.wait()
                    changed.clear()
                return _answer(status)

        return wait().__await__()

    def observe(self, callback: Callable[[AskStatus], None]) -> Callable[[], None]:
        """Call back with ``status()`` whenever it changes, from one thread. Returns a function that stops it."""
        before = [self.status()]

        def look() -> None:
            try:
                now = self.status()
            except (ConversationDeleted, RepoClosed):  # there is nothing to tell any more
                return
            if now != before[0]:
                before[0] = now
                callback(now)

        return self._watch(look)

    def _statuses(self, timeout: float | None) -> Iterator[AskStatus]:
        """The status now, and after each change, until nothing has changed for ``timeout`` seconds."""
        changed = threading.Event()
        with self._watching(changed.set):
            yield self.status()
            while changed.wait(timeout):
                changed.clear()
                yield self.status()

    @contextmanager
    def _watching(self, callback: Callable[[], None]) -> Iterator[None]:
        stop = self._watch(callback)
        try:
            yield
        finally:
            stop()

    def _watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        core = self._core
        with core.document.lock:
            core.document.load()
            remove = core.observers.watch(callback)
        core.host.observed()

        def stop() -> None:
            with core.document.lock:
                remove()

        return stop

    def __repr__(self) -> str:
        return f"<Ask {self.id}, {self.model or 'any model'}>"


def _answer(status: AskStatus) -> Entry:
    """The answer of an ask that is over. Raises AskFailed."""
    if status.state == "answered" and status.answer is not None:
        return status.answer
    reasons = {
        "stopped": "The ask was stopped.",
        "outdated": "The conversation goes on otherwise than where this was asked.",
    }
    hints = {"outdated": 'Ask again, or with valid_while="always".', "stopped": "Ask again; what was said is kept."}
    code = status.code or status.state
    raise AskFailed(status.text or reasons.get(code, code), code, hint=hints.get(status.state, "Ask again."))


def find_ask(core: ConversationCore, ask: EntryId) -> Ask:
    """The ask of an id. Raises EntryNotFound."""
    with core.reading():
        question = question_of(core.view, ask)
    if question is None:
        raise EntryNotFound(f"There is no ask {ask!r} in this conversation.", hint="Was it synced yet?")
    return Ask(core, question)


def asks_of(core: ConversationCore) -> tuple[Ask, ...]:
    """Every ask, oldest first."""
    with core.reading():
        return tuple(Ask(core, status.question) for status in statuses(core.view))
