"""The entry index of conversations that are not in use is brought up to date: some at a time, so that nobody waits for
long, and with one commit for those."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from ..document.projection import RULES
from ..ids import DocumentId
from .resources import Resources

if TYPE_CHECKING:
    from ..document.core import ConversationCore

AT_ONCE: Final = 32
"""Conversations that are read before their rows are written, at most."""
TURN: Final = 0.02
"""Seconds that these may take, unless one takes more: so long the repo's lock is held."""
RESTS: Final = 0.002, 0.03
"""Seconds between two turns in the background, and the same while more comes from a relay: that goes first."""
_COMES: Final = 0.5  # seconds since something came
AT_LEAST: Final = 16
"""Conversations that are read in any case, however long they take: a busy machine does not change a small answer."""


class Documents(Protocol):
    """The objects of conversations."""

    def core(self, id_: DocumentId) -> ConversationCore | None:
        """A conversation that is open."""
        ...

    def lone_core(self, id_: DocumentId) -> ConversationCore:
        """A conversation for a moment, beside the one that may be open. Close it, and ``touch``."""
        ...

    def touch(self, document: DocumentId) -> None:
        """The store holds more of a document, or knows more of it, than its object does."""
        ...


class Indexing:
    """Any thread. ``watch`` has a thread call ``turn`` now and then."""

    def __init__(self, resources: Resources, documents: Documents, watch: Callable[[], None]) -> None:
        self._resources, self._documents, self._watch = resources, documents, watch
        self._lock, self._store = resources.lock, resources.store
        # Whether something may have come that was never read, and whether all is asked for.
        self._some_new, self._all_asked = True, False
        self._todo: list[DocumentId] = []
        self._waiting: dict[DocumentId, None] = {}
        self._came = float("-inf")

    def note_new(self) -> None:
        """Something came from elsewhere."""
        self._some_new, self._came = True, time.monotonic()

    def note_waiting(self, document: DocumentId) -> None:
        """The rows of a conversation wait: many entries came at once. They are written soon. Called under the lock."""
        self._waiting[document] = None
        self._watch()

    def refresh(self, seconds: float | None = None) -> list[DocumentId]:
        """Read what came, what came last first, for so many seconds; None: all of it. The conversations that are left,
        which are read in the background then, but for those that are only carried here."""
        every = [DocumentId(id_) for id_ in self._store.entries.stale(RULES)]
        stale = [id_ for id_ in every if self._resources.can_read(id_)]
        carried = [id_ for id_ in every if id_ not in stale]
        deadline = None if seconds is None else time.monotonic() + seconds
        done = 0
        while done < len(stale):
            if deadline is not None and done >= AT_LEAST and time.monotonic() > deadline:
                self._all_asked = True
                self._watch()
                break
            done += self._refresh_some(stale[done:AT_LEAST] or stale[done:])
        return stale[done:] + carried

    def turn(self) -> float | None:
        """In the background: read some of what was never read, or of all that somebody searched in. The seconds until
        the next turn; None where there is nothing more. News of a conversation that was read before may be one
        word of many: that is read when somebody searches."""
        if not (self._some_new or self._all_asked or self._waiting):
            return None
        with self._lock:
            index = self._store.entries
            waiting, self._waiting = [i for i in self._waiting if index.stale(RULES, i)], {}
            todo, self._todo = [*waiting, *self._todo], []
            if not todo:
                every = index.stale(RULES) if self._all_asked else index.unread(RULES)
                todo = [id_ for id_ in map(DocumentId, every) if self._resources.can_read(id_)]
            if not todo:
                self._some_new = self._all_asked = False
                return None
            try:
                self._todo = todo[self._refresh_some(todo) :]
            except BaseException:
                self._some_new = self._all_asked = False  # until something comes, or somebody searches, and is told
                raise
            return RESTS[time.monotonic() - self._came < _COMES]

    def refresh_one(self, document: DocumentId) -> None:
        """The same for one conversation, and what came for it is done (an erase)."""
        if self._resources.can_read(document):
            self._refresh_some([document])

    def _refresh_some(self, documents: list[DocumentId]) -> int:
        """The first few of them, at least one; how many. Those that are not loaded are loaded for the moment only."""
        with self._lock:
            began = time.monotonic()
            cores: list[tuple[DocumentId, ConversationCore, bool]] = []
            try:
                for document in documents[:AT_ONCE]:
                    core = self._documents.core(document)
                    if lone := core is None or not core.document.loaded:
                        core = self._documents.lone_core(document)
                    assert core is not None
                    cores.append((document, core, lone))
                    core.document.load()  # may write: what an erase has to take
                    core.document.refresh()
                    if time.monotonic() - began > TURN:
                        break
                with self._store.transaction():
                    for _, core, _ in cores:
                        core.write_index()
            finally:
                for document, core, lone in cores:
                    if lone:
                        core.document.close()
                        self._documents.touch(document)
            return len(cores)
