"""The library: the list of a person's conversations, itself a document, so that a new device finds them.

Each fact (title, archived, ...) of a conversation is one key per session in the root map ``shelf``; the greatest
(lamport, session) wins, whatever the backend thinks. ``deleted`` is terminal: once true anywhere, it is true.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..crdt.backend import Replica, Touched
from ..exceptions import InvalidContent, LibraryMismatch
from ..ids import DocumentId, Random, is_document_id, is_session_id
from . import schema
from .canonical import JSON, canonical_json, parse_json
from .checks import lamport_of
from .document import Document
from .replica_loading import Journal

SHELF = "shelf"
ROOTS = (schema.META, SHELF)
REACH = 1 << 20
"""How far a fact's lamport may be beyond every smaller one."""
FACTS = ("title", "created_at", "archived", "deleted", "crdt")


@dataclass(frozen=True)
class Card:
    """The facts that the library has of one conversation. ``created_at``: seconds since 1970; ``crdt``: the kind of its
    document, "" where nobody said one."""

    id: DocumentId
    title: str = ""
    created_at: float = 0.0
    archived: bool = False
    deleted: bool = False
    crdt: str = ""


class Library:
    """The list of conversations. ``changed`` is called with the cards that a change touched. ``document``: its bytes,
    and whether it is loaded."""

    kind = "Library"

    def __init__(
        self,
        id: DocumentId,
        journal: Journal,
        make_replica: Callable[[], Replica],
        *,
        lock: threading.RLock,
        clock: Callable[[], float],
        random: Random,
        changed: Callable[[Sequence[Card]], None] = lambda cards: None,
    ) -> None:
        self._changed = changed
        self.document = Document(id, journal, make_replica, self, lock=lock, clock=clock, random=random)

    def cards(self) -> list[Card]:
        """Every conversation that was ever put here, deleted ones included."""
        with self.document.reading():
            return [self._card(conversation) for conversation in sorted(self._facts)]

    def card(self, conversation: DocumentId) -> Card | None:
        with self.document.reading():
            return self._card(conversation) if conversation in self._facts else None

    def put(self, conversation: DocumentId, **facts: JSON) -> None:
        """Say something of a conversation: ``title``, ``created_at``, ``archived``, ``deleted``, ``crdt``."""
        with self.document.editing() as edit:
            if self.document.replica.get(schema.META, "schema") is None:
                edit.put(schema.META, "schema", schema.SCHEMA)
                edit.put(schema.META, "kind", "library")
            for fact, value in facts.items():
                text = canonical_json({"lamport": self._lamport + 1, "value": value})
                edit.put(SHELF, f"{conversation}:{fact}:{self.document.session}", text)

    def reset(self) -> None:
        """Forget everything that was read, then read the whole replica."""
        self._check_schema()
        self._facts: dict[DocumentId, dict[str, tuple[int, str, JSON]]] = {}
        self._lamport = 0
        self._far: set[str] = set()
        self._touched: set[DocumentId] = set()
        for key in self.document.replica.keys(SHELF):
            self._read(key)
        self._report()

    def absorb(self, touched: Touched, *, local: bool) -> None:
        """Read what a change touched."""
        self._check_schema()
        for key in touched.of(SHELF):
            self._read(key)
        if not local:
            self._report()

    def on_disk(self, *, local: bool) -> None:
        """The changes that were read last are on disk now: report them."""
        self._report()

    def merged(self) -> None:
        """Nothing is to be written after a merge."""

    def forget(self) -> None:
        """Forget everything that was read: nothing asks for it any more."""
        self._facts = {}

    def _report(self) -> None:
        """Pass on the cards that changed, once they are on disk: a listing must not be ahead of the document."""
        touched, self._touched = self._touched, set()
        self._changed([self._card(conversation) for conversation in sorted(touched)])

    def _check_schema(self) -> None:
        self.document.check_schema()
        if self.document.replica.get(schema.META, "kind") == "conversation":
            self.document.newer = LibraryMismatch(
                f"{self.document.id} is a conversation, not a library.",
                hint="Open with the id that repo.library has elsewhere.",
            )

    def _read(self, key: str) -> None:
        """Read one fact. Malformed ones are passed over; one whose lamport is far beyond all others waits for them:
        else a single one could leave no greater number to anybody."""
        conversation, _, rest = key.partition(":")
        fact, _, session = rest.partition(":")
        if not is_document_id(conversation) or fact not in FACTS or not is_session_id(session):
            return
        try:
            said = parse_json(self.document.replica.get(SHELF, key))
        except InvalidContent:
            return
        lamport = lamport_of(said.get("lamport")) if isinstance(said, dict) else None
        if lamport is None:
            return
        if lamport > self._lamport + REACH:
            self._far.add(key)
            return
        self._lamport = max(self._lamport, lamport)
        self._touched.add(DocumentId(conversation))
        facts = self._facts.setdefault(DocumentId(conversation), {})
        known = facts.get(fact)
        terminal = fact == "deleted" and known is not None and known[2] is True
        if not terminal and (
            known is None or (lamport, session) >= known[:2] or (fact, said.get("value")) == ("deleted", True)
        ):
            facts[fact] = (lamport, session, said.get("value"))
        far, self._far = self._far, set()
        for other in far:
            self._read(other)

    def _card(self, conversation: DocumentId) -> Card:
        facts = {fact: value for fact, (_, _, value) in self._facts[conversation].items()}
        title, crdt = facts.get("title"), facts.get("crdt")
        return Card(
            conversation,
            title=title if isinstance(title, str) else "",
            created_at=schema.seconds_of(facts.get("created_at")),
            archived=facts.get("archived") is True,
            deleted=facts.get("deleted") is True,
            crdt=crdt if isinstance(crdt, str) else "",
        )
