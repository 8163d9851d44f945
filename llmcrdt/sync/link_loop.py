"""The thread of a link: an event loop that runs a Synchronizer over a ReconnectingTransport until it is closed.

It is a daemon thread, so neither a blocked main thread nor another event loop can hold it up. Nothing is ever raised
from it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from ..at_exit import end_at_exit
from ..exceptions import LLMCRDTError, RelayRefused, SyncError
from .backoff import Backoff
from .failures import token_refused, trusting
from .local import LocalDocuments
from .progress import LinkStatus, Progress, Reports
from .reconnect import ReconnectingTransport, State
from .synchronizer import Synchronizer
from .token import TokenProvider, TokenSource

logger = logging.getLogger(__name__)


class LinkLoop:
    """``start`` it once; ``ended`` may be set before. ``synchronizer``, ``reports`` (progress) and ``statuses`` are for
    the loop's thread only: reach them with ``call`` from others. Raises RelayUnreachable where ``url`` is no address.

    Attributes:
        ended: called on the loop's thread with the reason when a connection has failed or ended.
    """

    def __init__(
        self,
        url: str,
        local: LocalDocuments,
        token: str | TokenProvider | None,
        backoff: Backoff,
        random: Callable[[], float],
        tls: ssl.SSLContext | str | os.PathLike[str] | None,
    ) -> None:
        self.url = url
        self.synchronizer = Synchronizer(local, random, _agent())
        self.tokens = TokenSource(token)
        self.transport = ReconnectingTransport(
            url,
            self.synchronizer,
            backoff,
            lambda: trusting(tls),
            self.tokens,
            changed=self._pump,
            ended=lambda error: self.ended(error),
        )
        self.reports = Reports(self.synchronizer.progress, self.call_later, Progress())
        self.statuses = Reports(self._status, self.call_later, LinkStatus("connecting"))
        self.transport.told = self.statuses.report_now
        self.ended: Callable[[LLMCRDTError], None] = lambda error: None
        self._lock = threading.Lock()
        self._futures: set[Future[None]] = set()
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, name="llmcrdt-link", daemon=True)

    # ---------------------------------------------------------------- from any thread

    @property
    def state(self) -> State:
        return self.transport.state

    @property
    def last_error(self) -> LLMCRDTError | None:
        return self.transport.last_error

    def start(self) -> None:
        """Returns when the loop runs."""
        self._thread.start()
        self._running.wait()
        end_at_exit(
            self,
            stop=lambda self: self.call(self.transport.stop),
            finish=lambda self, seconds: self._thread.join(seconds),
        )

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Run on the loop. Nothing happens where it has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def ask(self, function: Callable[[], object]) -> bool:
        """Run on the loop and wait for it, a second at most. Whether it ran."""
        if threading.current_thread() is self._thread or not self._thread.is_alive():
            return False
        ran: Future[None] = Future()

        def run() -> None:
            try:
                function()
            finally:
                ran.set_result(None)

        self.call(run)
        with suppress(TimeoutError):
            ran.result(1)
        return ran.done()

    def new_future(self) -> Future[None]:
        """A future that ends with the link, if not before. Raises SyncError where that is closed already."""
        future: Future[None] = Future()
        with self._lock:
            if self.state == "closed":
                raise self._why_closed()
            self._futures.add(future)
        return future

    def drop_future(self, future: Future[None]) -> None:
        """Nobody waits for it any more."""
        with self._lock:
            self._futures.discard(future)

    def close(self) -> None:
        """Go offline, and wait until the thread has ended. Twice is harmless."""
        self.call(self.transport.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # ---------------------------------------------------------------- on the loop's thread

    def call_later(self, seconds: float, function: Callable[..., object], *arguments: object) -> None:
        self._loop.call_later(seconds, function, *arguments)

    def guard(self, function: Callable[..., object], *arguments: object) -> None:
        """Call the Synchronizer from outside the receiving task. An exception ends the connection, not the loop."""
        try:
            function(*arguments)
        except Exception as e:
            self.transport.fail(e)
        self._pump()

    def resolve(self, future: Future[None], error: Exception | None) -> None:
        """End a future. Observers have seen all progress before."""
        self.reports.report_now()
        self.drop_future(future)
        if error is not None:
            _fail(future, error)
        elif not future.done():
            future.set_result(None)

    def _pump(self) -> None:
        """After the Synchronizer did something: send its frames, set its timers, note what it refuses."""
        self.transport.flush()
        self.reports.report_soon()
        self.statuses.report_soon()
        for pause, document, opening in self.synchronizer.drain_timers():
            self.call_later(pause, self.guard, self.synchronizer.timer_expired, document, opening)
        if self.synchronizer.refused:
            self.transport.last_error = next(iter(self.synchronizer.refused.values()))

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as e:
            logger.exception("the link ended")
            self.transport.last_error = SyncError(f"The link ended: {e!r}.")
        finally:
            with self._lock:
                self.transport.state = "closed"
                futures, self._futures = self._futures, set()
            self._running.set()
            for future in futures:
                _fail(future, self._why_closed())
            self.statuses.report_now()
            self.statuses.update()
            for observers in (self.statuses.observers, self.reports.observers):
                observers.end()

    def _status(self) -> LinkStatus:
        error = self.last_error
        if self.state == "online":
            return LinkStatus("in step" if self.synchronizer.in_step() else "catching up", self._refusal())
        if self.state == "closed":
            return LinkStatus("refused", self._why_closed()) if token_refused(error) else LinkStatus("closed")
        return LinkStatus("offline", error) if self.state == "offline" else LinkStatus("connecting")

    def _refusal(self) -> RelayRefused | None:
        return next(iter(self.synchronizer.refused.values()), None)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._running.set()
        await self.transport.run()

    def _why_closed(self) -> SyncError:
        if (error := token_refused(self.last_error)) is not None:
            return RelayRefused(error.message, code=error.code, hint="Connect with another token.")
        return SyncError("The link is closed.", hint="Connect again.")


def _agent() -> str:
    try:
        return f"llmcrdt/{version('llmcrdt')}"
    except PackageNotFoundError:
        return "llmcrdt"


def _fail(future: Future[None], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
