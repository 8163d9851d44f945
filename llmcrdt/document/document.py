"""A document in use: a replica, the journal that keeps its bytes, and the session that writes it.

Conversations and libraries stand on this. Flow of a local write: edit the replica, have its content read what was
touched, keep the update in the journal (durable when that returns). If the journal fails, the replica is thrown away
and loaded again, so memory never holds what the disk does not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import NoneType, TracebackType
from typing import Protocol

from ..arguments import check_type
from ..crdt.backend import Applied, Edit, Replica, Touched
from ..exceptions import LLMCRDTError, MalformedUpdate, NewerDocument, RepoClosed
from ..ids import DocumentId, Random, SessionId, new_session_id
from .replica_loading import Journal, load_replica
from .schema import META, check_identity, check_schema
from .transcript import NoCollections


class Content(Protocol):
    """The meaning of a document: reads it from the replica. Called under the document's lock."""

    @property
    def kind(self) -> str:
        """The name of such documents in errors: "Conversation", "Library"."""
        ...

    def reset(self) -> None:
        """Forget everything that was read, then read the whole replica."""
        ...

    def absorb(self, touched: Touched, *, local: bool) -> None:
        """Read what a change touched. ``local``: it is not on disk yet; ``on_disk`` is called when it is."""
        ...

    def on_disk(self, *, local: bool) -> None:
        """The changes that were read last are on disk now."""
        ...

    def merged(self) -> None:
        """Something came from elsewhere, and was read. May write."""
        ...

    def forget(self) -> None:
        """Forget everything that was read: nothing asks for it any more."""
        ...


class Document:
    """One replicated document. Any method from any thread. Its replica is loaded when it is needed first."""

    def __init__(
        self,
        id: DocumentId,
        journal: Journal,
        make_replica: Callable[[], Replica],
        content: Content,
        *,
        lock: threading.RLock,
        clock: Callable[[], float],
        random: Random,
    ) -> None:
        self.id = id
        self.journal = journal
        self.lock = lock
        self.clock = clock
        self.random = random
        self.newer: LLMCRDTError | None = None
        """Says that the document is of a newer version: it is carried, stored and synced, but not read or written."""
        self._make_replica = make_replica
        self._content = content
        self._session: SessionId | None = None
        self._open_edit: Edit | None = None
        self._edited: set[str] = set()
        self._unusable: Callable[[], LLMCRDTError] | None = None
        self._as_bytes, self._as_content = Use(self, read=False), Use(self, read=True)
        self._loaded = self._forgotten = False

    @property
    def replica(self) -> Replica:
        """The replica in use; another one after it had to be loaded again."""
        return self._replica

    @property
    def session(self) -> SessionId:
        """The name under which this object writes: fresh, drawn at the first write."""
        if self._session is None:
            self._session = new_session_id(self.random)
        return self._session

    # the document as bytes

    def diff(self, since: bytes | None = None) -> bytes:
        """All that a replica at ``since`` (its ``version()``) may lack, as one update; everything if None.
        Raises InvalidContent."""
        check_type(since, bytes, NoneType, name="since", hint="Give what version() of the other replica returned.")
        with self._as_bytes:
            return self._replica.diff(since)

    def version(self) -> bytes:
        """The state of this replica, for another one's ``diff``."""
        with self._as_bytes:
            return self._replica.version()

    def apply(self, update: bytes) -> None:
        """Merge an update from any transport; it is on disk when this returns. Raises MalformedUpdate, and
        OtherDocument for one of another conversation, a fork for instance; nothing is kept."""
        check_type(update, bytes, name="update", hint="Give the bytes that diff() returned.", error=MalformedUpdate)
        with self._as_bytes:
            applied = self._merge(update)
            if applied.news:
                self._content.absorb(
                    applied.touched, local=True
                )  # first, for the journal writes an index of what is read
                self._append(applied.update, applied.touched)
                self._content.on_disk(local=False)
                self._content.merged()
                self.journal.compact(self._replica.snapshot)

    # in use or not

    @property
    def loaded(self) -> bool:
        """Whether the replica is in memory."""
        return self._loaded

    @property
    def closed(self) -> bool:
        """Whether it was closed, or refused."""
        return self._unusable is not None

    def load(self) -> None:
        """Load the replica if it isn't yet, and was not forgotten."""
        with self.lock:
            if not self._loaded and not self._forgotten:
                self._load()
                self._content.merged()

    def load_again(self) -> None:
        """Forget what is in memory, and load what is on disk."""
        with self.lock:
            self._load()

    def refresh(self) -> None:
        """Read what other processes and the relay wrote to the same file; if it is loaded."""
        with self.lock:
            if self._loaded and self.apply_news():
                self._content.merged()

    def close(self) -> None:
        """Stop using this object. The document stays where it is. Its memory is free at once, without a look for
        garbage; transcripts that somebody still has can be read."""
        with self.lock:
            self._unusable = lambda: RepoClosed(
                f"{self._content.kind} {self.id} is closed.", hint="Get it again from its repo."
            )
            if self._loaded and not self.in_edit:
                self._loaded, self._forgotten = False, True
                del self._replica
                self._content.forget()

    def refuse(self, why: Callable[[], LLMCRDTError]) -> None:
        """Every use from now on raises the error that ``why`` makes."""
        with self.lock:
            self._unusable = why

    def check_usable(self) -> None:
        """Raises RepoClosed where this object was closed, ConversationDeleted where its document was deleted."""
        if self._unusable is not None:
            raise self._unusable()

    # for its content

    def reading(self) -> Use:
        """While it is open, the lock is held and the replica is up to date. Raises RepoClosed, and NewerDocument where
        this version doesn't know how to read it."""
        return self._as_content

    @contextmanager
    def editing(self) -> Iterator[Edit]:
        """A write: one update, durable at the end. One inside another is part of that one's update."""
        with self._as_content:
            if self._open_edit is not None:
                yield self._open_edit
                self._absorb_edit(self._open_edit)
                return
            self._edited = set()
            try:
                with self._replica.edit() as edit:
                    self._open_edit = edit
                    yield edit
                    self._absorb_edit(edit)
                self._open_edit = None
                if edit.update:
                    self.journal.append(edit.update, self.session, self._edited)
            except BaseException:
                self._open_edit = None
                self._load()
                raise
            self._content.on_disk(local=True)
            self.journal.compact(self._replica.snapshot)

    @property
    def in_edit(self) -> bool:
        """Whether a write is going on."""
        return self._open_edit is not None

    def is_edited(self, entry: str) -> bool:
        """Whether the write that is going on touches this entry."""
        return self._open_edit is not None and entry in self._edited

    def apply_news(self) -> bool:
        """Apply what others wrote to the journal; whether there was any. Called under the lock."""
        news = self.journal.news()
        for update in news:
            try:
                applied = self._merge(update)
            except MalformedUpdate as error:
                self.journal.set_aside(update, str(error))
                continue
            if applied.news:
                self._content.absorb(applied.touched, local=False)
        return bool(news)

    def check_schema(self) -> None:
        """Find out whether the replica is of a version that this one reads (``newer``)."""
        try:
            check_schema(self._replica.get(META, "schema"))
            self.newer = None
        except NewerDocument as error:
            self.newer = error

    def _make_ready(self, *, read: bool) -> None:
        """Under the lock: the replica is there, and holds what others wrote to the file."""
        self.check_usable()
        if not self._loaded:
            self.load()
        if self._open_edit is None:
            self.refresh()
        if read and self.newer is not None:
            raise self.newer

    def _absorb_edit(self, edit: Edit) -> None:
        touched = edit.take_touched()
        if touched:
            self._edited.update(*touched.keys.values())
            self._content.absorb(touched, local=True)

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
            self.journal.append(update, self.session, {key for keys in touched.keys.values() for key in keys})
        except BaseException:
            self._load()
            raise

    def _load(self) -> None:
        self._session = None  # a new replica has a new writer identity
        self._loaded = False  # should it fail, the next use loads again
        with NoCollections():
            self._replica = load_replica(self.journal, self._make_replica)
            self._loaded = True
            self._content.reset()


class Use:
    """Somebody uses a document: its lock is held, and its replica is up to date. It holds nothing of one use, so one
    object serves them all, inside each other too."""

    def __init__(self, document: Document, *, read: bool) -> None:
        self._document = document
        self._read = read

    def __enter__(self) -> None:
        self._document.lock.acquire()
        try:
            self._document._make_ready(read=self._read)
        except BaseException:
            self._document.lock.release()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._document.lock.release()
