"""Presence: the peers that have a conversation open just now, and what they do. In memory only, and no part of the
document.

Its entries are those of the Yjs awareness protocol (y-protocols): a client's number, a clock that grows with every
state, and the state as the text of a JSON object, empty where the client is gone. docs/protocol.md has the rules.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from ..exceptions import InvalidContent
from ..ids import Random
from .canonical import JSON, canonical_json, parse_json

RENEW = 15.0
"""Seconds after which an own state is sent anew."""
SILENCE = 30.0
"""Seconds of silence after which a peer is considered gone."""
MAX_STATE = 4096
"""Bytes of one state as JSON."""
MAX_ANNOUNCED = MAX_STATE - 512
"""Those of them that an app may give: author and model come beside it."""
_MAX_CLOCK = (1 << 53) - 1
_MAX_ENTRIES = 1024

Announced = tuple[int, int, str]
"""client, clock, state"""


@dataclass(frozen=True)
class Present:
    """Somebody else who has the conversation open. ``state`` is what they announce; nobody vouches for it.

    ``client`` names one process with the conversation open, for as long as it is there."""

    client: int
    state: Mapping[str, JSON]

    @property
    def author(self) -> str:
        """The author that their entries are signed with; empty if they don't say."""
        return self._text("author")

    @property
    def typing(self) -> bool:
        """Whether somebody is writing an entry there."""
        return self.state.get("typing") is True

    @property
    def generating(self) -> str:
        """The name of the model that computes an answer there; empty where none does."""
        return self._text("generating")

    def _text(self, key: str) -> str:
        value = self.state.get(key)
        return value if isinstance(value, str) else ""


class _Heard(NamedTuple):
    clock: int
    state: str
    at: float


class Presence:
    """The presence of one conversation in this process. Any method from any thread.

    ``clock`` is monotonic, in seconds. ``changed()`` is called when the own entry is to be sent, ``dispatch`` runs the
    callbacks of observers; both without a lock held.
    """

    def __init__(
        self,
        author: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Random = os.urandom,
        changed: Callable[[], None] = lambda: None,
        dispatch: Callable[[Callable[[], None]], None] = lambda call: call(),
    ) -> None:
        self._author, self._clock, self._random = author, clock, random
        self._changed, self._dispatch = changed, dispatch
        self._lock = threading.Lock()
        self._state: Mapping[str, JSON] | None = None
        self._models: list[str] = []
        self._number = self._draw()
        self._count = 0
        self._text = ""
        self._at = clock()
        self._heard: dict[int, _Heard] = {}
        self._observers: list[Callable[[tuple[Present, ...]], None]] = []
        self._reported: tuple[Present, ...] = ()

    # ---------------------------------------------------------------- for conversations

    def present(self, state: Mapping[str, JSON] | None) -> None:
        """Announce a state, or with None that there is none. Raises InvalidContent."""
        with self._lock:
            self._state = self._checked(state)
            self._restate()
        self._changed()

    @contextmanager
    def generating(self, model: str) -> Iterator[None]:
        """Announce, beside the state, that a model computes an answer here."""
        with self._lock:
            self._models.append(model[:200])
            self._restate()
        self._changed()
        try:
            yield
        finally:
            with self._lock:
                self._models.remove(model[:200])
                self._restate()
            self._changed()

    def others(self) -> tuple[Present, ...]:
        """Everybody else who is here, by their numbers."""
        with self._lock:
            return self._others()

    def observe(self, callback: Callable[[tuple[Present, ...]], None]) -> Callable[[], None]:
        """Call back with ``others()`` after every change. Returns a function that stops it."""
        with self._lock:
            if not self._observers:
                self._reported = self._others()
            self._observers.append(callback)

        def stop() -> None:
            with self._lock:
                if callback in self._observers:
                    self._observers.remove(callback)

        return stop

    # ---------------------------------------------------------------- for links

    def announced(self, *, anew: bool = False) -> tuple[Announced, ...]:
        """The own entry, to be sent; none where there never was a state. ``anew``: to somebody who may have considered
        it gone."""
        with self._lock:
            if anew and self._text:
                self._next_clock()
            return ((self._number, self._count, self._text),) if self._text or (self._count and not anew) else ()

    def heard(self, entries: Iterable[Announced]) -> None:
        """Note the states that others announce."""
        contradicted = False
        with self._lock:
            now = self._clock()
            for client, clock, state in entries:
                if client == self._number:
                    if clock > self._count or (clock == self._count and not state):
                        contradicted = contradicted or bool(self._text)
                        self._count = clock
                        if self._text:
                            self._next_clock()
                    continue
                known = self._heard.get(client)
                if known is None and (not state or len(self._heard) >= _MAX_ENTRIES):
                    continue
                if known is None or clock > known.clock or (clock == known.clock and known.state and not state):
                    self._heard[client] = _Heard(clock, state, now)
        if contradicted:
            self._changed()
        self._report()

    def tick(self) -> bool:
        """To be called now and then: renews the own entry in time, and notices who has fallen silent. Returns whether
        there is anything here worth keeping."""
        with self._lock:
            now = self._clock()
            renew = bool(self._text) and now - self._at >= RENEW
            if renew:
                self._next_clock()
            for client in [c for c, entry in self._heard.items() if now - entry.at >= SILENCE]:
                del self._heard[client]
            kept = bool(self._text or self._heard or self._observers or now - self._at < SILENCE)
        if renew:
            self._changed()
        self._report()
        return kept

    # ---------------------------------------------------------------- inside

    def _checked(self, state: Mapping[str, JSON] | None) -> Mapping[str, JSON] | None:
        if state is None:
            return None
        if not isinstance(state, Mapping):
            raise InvalidContent(f"A presence state is a dict, not {type(state).__name__}.")
        size = len(canonical_json(dict(state)).encode())
        if size > MAX_ANNOUNCED:
            raise InvalidContent(
                f"A presence state has {size} bytes as JSON; {MAX_ANNOUNCED} are allowed.",
                hint="Put what lasts into the conversation.",
            )
        return dict(state)

    def _restate(self) -> None:
        text = ""
        if self._state is not None or self._models:
            state = {"author": self._author[:200], **(self._state or {})} if self._author else dict(self._state or {})
            text = canonical_json(state | ({"generating": self._models[-1]} if self._models else {}))
            if len(text.encode()) > MAX_STATE:  # names of four bytes a character
                text = canonical_json(dict(self._state or {}))
        if text != self._text or text:
            self._text = text
            self._next_clock()

    def _next_clock(self) -> None:
        if self._count >= _MAX_CLOCK:  # somebody took the last one in this client's name
            self._number, self._count = self._draw(), 0
        self._count += 1
        self._at = self._clock()

    def _draw(self) -> int:
        return int.from_bytes(self._random(7), "big") >> 3

    def _others(self) -> tuple[Present, ...]:
        now = self._clock()
        return tuple(
            Present(client, _read(entry.state))
            for client, entry in sorted(self._heard.items())
            if entry.state and now - entry.at < SILENCE
        )

    def _report(self) -> None:
        with self._lock:
            if not self._observers:
                return
            now = self._others()
            if now == self._reported:
                return
            self._reported = now
            observers = tuple(self._observers)
        for callback in observers:
            self._dispatch(lambda callback=callback: callback(now))  # type: ignore[misc]


def _read(state: str) -> Mapping[str, JSON]:
    """The state that a peer announces; empty if it is nested deeper than it can be read here."""
    try:
        found = parse_json(state)
    except InvalidContent:
        return {}
    return found if isinstance(found, dict) else {}
