"""The link between the documents of this device and one relay, as programs see it.

A ``Link`` starts offline, connects, and connects again for as long as it is open. Its thread is link_loop.py's;
link_control.py is for whatever keeps the documents.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType

from ..exceptions import LLMCRDTError, RelayRefused, RelayUnreachable, SyncError, SyncTimeout, TokenUnavailable
from ..ids import DocumentId
from ..observation import Observation
from .backoff import Backoff
from .link_control import LinkControl
from .link_loop import LinkLoop
from .local import LocalDocuments
from .messages import ErrorCode
from .progress import LinkStatus, Progress
from .reconnect import State
from .token import TokenProvider
from .waiters import SyncWaiter

_GOES_ON = "The link goes on trying."
_FOR_GOOD = (ErrorCode.MALFORMED, ErrorCode.UNEXPECTED, ErrorCode.WINDOW_EXCEEDED)
"""Another connection would end in the same way, so nobody waits any longer."""


class Link:
    """Keeps ``local`` in step with the relay at ``url`` until ``close``. Any method may be called from any thread.

    ``token``: the one to show to the relay, or a function that gives it (``sync.token.TokenProvider``).
    ``random()`` gives floats from 0 to 1: it decides the pauses between tries. Raises RelayUnreachable at once where
    ``url`` is no address; whether a relay answers there shows later, in ``state`` and ``last_error``.

    Attributes:
        state: "connecting", "online", "offline" (between two tries), "closed" (also after the relay refused the token
            and there is no other one: then there is no use in trying again).
        last_error: why the last connection failed or ended, why a document is not followed, or not deleted at the
            relay; None if nothing did.
        kept_there: deleted documents that the relay refused to delete when this link asked it, and why.
        bytes_sent, bytes_received: WebSocket frames as they were on the wire, headers included and compressed, over all
            connections; without the HTTP upgrades.
    """

    def __init__(
        self,
        url: str,
        local: LocalDocuments,
        *,
        token: str | TokenProvider | None = None,
        backoff: Backoff | None = None,
        random: Callable[[], float] = random.random,
        tls: ssl.SSLContext | str | os.PathLike[str] | None = None,
    ) -> None:
        self.url = url
        self._loop = LinkLoop(url, local, token, backoff or Backoff(random), random, tls)
        self._waits = _Waits(self._loop)
        self._control = LinkControl(self._loop)
        self._loop.start()

    @property
    def state(self) -> State:
        return self._loop.state

    @property
    def last_error(self) -> LLMCRDTError | None:
        return self._loop.last_error

    @property
    def kept_there(self) -> Mapping[DocumentId, RelayRefused]:
        return self._control.kept_there

    @property
    def bytes_sent(self) -> int:
        return self._loop.transport.traffic.sent

    @property
    def bytes_received(self) -> int:
        return self._loop.transport.traffic.received

    @property
    def progress(self) -> Progress:
        """How far this link has come, for a first sync above all; when it is closed, as far as was seen last. Waits for
        the link's thread, a second at most."""
        self._loop.ask(self._loop.reports.update)
        return self._loop.reports.latest

    def observe_progress(self, callback: Callable[[Progress], None] | None = None) -> Observation[Progress]:
        """Call back with ``progress`` when it has changed, from the link's thread, ten times a second at most. All else
        as of ``observe``."""
        observation = self._loop.reports.observers.add(callback)
        self._loop.call(self._loop.reports.report_soon)
        return observation

    @property
    def status(self) -> LinkStatus:
        """How this link stands: connecting, in step, offline and why, refused. Waits for the link's thread, a second at
        most."""
        self._loop.ask(self._loop.statuses.update)
        return self._loop.statuses.latest

    def observe(self, callback: Callable[[LinkStatus], None] | None = None) -> Observation[LinkStatus]:
        """Call back with ``status`` at once, and when it has changed, from the link's thread; between "catching up" and
        "in step" ten times a second at most. Without ``callback``, the result is read in a loop: ``async for status in
        link.observe()``, or ``for`` in a thread; it ends with the link. Call the result to stop it. An exception of the
        callback is logged."""
        observation = self._loop.statuses.observers.add(callback, self.status)
        self._loop.call(self._loop.statuses.report_soon)
        return observation

    def wait_synced(self, timeout: float | None = None) -> None:
        """Block until all that was local at this call is durable on the relay, and all that the relay had is here; also
        for documents that became known on the way. ``timeout`` in seconds; None waits for as long as it takes.

        Raises SyncTimeout, which says what is missing; RelayUnreachable, where no relay ever answered in that time;
        RelayRefused, where the relay refuses something for good; SyncError, where the link is closed.
        """
        future = self._waits.begin()
        try:
            future.result(timeout)
        except TimeoutError:
            if future.done():
                return future.result()
            raise self._timed_out(future, timeout) from self.last_error

    async def synced(self) -> None:
        """As ``wait_synced``, for any event loop; put ``asyncio.timeout`` around it for a limit."""
        future = self._waits.begin()
        try:
            await asyncio.wrap_future(future)
        finally:
            self._waits.forget(future)

    def close(self) -> None:
        """Go offline, and wait until the thread has ended. All that was not acknowledged stays in the outbox. A second
        call does nothing."""
        self._loop.close()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Link:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def _timed_out(self, future: Future[None], timeout: float | None) -> SyncError:
        missing = self._waits.give_up(future)
        if isinstance(self.last_error, TokenUnavailable):
            return TokenUnavailable(self.last_error.message, hint=f"{self.last_error.hint} {_GOES_ON}".lstrip())
        if not self._loop.transport.ever_connected:
            reason = self.last_error.message if self.last_error else "Nobody answers."
            do = (self.last_error and self.last_error.hint) or "Is a relay running there?"
            return RelayUnreachable(f"{self.url} could not be reached: {reason}", hint=f"{do} {_GOES_ON}")
        text = ""
        with suppress(TimeoutError):
            text = missing.result(1)
        return SyncTimeout(f"Not synced after {timeout:g} s: {text or 'almost done'}.", hint=_GOES_ON)


def control_of(link: Link) -> LinkControl:
    """The object that a repo calls; programs don't need it."""
    return link._control


class _Waits:
    """The futures of those who wait until all is in step. ``begin``, ``forget`` and ``give_up``: from any thread."""

    def __init__(self, loop: LinkLoop) -> None:
        self._loop = loop
        self._waiters: dict[Future[None], SyncWaiter] = {}
        loop.ended = self._connection_ended

    def begin(self) -> Future[None]:
        """Raises SyncError where the link is closed."""
        future = self._loop.new_future()
        self._loop.call(self._loop.guard, self._add, future)
        return future

    def forget(self, future: Future[None]) -> None:
        self._loop.call(self._drop, future)

    def give_up(self, future: Future[None]) -> Future[str]:
        """Forget it. The result says what was missing."""
        missing: Future[str] = Future()
        self._loop.call(self._explain, future, missing)
        return missing

    # ---------------------------------------------------------------- on the loop's thread

    def _add(self, future: Future[None]) -> None:
        def done(why: RelayRefused | None) -> None:
            self._resolve(future, why)

        try:
            waiter = self._loop.synchronizer.add_waiter(done)
        except Exception as e:
            self._resolve(future, e)
            raise
        if not future.done():
            self._waiters[future] = waiter

    def _resolve(self, future: Future[None], error: Exception | None) -> None:
        self._remove(future)
        self._loop.resolve(future, error)

    def _drop(self, future: Future[None]) -> None:
        self._remove(future)
        self._loop.drop_future(future)

    def _remove(self, future: Future[None]) -> None:
        waiter = self._waiters.pop(future, None)
        if waiter is not None:
            self._loop.synchronizer.remove_waiter(waiter)

    def _explain(self, future: Future[None], missing: Future[str]) -> None:
        waiter = self._waiters.get(future)
        text = self._loop.synchronizer.describe_missing(waiter) if waiter else ""
        self._drop(future)
        if self._loop.state != "online" and self._loop.last_error is not None:
            text = f"{text} ({self._loop.last_error.message})"
        missing.set_result(text)

    def _connection_ended(self, error: LLMCRDTError) -> None:
        if isinstance(error, RelayRefused) and error.code in _FOR_GOOD:
            for future in tuple(self._waiters):
                self._resolve(future, error)
