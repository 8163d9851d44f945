"""The contract of a provider: a whole request goes out, and the body of its response comes back, in bytes.

A provider knows one API, by the name of its format (docs/interop.md). It renders nothing and reads nothing: the request
is made by ``Conversation.messages``, and its response is read by the same format. It sends exactly one request for
each ``Exchange``, and never repeats one by itself: whoever asked knows whether that is safe.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

from ..document.canonical import JSON
from ..exceptions import InvalidContent
from .costs import Cost, Prices, Tokens


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The wishes for an answer. None, or empty: as the provider does it. ``tools`` False: none may be called. They
    stay in the request all the same: signatures and the provider's cache hold on what it begins with."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[int, float] | None = None
    json_schema: Mapping[str, JSON] | None = None
    top_logprobs: int = 0
    seed: int | None = None
    stop: Sequence[str] = ()
    tools: bool = True

    def given(self) -> set[str]:
        """The names of those that are not left to the provider."""
        return {field.name for field in fields(self) if getattr(self, field.name) != field.default}


class Exchange:
    """One request on its way, and the body of its response: ``for piece in exchange``, once, on one thread.

    ``cancel`` may be called from any thread, also before it begins: then the connection is closed, and the pieces end.
    ``cancelled`` says so. Raises ProviderError where there is no response, or it breaks off.
    """

    def __init__(self, send: Callable[[], AsyncIterator[bytes]]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[bytes | None] | None = None
        self.cancelled = False

    def __iter__(self) -> Iterator[bytes]:
        loop = asyncio.new_event_loop()
        pieces = self._send()
        try:
            while (piece := self._next(loop, pieces)) is not None:
                yield piece
        finally:
            with self._lock:
                self._loop = self._task = None
            try:
                loop.run_until_complete(pieces.aclose())  # type: ignore[attr-defined]
                loop.run_until_complete(loop.shutdown_asyncgens())
            finally:
                loop.close()

    def _next(self, loop: asyncio.AbstractEventLoop, pieces: AsyncIterator[bytes]) -> bytes | None:
        async def step() -> bytes | None:
            return await anext(pieces, None)

        with self._lock:
            if self.cancelled:
                return None
            task = loop.create_task(step())
            self._loop, self._task = loop, task
        try:
            return loop.run_until_complete(task)
        except asyncio.CancelledError:
            return None

    def cancel(self) -> None:
        """Close the connection; harmless when it is over."""
        with self._lock:
            self.cancelled = True
            if self._loop is not None and self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self)


class Provider(ABC):
    """A service that answers by one API. ``name``: as bindings name it. ``api``: the name of the API's format.
    ``model``: the one that is asked. ``account``: whose fields are bound to it, where keys of several accounts are
    used. ``stream``: whether answers are asked for as streams. ``attempts``: how often a request may be sent, at most.
    ``keep``: whether the provider is asked to keep what it was sent, so that the next request says only what is new.
    ``prices``: what its tokens cost, where it does not say so itself. ``sealed``: whether the hidden fields of its
    answers are encrypted, so that no relay reads them or the account that they are bound to (extra ``seal``)."""

    name: str
    api: str
    model: str
    account: str | None = None
    stream: bool = True
    attempts: int = 3
    keep: bool = False
    prices: Prices | None = None
    sealed: bool = False

    @property
    @abstractmethod
    def supported(self) -> frozenset[str]:
        """The names of the settings that the API has."""

    @abstractmethod
    def body(self, request: Mapping[str, JSON], settings: Settings, *, stream: bool) -> dict[str, JSON]:
        """The request as it goes out: that of ``Conversation.messages`` with settings. Pure."""

    @abstractmethod
    def exchange(self, body: Mapping[str, JSON]) -> Exchange:
        """Send a body. Raises ProviderMissing where the SDK is not installed; nothing is sent before it is read."""

    @abstractmethod
    def tokens(self, usage: Mapping[str, JSON]) -> Tokens:
        """The counts in the ``usage`` of a response. Pure."""

    def told_cost(self, usage: Mapping[str, JSON]) -> Cost | None:
        """The price that the provider says in the ``usage`` of a response; None where it says none. Pure."""
        return None

    def cost(self, usage: Mapping[str, JSON]) -> Cost | None:
        """The price of a response by its ``usage``: as the provider says it, else by ``prices``; None where nobody
        knows."""
        return self.told_cost(usage) or (self.prices.cost(self.tokens(usage)) if self.prices else None)

    def check(self, settings: Settings) -> None:
        """Raises InvalidContent for settings that the API has none of."""
        for name in sorted(settings.given() - self.supported - {"tools"}):
            raise InvalidContent(f"The API {self.api} has no {name}.", hint="Leave it out.")


def count(*values: JSON) -> int | None:
    """The sum of those that are whole numbers; None where none is."""
    found = [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
    return sum(found) if found else None
