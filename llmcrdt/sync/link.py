"""The link between the documents of this device and one relay, as programs see it: a thread, and patience.

A ``Link`` runs an asyncio loop on a daemon thread of its own, so neither a blocked main thread nor another event loop
can hold it up. It starts offline, connects, and connects again for as long as it is open (line.py); nothing is ever
raised from its thread. All it knows about the protocol is in follower.py.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import ssl
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType

from ..exceptions import LLMCRDTError, RelayRefused, RelayUnreachable, SyncError, SyncTimeout
from ..ids import DocumentId
from .backoff import Backoff
from .failures import deletion_refused, trusting
from .local import LocalDocuments
from .messages import DELETE_REFUSED, FOLD_DONE, FOLD_FAILED, FOLD_NEVER, ErrorCode
from .progress import Observers, Progress
from .reconnect import ReconnectingTransport, State
from .synchronizer import Synchronizer
from .waiters import SyncWaiter

logger = logging.getLogger(__name__)

REPORT = 0.1
"""Seconds at least between two reports of progress."""
ANNOUNCE = 0.1
"""Seconds at least between two announcements for one document."""
_GOES_ON = "The link goes on trying."


class Link:
    """Keeps ``local`` in step with the relay at ``url`` until ``close``. Any method may be called from any thread.

    ``random()`` gives floats from 0 to 1: it decides the pauses between tries. Raises RelayUnreachable at once where
    ``url`` is no address; whether a relay answers there shows later, in ``state`` and ``last_error``.

    Attributes:
        state: "connecting", "online", "offline" (between two tries), "closed" (also after the relay refused the token:
            then there is no use in trying again).
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
        token: str | None = None,
        backoff: Backoff | None = None,
        random: Callable[[], float] = random.random,
        tls: ssl.SSLContext | str | os.PathLike[str] | None = None,
    ) -> None:
        self.url = url
        self.kept_there: Mapping[DocumentId, RelayRefused] = {}
        self._synchronizer = Synchronizer(local, random, _agent(), (token or "").encode())
        self._line = ReconnectingTransport(
            url,
            self._synchronizer,
            backoff or Backoff(random),
            lambda: trusting(tls),
            changed=self._pump,
            ended=self._ended,
        )
        self._noted: set[DocumentId | None] = set()
        self._lock = threading.Lock()
        self._waiting: set[Future[None]] = set()
        self._goals: dict[Future[None], SyncWaiter] = {}
        self._progress = Progress()
        self._reporting = False
        self._observers = Observers()
        # Documents announced for just now, and whether there is more to announce.
        self._announcing: dict[DocumentId, bool] = {}
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, name="llmcrdt-link", daemon=True)
        self._thread.start()
        self._running.wait()

    # ---------------------------------------------------------------- from any thread

    @property
    def state(self) -> State:
        return self._line.state

    @property
    def last_error(self) -> LLMCRDTError | None:
        return self._line.last_error

    @property
    def bytes_sent(self) -> int:
        return self._line.traffic.sent

    @property
    def bytes_received(self) -> int:
        return self._line.traffic.received

    @property
    def progress(self) -> Progress:
        """How far this link has come, for a first sync above all; when it is closed, as far as was seen last. Waits for
        the link's thread, a second at most."""
        if threading.current_thread() is not self._thread and self._thread.is_alive():
            seen: Future[None] = Future()
            self._call(self._see_progress, seen)
            with suppress(TimeoutError):
                seen.result(1)
        return self._progress

    def observe_progress(self, callback: Callable[[Progress], None]) -> Callable[[], None]:
        """Call back with ``progress`` when it has changed, from the link's thread, ten times a second at most. Returns
        what stops it. What the callback raises is logged."""
        stop = self._observers.add(callback)
        self._call(self._report_soon)
        return stop

    def notify(self, document: DocumentId | None = None) -> None:
        """A document has new local records; or, with None, there are other documents to follow. Returns at once;
        many calls in a row cost little more than one."""
        with self._lock:
            first = not self._noted
            self._noted.add(document)
        if first:
            self._call(self._take_notes)

    def announce(self, document: DocumentId) -> None:
        """Who is present in a document on this device has changed. Returns at once; where nobody is connected, it is
        told with the next connection."""
        self._call(self._announce, document)

    def wait_synced(self, timeout: float | None = None) -> None:
        """Block until all that was local at this call is durable on the relay, and all that the relay had is here; also
        for documents that became known on the way. ``timeout`` in seconds; None waits for as long as it takes.

        Raises SyncTimeout, which says what is missing; RelayUnreachable, where no relay ever answered in that time;
        RelayRefused, where the relay refuses something for good; SyncError, where the link is closed.
        """
        future = self._wait()
        try:
            future.result(timeout)
        except TimeoutError:
            if future.done():
                return future.result()
            raise self._late(future, timeout) from self.last_error

    async def synced(self) -> None:
        """As ``wait_synced``, for any event loop; put ``asyncio.timeout`` around it for a limit."""
        future = self._wait()
        try:
            await asyncio.wrap_future(future)
        finally:
            self._call(self._drop, future)

    def fold(self, document: DocumentId) -> Future[None]:
        """Have the relay fold a document's log, so that what was erased from the document is in no file of the relay
        any more. Returns at once; the relay is asked when all that is local now is durable there, and again after a
        reconnection that came before its answer.

        The future ends with None; with RelayRefused, where the relay can't fold documents of that kind; with SyncError,
        where folding failed or the link was closed."""
        future = self._awaited()

        def done(outcome: int) -> None:
            self._settle(future, _FOLD_ERRORS[outcome])

        self._call(self._guard, self._synchronizer.request_compaction, document, done)
        return future

    def delete(self, document: DocumentId, after: DocumentId) -> Future[None]:
        """Have the relay delete a document's log for good, once all that is local now of the document ``after`` is
        durable there. Returns at once; asked again after every reconnection until the relay has answered.

        The future ends with None; with RelayRefused, where the token does not allow it, which ``kept_there`` and
        ``last_error`` say too; with SyncError, where the link was closed first."""
        future = self._awaited()

        def done(outcome: int) -> None:
            refused = deletion_refused(document) if outcome == DELETE_REFUSED else None
            if refused is not None:
                self._line.last_error, self.kept_there = refused, {**self.kept_there, document: refused}
                logger.warning("%s", refused)
            self._settle(future, refused)

        self._call(self._guard, self._synchronizer.request_deletion, document, after, done)
        return future

    def close(self) -> None:
        """Go offline, and wait until the thread has ended. What was not acknowledged stays in the outbox. A second
        call does nothing."""
        self._call(self._line.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

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

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        """Run on the link's loop. Nothing happens where the link is closed."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def _wait(self) -> Future[None]:
        future = self._awaited()
        self._call(self._set_goal, future)
        return future

    def _awaited(self) -> Future[None]:
        """A future that ends with the link, if not before. Raises SyncError where that is closed already."""
        future: Future[None] = Future()
        with self._lock:
            if self.state == "closed":
                raise self._why_closed()
            self._waiting.add(future)
        return future

    def _late(self, future: Future[None], timeout: float | None) -> SyncError:
        missing: Future[str] = Future()
        self._call(self._explain, future, missing)
        if not self._line.ever_connected:
            reason = self.last_error.message if self.last_error else "Nobody answers."
            do = (self.last_error and self.last_error.hint) or "Is a relay running there?"
            return RelayUnreachable(f"{self.url} could not be reached: {reason}", hint=f"{do} {_GOES_ON}")
        text = ""
        with suppress(TimeoutError):
            text = missing.result(1)
        return SyncTimeout(f"Not synced after {timeout:g} s: {text or 'almost done'}.", hint=_GOES_ON)

    # ---------------------------------------------------------------- on the link's thread

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as e:
            logger.exception("the link ended")
            self._line.last_error = SyncError(f"The link ended: {e!r}.")
        finally:
            with self._lock:
                self._line.state = "closed"
                waiting, self._waiting = self._waiting, set()
            self._running.set()
            for future in waiting:
                _fail(future, self._why_closed())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._running.set()
        await self._line.run()

    def _pump(self) -> None:
        """After the follower did something: send its frames, set its timers, note what it refuses."""
        self._line.flush()
        self._report_soon()
        for pause, document, opening in self._synchronizer.drain_timers():
            self._loop.call_later(pause, self._guard, self._synchronizer.timer_expired, document, opening)
        if self._synchronizer.refused:
            self._line.last_error = next(iter(self._synchronizer.refused.values()))

    def _report_soon(self) -> None:
        if self._observers and not self._reporting:
            self._reporting = True
            self._loop.call_later(REPORT, self._report)

    def _report(self) -> None:
        self._reporting = False
        before = self._progress
        self._see_progress()
        if self._progress != before:
            self._observers.tell(self._progress)

    def _see_progress(self, seen: Future[None] | None = None) -> None:
        with suppress(LLMCRDTError):  # the disk, for a moment
            self._progress = self._synchronizer.progress()
        if seen is not None and not seen.done():
            seen.set_result(None)

    def _guard(self, function: Callable[..., object], *arguments: object) -> None:
        """Call the follower from outside the receiving task. What it raises must end the connection, not the loop."""
        try:
            function(*arguments)
        except Exception as e:
            self._line.fail(e)
        self._pump()

    def _take_notes(self) -> None:
        with self._lock:
            noted, self._noted = self._noted, set()
        for document in noted:
            self._guard(self._synchronizer.local_changed, document)

    def _announce(self, document: DocumentId) -> None:
        if document in self._announcing:
            self._announcing[document] = True
            return
        self._announcing[document] = False
        self._loop.call_later(ANNOUNCE, self._announced, document)
        self._guard(self._synchronizer.announce, document)

    def _announced(self, document: DocumentId) -> None:
        if self._announcing.pop(document):
            self._announce(document)

    def _set_goal(self, future: Future[None]) -> None:
        def done(why: RelayRefused | None) -> None:
            self._settle(future, why)

        def begin() -> None:
            try:
                goal = self._synchronizer.add_waiter(done)
            except Exception as e:
                self._settle(future, e)
                raise
            if not future.done():
                self._goals[future] = goal

        self._guard(begin)

    def _settle(self, future: Future[None], error: Exception | None) -> None:
        if self._observers:  # whoever waits has seen all of it when it is over
            self._report()
        self._drop(future)
        if error is not None:
            _fail(future, error)
        elif not future.done():
            future.set_result(None)

    def _explain(self, future: Future[None], answer: Future[str]) -> None:
        goal = self._goals.get(future)
        text = self._synchronizer.describe_missing(goal) if goal else ""
        self._drop(future)
        if self.state != "online" and self.last_error is not None:
            text = f"{text} ({self.last_error.message})"
        answer.set_result(text)

    def _drop(self, future: Future[None]) -> None:
        with self._lock:
            self._waiting.discard(future)
        goal = self._goals.pop(future, None)
        if goal is not None:
            self._synchronizer.remove_waiter(goal)

    def _why_closed(self) -> SyncError:
        refused = isinstance(self.last_error, RelayRefused) and self.last_error.code == ErrorCode.TOKEN_REFUSED
        if refused and isinstance(self.last_error, RelayRefused):
            return RelayRefused(self.last_error.message, code=self.last_error.code, hint="Connect with another token.")
        return SyncError("The link is closed.", hint="Connect again.")

    def _ended(self, error: LLMCRDTError) -> None:
        if isinstance(error, RelayRefused) and error.code in _FOR_GOOD:
            for future in tuple(self._goals):
                self._settle(future, error)


_FOR_GOOD = (ErrorCode.MALFORMED, ErrorCode.UNEXPECTED, ErrorCode.WINDOW_EXCEEDED)


_FOLD_ERRORS: dict[int, SyncError | None] = {
    FOLD_DONE: None,
    FOLD_NEVER: RelayRefused("The relay never folds documents of this kind."),
    FOLD_FAILED: SyncError("The relay could not fold the document.", hint="Ask again later; nothing was lost."),
}


def _agent() -> str:
    try:
        return f"llmcrdt/{version('llmcrdt')}"
    except PackageNotFoundError:
        return "llmcrdt"


def _fail(future: Future[None], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
