"""A carrier takes attachments to one relay and back, on a thread with a connection of its own. The thread is there
while something is to be done, and a little longer.

a carrier has          and then
something to fetch     fetches it, from the byte that it has; what came is checked before it is kept
something to discard   has the relay take it away, unless the conversation names it again
something to send      sends what the relay lacks; where the conversation has a key, encrypted
nothing                waits for a moment, closes its connection, and ends
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from ..exceptions import (
    BlobMissing,
    CannotOpen,
    LLMCRDTError,
    RelayRefused,
    StoreError,
    SyncError,
    SyncTimeout,
)
from ..ids import DocumentId, document_bytes
from ..store.base import AttachmentTasks
from ..store.blobs import BlobStore
from ..store.keyring import Keyring
from .attachment_forms import Forms

if TYPE_CHECKING:
    import os
    import ssl

    from ..document.blob import Blob
    from ..sync.attachments import AttachmentConnection
    from ..sync.link_control import LinkControl
    from ..sync.messages import AttachmentName

logger = logging.getLogger("llmcrdt.attachments")

_LINGER: Final = 2.0
"""Seconds that a connection stays open without work."""
_END: Final = 2.0
"""Seconds that whoever closes the repo waits for the thread, which may wait for a relay that does not answer."""
_LOOK: Final = 0.25
"""Seconds between two looks whether the link is still open, and before something is looked at again."""
_LOOKS: Final = 9
"""Times that something is looked at again, each time after twice as long."""


class Transfer:
    """An attachment on its way to this device. ``done`` of ``size`` bytes came so far, as they travel (encrypted ones
    are a little larger). Await it, or ``wait`` for it.

    Attributes:
        conversation, hash: which one.
    """

    def __init__(self, conversation: DocumentId, hash: str, size: int) -> None:
        self.conversation, self.hash, self.size, self.done = conversation, hash, size, 0
        self._future: Future[Path] = Future()

    @property
    def ended(self) -> bool:
        """Whether it is over, in whatever way."""
        return self._future.done()

    def cancel(self) -> None:
        """Fetch it no further. The part that came stays, and the next fetch goes on from there."""
        self._future.cancel()

    def wait(self, timeout: float | None = None) -> Path:
        """The file that holds the content, checked. ``timeout`` in seconds. Raises SyncTimeout; BlobMissing where no
        relay has it, or what the relay has is not what its hash says; RelayRefused; CannotOpen and KeyMissing where it
        does not open; SyncError where it was cancelled, or the repo is closed."""
        try:
            return self._future.result(timeout)
        except TimeoutError:
            if self._future.done():
                raise
            text = f"The attachment {self.hash} is not here after {timeout:g} s: {self.done} of {self.size} bytes."
            raise SyncTimeout(text, hint="It is fetched on; wait again, or cancel it.") from None
        except BaseException as e:
            if self._future.cancelled():
                raise SyncError("The fetch was cancelled.", hint="What came of it is kept; fetch it again.") from e
            raise

    def __await__(self) -> Generator[object, None, Path]:
        import asyncio  # which loads ssl

        return asyncio.wrap_future(self._future).__await__()


def end_transfer(transfer: Transfer, path: Path | None, error: Exception | None = None) -> None:
    """It came, or failed. Nothing happens where it ended before."""
    with suppress(InvalidStateError):
        if error is not None:
            transfer._future.set_exception(error)
        else:
            assert path is not None
            transfer._future.set_result(path)


class Shared(NamedTuple):
    """The things of a repo that its carriers use. ``named``: what a conversation names, by hash. ``next_fetch``: a
    transfer that this carrier has not tried; ``tried``: its relay does not have it. ``look``: fetch what the setting
    says of a conversation; whether that is anything. ``is_local``: whether no relay is told of a document."""

    tasks: AttachmentTasks
    blobs: BlobStore
    keyring: Keyring
    named: Callable[[DocumentId], Mapping[str, Blob | None]]
    next_fetch: Callable[[object], Transfer | None]
    tried: Callable[[Transfer, object, Exception], None]
    look: Callable[[DocumentId], bool]
    is_local: Callable[[DocumentId], bool]


class Carrier:
    """Carries to one relay and back. ``only``: the documents that its link follows; None: all."""

    def __init__(
        self,
        shared: Shared,
        link: LinkControl,
        tls: ssl.SSLContext | str | os.PathLike[str] | None,
        only: Collection[DocumentId] | None,
    ) -> None:
        self._forms = Forms(shared.keyring)
        self.link, self._shared, self._tls, self._only = link, shared, tls, only
        self.refused: dict[tuple[DocumentId, str], LLMCRDTError] = {}
        self._lock = threading.Condition()
        self._due = self._stopped = False
        self._to_look: deque[DocumentId] = deque()
        # Documents that are to be looked at again: when, and how often they were; a writer may be sending still.
        self._later: dict[DocumentId, tuple[float, int]] = {}
        self._thread: threading.Thread | None = None
        self._connection: AttachmentConnection | None = None
        self._wanted: Callable[[], bool] = self.wanted

    def wanted(self) -> bool:
        """Whether its link is open."""
        return not self._stopped and self.link.state != "closed"

    def wake(self) -> None:
        """There may be something to do."""
        with self._lock:
            self._due = True
            self._lock.notify_all()
            if self.wanted() and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="llmcrdt-attachments", daemon=True)
                self._thread.start()

    def look(self, document: DocumentId) -> None:
        """Something came for a document."""
        if self._only is None or document in self._only:
            with self._lock:
                self._later.pop(document, None)
                if document not in self._to_look:
                    self._to_look.append(document)
            self.wake()

    def stop(self) -> None:
        """End, and wait for the thread, not for long."""
        with self._lock:
            self._stopped = True
            self._lock.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_END)

    def forgive(self) -> None:
        """Try again what was refused."""
        self.refused.clear()
        self.wake()

    def left(self) -> int:
        """How many attachments are still to go, or to be taken away."""
        with suppress(StoreError):
            return len([*self._to_discard(), *self._to_send()])
        return 0

    # ---------------------------------------------------------------- the thread

    def _run(self) -> None:
        from ..sync.backoff import Backoff
        from ..sync.reconnect import HELD

        backoff, ended = Backoff(random.random), False
        try:
            while not ended:
                self._due = False
                began = time.monotonic()
                try:
                    self._work()
                    pause = None
                except (SyncError, OSError) as e:
                    self._disconnect()
                    if time.monotonic() - began > HELD:
                        backoff.reset()
                    pause = backoff.next()
                    logger.debug("attachments: %s", e)
                ended = self._rest(pause)
        except StoreError as e:  # closed, or the disk is full: the next change, or the next link, begins again
            logger.debug("attachments: %s", e)
        except Exception:
            logger.exception("attachments are not carried on this link any more")
            self._stopped = True
        finally:
            self._disconnect()
            with self._lock:
                self._thread = None
                again = self._due and ended and self.wanted()
            if again:
                self.wake()

    def _rest(self, pause: float | None) -> bool:
        """Wait for more to do, or, after a failure, so many seconds. Whether the thread is to end."""
        until = time.monotonic() + (_LINGER if pause is None else pause)
        while self.wanted():
            now = time.monotonic()
            over = now >= until
            with self._lock:
                if (pause is None and (self._due or self._next_look(now))) or (pause is not None and over):
                    return False
                if over and not self._later:
                    return True
            if over:
                self._disconnect()
            with self._lock:
                if not self._due or pause is not None:
                    self._lock.wait(_LOOK if over else min(_LOOK, until - now))
        return True

    def _next_look(self, now: float) -> bool:
        """Whether something is to be looked at again by now."""
        due = [document for document, (when, _) in self._later.items() if when <= now]
        self._to_look.extend(document for document in due if document not in self._to_look)
        return bool(self._to_look)

    def _look_at(self, document: DocumentId) -> None:
        _, times = self._later.pop(document, (0.0, 0))
        if self._shared.look(document) and times < _LOOKS:
            self._later[document] = (time.monotonic() + _LOOK * 2.0**times, times + 1)

    def _work(self) -> None:
        """All that there is to do. Raises SyncError, OSError where it is to be tried again."""
        while self.wanted():
            with self._lock:
                document = self._to_look.popleft() if self._to_look else None
            if document is not None:
                self._look_at(document)
            elif (transfer := self._shared.next_fetch(self)) is not None:
                self._fetch(transfer)
            elif (which := next(self._to_discard(), None)) is not None:
                self._discard(*which)
            elif todo := [*self._to_send()]:
                for which in todo:
                    if not self.wanted() or self._shared.next_fetch(self) is not None:
                        break  # somebody waits for that
                    self._send(*which)
            else:
                return

    def _follows(self, which: tuple[str, str]) -> bool:
        document = DocumentId(which[0])
        return (self._only is None or document in self._only) and not self._shared.is_local(document)

    def _to_discard(self) -> Iterator[tuple[DocumentId, str]]:
        for document, hash_ in filter(self._follows, self._shared.tasks.to_discard(self.link.url)):
            if (DocumentId(document), hash_) not in self.refused:
                yield DocumentId(document), hash_

    def _to_send(self) -> Iterator[tuple[DocumentId, str]]:
        """Those that are here and named."""
        named: dict[str, Collection[str]] = {}
        for document, hash_ in filter(self._follows, self._shared.tasks.to_send(self.link.url)):
            if (DocumentId(document), hash_) in self.refused or not self._shared.blobs.has(hash_):
                continue
            if document not in named:
                named[document] = self._shared.named(DocumentId(document))
            if hash_ in named[document]:
                yield DocumentId(document), hash_

    # ---------------------------------------------------------------- one at a time

    def _connect(self) -> AttachmentConnection:
        from ..sync.attachments import AttachmentConnection

        if self._connection is None:
            self._connection = AttachmentConnection(self.link.url, self.link.token, self._tls, lambda: self._wanted())
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _send(self, document: DocumentId, hash_: str) -> None:
        from ..sync.messages import Outcome

        path = self._shared.blobs.get(hash_)
        if path is None:
            return self._refuse(document, hash_, BlobMissing(f"The content {hash_} is damaged on this device."))
        try:
            with path.open("rb") as file:
                name, size, read = self._forms.newest(document, hash_, path.stat().st_size, file)
                held = self._connect().offer(document_bytes(document), name, size)
                if held.outcome == Outcome.HELD:
                    held = self._connect().bring(document_bytes(document), name, held, read)
        except (RelayRefused, LLMCRDTError) as e:
            if isinstance(e, SyncError) and not isinstance(e, RelayRefused):
                raise
            self._disconnect()
            return self._refuse(document, hash_, e)
        if held.outcome == Outcome.HELD:
            self._shared.tasks.sent(self.link.url, document, hash_)
        elif held.outcome in (Outcome.NOT_BEGUN, Outcome.GAP, Outcome.MISSING):
            raise SyncError("The relay does not know the conversation yet.")
        else:
            self._refuse(document, hash_, RelayRefused(_WHY.get(held.outcome, _OTHER), hint=_HINT))

    def _discard(self, document: DocumentId, hash_: str) -> None:
        if hash_ in self._shared.named(document):
            return self._shared.tasks.want(document, [hash_])
        try:
            for name in self._forms.names(document, hash_):
                self._connect().discard(document_bytes(document), name)
        except RelayRefused as e:
            self._disconnect()
            return self._refuse(document, hash_, e)
        self._shared.tasks.discarded(self.link.url, document, hash_)

    def _fetch(self, transfer: Transfer) -> None:
        self._wanted = lambda: self.wanted() and not transfer.ended
        try:
            path = self._fetched(transfer)
        except LLMCRDTError as e:
            if transfer.ended or (isinstance(e, SyncError) and not isinstance(e, RelayRefused)):
                self._disconnect()
                if not transfer.ended:
                    raise
            else:
                if isinstance(e, RelayRefused):
                    self._disconnect()
                self._shared.tried(transfer, self, e)
        else:
            end_transfer(transfer, path)
        finally:
            self._wanted = self.wanted

    def _fetched(self, transfer: Transfer) -> Path:
        """Raises SyncError where it is to be tried again, and others where this relay does not have it."""
        document, hash_, blobs = transfer.conversation, transfer.hash, self._shared.blobs
        size = transfer.size
        locked: LLMCRDTError | None = None
        for name, whole, opened in self._forms.all(document, hash_, size):
            file = blobs.coming(hash_, f"{name.form}{name.hash.hex()[:16]}")
            if not self._bring(transfer, name, whole, file):
                continue
            try:
                with file.open("rb") as come:
                    sound = blobs.take(hash_, opened(come))
            except CannotOpen as e:
                sound, locked = False, e
            file.unlink(missing_ok=True)
            path = blobs.get(hash_) if sound else None
            if path is not None:
                return path
            locked = locked or BlobMissing(
                f"What the relay has of {hash_} is not what its hash says.", hint="Nothing of it was kept."
            )
        raise locked or BlobMissing(
            f"The relay does not have the attachment {hash_}, or no form of it that this device has the key for.",
            hint="The device that has it has to be in touch with the relay; for an encrypted one, add its key here.",
        )

    def _bring(self, transfer: Transfer, name: AttachmentName, whole: int, file: Path) -> bool:
        """Have one form of it come to a file, which may hold the beginning. Whether the relay has it."""
        with file.open("ab") as out:
            have = out.tell()
            if have > whole:
                out.truncate(0)
                have = 0
            transfer.size, transfer.done = whole, have

            def write(data: bytes) -> None:
                out.write(data)
                transfer.done += len(data)

            if have < whole or not whole:
                missing = self._connect().fetch(document_bytes(transfer.conversation), name, whole, have, write)
                if missing is not None and not out.tell():
                    file.unlink(missing_ok=True)
                if missing is not None:
                    return False
        return True

    def _refuse(self, document: DocumentId, hash_: str, error: LLMCRDTError) -> None:
        logger.warning("The attachment %s of %s: %s", hash_, document, error.message)
        self.refused = {**self.refused, (document, hash_): error}


_OTHER: Final = "The relay does not take this attachment."
_WHY: Final[Mapping[int, str]] = {
    3: "The attachment is larger than the relay takes.",
    4: "The conversation has as many attachments at the relay as it may.",
    5: "The owner of the conversation has no room left at the relay.",
    6: "What came to the relay is not what its name says.",
}
"""By ``sync.messages.Outcome``, which is loaded with the first connection."""
_HINT: Final = "It stays on this device. Ask whoever runs the relay for room, or bring it over with repo.blobs.put."
