"""A document in use: a replica, the journal that keeps its bytes, and the session that writes it.

Conversation and Library stand on this. Flow of a local write: edit the replica, keep the update in the journal
(durable when that returns), then let the subclass read what was touched. If the journal fails, the replica is thrown
away and loaded again, so memory never holds what the disk does not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol

from ..crdt.backend import Applied, Edit, Replica, Touched
from ..exceptions import LLMCRDTError, MalformedUpdate, NewerDocument, RepoClosed
from ..ids import DocumentId, Random, SessionId, new_session_id
from .schema import META, check_identity, check_schema


class Journal(Protocol):
    """Keeps the bytes of one document, shared by every process that has it open. Called under the document's lock."""

    def load(self) -> tuple[bytes | None, Sequence[bytes]]:
        """The snapshot, and the updates after it. ``news`` continues from here."""
        ...

    def append(self, update: bytes, session: SessionId, keys: Iterable[str]) -> None:
        """Keep an update that ``session`` made; it is on disk when this returns. ``keys``: the entries it touches."""
        ...

    def news(self) -> Sequence[bytes]:
        """Updates that others (processes, the relay) appended since the last call."""
        ...

    def compact(self, snapshot: Callable[[], tuple[bytes, Sequence[bytes]]]) -> None:
        """Fold the updates into a new snapshot if they have outgrown the old one. Called after writes."""
        ...

    def purge(self, snapshot: Callable[[], tuple[bytes, Sequence[bytes]]], erased: int) -> bool:
        """Keep the document as it is now and nothing of what it was: erased words must not stay in old updates.
        ``erased``: how many entries are erased by now. False, and nothing done, where there are ``news``."""
        ...

    def purged(self) -> int:
        """How many entries were erased when ``purge`` was called last."""
        ...

    def set_aside(self, update: bytes, reason: str) -> None:
        """Keep an update that can't be applied, apart from the document."""
        ...


class Document:
    """One replicated document. Any method from any thread. Its replica is loaded when it is needed first."""

    def __init__(
        self,
        id: DocumentId,
        journal: Journal,
        make_replica: Callable[[], Replica],
        *,
        lock: threading.RLock,
        clock: Callable[[], float],
        random: Random,
    ) -> None:
        self.id = id
        self._journal = journal
        self._make_replica = make_replica
        self._lock = lock
        self._clock = clock
        self._random = random
        self._session: SessionId | None = None
        self._open_edit: Edit | None = None
        self._edited: set[str] = set()
        self._closed = ""
        self._closed_hint = "Get it again from its repo."
        self._as_bytes, self._as_read = _Use(self, read=False), _Use(self, read=True)
        self._loaded = False

    # what a subclass does with what it reads

    def _reset(self) -> None:
        """Forget everything that was read, then read the whole replica."""
        raise NotImplementedError

    def _absorb(self, touched: Touched, *, local: bool) -> None:
        """Read what a change touched. ``local``: it is not on disk yet; ``_on_disk`` is called when it is."""
        raise NotImplementedError

    def _merged(self) -> None:
        """Something came from elsewhere, and was read. May write."""

    def _on_disk(self, *, local: bool) -> None:
        """What was absorbed last is on disk now."""

    # the document as bytes

    def diff(self, since: bytes | None = None) -> bytes:
        """All that a replica at ``since`` (its ``version()``) may lack, as one update; everything if None."""
        with self._carrying():
            return self._replica.diff(since)

    def version(self) -> bytes:
        """What this replica holds, for another one's ``diff``."""
        with self._carrying():
            return self._replica.version()

    def apply(self, update: bytes) -> None:
        """Merge an update from any transport; it is on disk when this returns. Raises MalformedUpdate, and
        OtherDocument for one of another conversation, a fork for instance; nothing is kept."""
        with self._carrying():
            applied = self._merge(update)
            if applied.news:
                self._absorb(applied.touched, local=True)  # first, for the journal keeps tables of what is read
                self._append(applied.update, applied.touched)
                self._on_disk(local=False)
                self._merged()

    def close(self) -> None:
        """Stop using this object. The document stays where it is."""
        with self._lock:
            self._closed = "is closed"

    def refuse(self, why: str, hint: str = "") -> None:
        """Every use from now on says ``why`` (a verb and more)."""
        with self._lock:
            self._closed, self._closed_hint = why, hint

    def check_usable(self) -> None:
        """Raises RepoClosed where this object was closed, or its document was deleted."""
        if self._closed:
            raise RepoClosed(f"{type(self).__name__} {self.id} {self._closed}.", hint=self._closed_hint)

    @property
    def session(self) -> SessionId:
        """The name under which this object writes: fresh, drawn at the first write."""
        if self._session is None:
            self._session = new_session_id(self._random)
        return self._session

    def refresh(self) -> None:
        """Take in what other processes and the relay wrote to the same file; if it is loaded."""
        with self._lock:
            if self._loaded and self._take_news():
                self._merged()

    @property
    def loaded(self) -> bool:
        """Whether the replica is in memory."""
        return self._loaded

    def load_again(self) -> None:
        """Forget what is in memory, and load what is on disk."""
        with self._lock:
            self._load()

    def load(self) -> None:
        """Load the replica if it isn't yet."""
        with self._lock:
            if not self._loaded:
                self._load()
                self._merged()

    def _take_news(self) -> bool:
        news = self._journal.news()
        for update in news:
            try:
                applied = self._merge(update)
            except MalformedUpdate as error:
                self._journal.set_aside(update, str(error))
                continue
            if applied.news:
                self._absorb(applied.touched, local=False)
        return bool(news)

    # for subclasses

    def _carrying(self) -> _Use:
        """Handle the bytes, whatever they say."""
        return self._as_bytes

    def _reading(self) -> _Use:
        """Handle what they say; raises NewerDocument where this version doesn't know how."""
        return self._as_read

    def _ready(self, *, read: bool) -> None:
        """Under the lock: the replica is there, and holds what others wrote to the file."""
        self.check_usable()
        self.load()
        if self._open_edit is None:
            self.refresh()
        if read and self._newer is not None:
            raise self._newer

    def _check_schema(self) -> None:
        """From a newer major version on the document is carried, stored and synced, but not read or written."""
        try:
            check_schema(self._replica.get(META, "schema"))
            self._newer: LLMCRDTError | None = None
        except NewerDocument as error:
            self._newer = error

    @contextmanager
    def _editing(self) -> Iterator[Edit]:
        """A write: one update, durable at the end. Inside ``batch`` several share one."""
        with self._reading():
            if self._open_edit is not None:
                yield self._open_edit
                self._take_in(self._open_edit)
                return
            self._edited = set()
            try:
                with self._replica.edit() as edit:
                    self._open_edit = edit
                    yield edit
                    self._take_in(edit)
                self._open_edit = None
                if edit.update:
                    self._journal.append(edit.update, self.session, self._edited)
            except BaseException:
                self._open_edit = None
                self._load()
                raise
            self._on_disk(local=True)
            self._journal.compact(self._replica.snapshot)

    def _take_in(self, edit: Edit) -> None:
        touched = edit.take_touched()
        self._edited.update(*touched.keys.values())
        self._absorb(touched, local=True)

    def _merge(self, update: bytes) -> Applied:
        check_identity(self.id, update, self._replica.foreign_key)
        try:
            return self._replica.apply(update)
        except MalformedUpdate:
            if self._replica.broken:
                self._load()
            raise

    def _append(self, update: bytes, touched: Touched) -> None:
        try:
            self._journal.append(update, self.session, {key for keys in touched.keys.values() for key in keys})
        except BaseException:
            self._load()
            raise

    def _load(self) -> None:
        """Build the replica from the journal; an update that breaks it is set aside, and the rest loaded without it."""
        self._session = None  # a new replica has a new writer identity
        snapshot, updates = self._journal.load()
        kept = list(updates)
        while True:
            self._replica = self._make_replica()
            try:
                self._replica.load(snapshot, kept)
            except MalformedUpdate:
                bad = self._first_bad(snapshot, kept)
                if bad is None:
                    raise
                self._journal.set_aside(kept[bad], "It broke the document when it was loaded.")
                del kept[bad]
                continue
            break
        self._loaded = True
        self._reset()

    def _first_bad(self, snapshot: bytes | None, updates: Sequence[bytes]) -> int | None:
        replica = self._make_replica()
        replica.load(snapshot, ())
        for index, update in enumerate(updates):
            try:
                replica.apply(update)
            except MalformedUpdate:
                return index
        return None


class _Use:
    """Somebody uses a document: its lock is held, and its replica is up to date. It holds nothing of one use, so one
    object serves them all, inside each other too."""

    def __init__(self, document: Document, *, read: bool) -> None:
        self._document = document
        self._read = read

    def __enter__(self) -> None:
        self._document._lock.acquire()
        try:
            self._document._ready(read=self._read)
        except BaseException:
            self._document._lock.release()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._document._lock.release()
