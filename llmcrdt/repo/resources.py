"""Everything that one open repo stands on: its files, its clock and its CRDT."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType

from ..crdt.backend import Backend, Replica
from ..crdt.registry import backend
from ..document import library as library_document
from ..document import schema
from ..exceptions import CRDTMismatch, CRDTMissing, InvalidContent, LibraryMismatch, LLMCRDTError
from ..ids import DocumentId, Random, new_document_id
from ..store.applying import Applying
from ..store.keyring import Keyring
from ..store.relay_file import RelayFile
from ..store.store import SqliteStore
from .dispatcher import Dispatcher
from .kv_caches import KVCaches
from .upkeep import Upkeep

_UNTOLD = "yjs"
"""The kind of a file of before the settings told it."""

_AT_CLOSE = 4_096
"""Free pages that are given back to the disk when a repo is closed, which takes no longer than a blink."""

_KIND = "crdt:"
"""With a document's id, the setting that names its kind, where that is not the kind of the file."""

_MADE_HERE = "library made here"
"""The setting that names the library that this device made for itself, until it joins another one."""


class Resources:
    """Opened by the constructor. ``lock`` is held wherever a document of the repo is used; ``library``: the id of the
    library document. Raises NotADatabase, NewerDatabase, CRDTMismatch, LibraryMismatch, StoreError."""

    def __init__(
        self,
        path: Path,
        library: str | None,
        *,
        author: str,
        clock: Callable[[], float],
        random: Random,
        crdt: Backend,
    ) -> None:
        self.author, self.clock, self.random, self.crdt = author, clock, random, crdt
        self.lock = threading.RLock()
        self._others: dict[str, Backend] = {}
        self._kinds: dict[str, str] = {}
        self.upkeep = Upkeep(self.lock)
        self.store = SqliteStore(
            path,
            lock=self.lock,
            random=random,
            cut=self._cut,
            redact=self._redact,
            words_of=_words_of,
            locate=self._locate,
        )
        self.applying = Applying(self.store.path)
        try:
            self._check_kind()
            self.keyring = Keyring(f"{self.store.path}.keys", clock=clock, random=random)
            self.relay_file = RelayFile(f"{self.store.path}.relay")
            self.caches = KVCaches(self.store)
            self.dispatcher = Dispatcher()
            self.library = self._own_library(library)
            self.store.catalog.add(self.library, "library")
            for document in self.applying.left():
                self._set_aside_deadly(DocumentId(document))
        except BaseException:
            self.close()
            raise

    def roots(self, document: DocumentId) -> Sequence[str]:
        """The root maps of a document."""
        return library_document.ROOTS if document == self.library else schema.ROOTS

    def make_replica(self, document: DocumentId) -> Replica:
        """A new, empty replica of a document."""
        return self.crdt_of(document).make_replica(self.roots(document), self.applying.mark(document))

    def kind(self, document: DocumentId) -> str:
        """The kind of a document. It never changes."""
        if document not in self._kinds:
            self._kinds[document] = self.store.settings.get(_KIND + document) or self.crdt.kind
        return self._kinds[document]

    def crdt_of(self, document: DocumentId) -> Backend:
        """The backend of a document. Raises CRDTMissing where its package is not installed, InvalidContent where nobody
        here knows the kind."""
        kind = self.kind(document)
        if kind == self.crdt.kind:
            return self.crdt
        if kind not in self._others:
            self._others[kind] = backend(kind)
        return self._others[kind]

    def can_read(self, document: DocumentId) -> bool:
        """Whether the backend of a document is here. One that isn't is carried as it is."""
        try:
            self.crdt_of(document)
        except (CRDTMissing, InvalidContent):
            return False
        return True

    def set_kind(self, document: DocumentId, kind: str) -> None:
        """Say of which kind a document is that is new here."""
        if kind != self.crdt.kind:
            self._kinds[document] = self.store.settings.put_first(_KIND + document, kind)

    def check_kind(self, kind: str | None) -> None:
        """Raises InvalidContent for a kind that nobody knows, CRDTMissing for one that is not installed. None: that of
        the file."""
        if kind not in (None, self.crdt.kind):
            backend(str(kind))

    def forget_kind(self, document: DocumentId) -> None:
        """Look in the file for the kind again: what was to say it was not kept."""
        self._kinds.pop(document, None)

    def note_kind(self, document: DocumentId, kind: str) -> None:
        """The same as somebody else says it: it counts where nothing of the document is here."""
        if kind and kind != self.kind(document) and not self.store.updates.last_seq(document):
            self.set_kind(document, kind)

    def _cut(self, document: str, update: bytes) -> Sequence[bytes]:
        id_ = DocumentId(document)
        return self.crdt_of(id_).cut(update) if self.can_read(id_) else [update]

    def _redact(self, document: str, whole: bytes, updates: Sequence[bytes]) -> Sequence[bytes] | None:
        return self.crdt_of(DocumentId(document)).redact(whole, updates)

    def _locate(self, document: str, piece: bytes) -> Mapping[str, int]:
        return self.crdt_of(DocumentId(document)).locate(piece, schema.ENTRIES)

    def load_replica(self, document: DocumentId) -> tuple[Replica, int]:
        """All that the file has of a document, in a replica of its own, and the last seq of it."""
        replica = self.make_replica(document)
        kept = self.store.updates.since(document, 0)
        replica.load(kept.snapshot, kept.updates)
        return replica, kept.seq

    def close(self) -> None:
        """Close the files. Called under the lock where other threads use them; twice is harmless."""
        self.upkeep.close()
        if not self.store.closed:
            with suppress(LLMCRDTError):  # the disk is full, or another process writes
                self.store.shrink(_AT_CLOSE)
        self.applying.close()
        self.store.close()

    def _check_kind(self) -> None:
        """Raises CRDTMismatch where the documents of the file are of another kind; a new file gets this one."""
        with self.store.transaction():  # another process may be making the file
            own = self.store.settings.get("crdt")
            if own is None:
                made = self.store.settings.get("library") is not None
                own = _UNTOLD if made else self.store.settings.put_first("crdt", self.crdt.kind)
        if own != self.crdt.kind:
            raise CRDTMismatch(
                f"The documents of {self.store.path} are of kind {own!r}, not {self.crdt.kind!r}.",
                hint="Give another file name; nothing was changed. A backend of one's own goes to RepoCore(crdt=...).",
            )

    def _own_library(self, library: str | None) -> DocumentId:
        """The library of this file; a new file gets ``library``, or one of its own. Such a one that nothing was ever
        written in gives way to ``library``."""
        settings = self.store.settings
        with self.store.transaction():
            own = settings.get("library")
            if own is None:
                own = library or new_document_id(self.random)
                settings.put("library", own)
                settings.put(_MADE_HERE, own if library is None else "")
            elif library is not None and own != library and self._is_unused(own):
                settings.put("library", library)
                settings.put(_MADE_HERE, "")
                own = library
        if library is not None and own != library:
            raise LibraryMismatch(
                f"{self.store.path} belongs to library {own}, not {library}.",
                hint="Give a new file to join the other library; without an id or invite this one opens as it is.",
            )
        return DocumentId(own)

    def _is_unused(self, library: str) -> bool:
        """Whether this device made this library, and neither it nor any other wrote a word in it."""
        kept = self.store.updates.since(library, 0)
        written = kept.snapshot is not None or kept.updates or self.store.catalog.documents("conversation")
        return self.store.settings.get(_MADE_HERE) == library and not written

    def check_library(self) -> None:
        """Raises LibraryMismatch where another process has joined another library with this file since it was opened
        here. Called in the transaction of what is written in the library first."""
        now = self.store.settings.get("library")
        if now != self.library:
            raise LibraryMismatch(f"{self.store.path} belongs to library {now} now.", hint="Open the repo again.")

    def _set_aside_deadly(self, document: DocumentId) -> None:
        """A process died while it applied something of this document. If another one dies of that as well, it is set
        aside: nobody else has to."""
        from ..crdt.trial import SNAPSHOT, deadly  # most processes never need it

        while True:
            kept = self.store.updates.since(document, 0)
            if (kept.snapshot is None and not kept.updates) or not self.can_read(document):
                return  # after a power failure the mark may be anything
            found = deadly(self.kind(document), kept.snapshot, kept.updates, self.roots(document))
            if found is None or found == SNAPSHOT:
                return
            self.store.updates.set_aside(document, kept.updates[found], "A process died when it was applied.")


def _words_of(fields: bytes, pin: str | None) -> str | None:
    """The words of a row of the entry index."""
    words: str | None = _projector().words_of_row(fields, pin)
    return words


@cache
def _projector() -> ModuleType:
    from ..document import projector  # most processes write no row

    return projector
