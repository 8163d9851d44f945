"""Histories from elsewhere as entries whose ids, fields and places are hashes of what they say.

So two devices that import the same history make the same entries (docs/decisions/0030). An entry's id is a hash of the
conversation, of the entry before it, and of its own content: an id says all that came before. Nothing in the entry
depends on the device or the clock, so ``created_at`` is 0, and all are written by one session that is none of a device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

from ..crdt.backend import NewNode, Scalar
from ..ids import DocumentId, EntryId, SessionId, document_id, tagged_digest, text_of
from . import schema
from .canonical import exact_json
from .encryption import NOWHERE
from .entry import HiddenField, Part, Role, Version, part_to_json
from .entry_fields import field_digest, hidden_key, write_hidden, write_version_of
from .frame import EMPTY_FRAME, Frame, Pin, extend_frame_hash
from .head import Head, write_head
from .nodes import Node

ALONE = 4096
"""So many entries at the beginning of a history are each written by a client of its own, so that histories of any
length share them; a client for each entry of a longer one would slow down every write."""
TOGETHER = 64
"""Of the entries after those, so many have one client."""


def conversation_of(library: DocumentId, source: Sequence[str], deleted: int) -> DocumentId:
    """The conversation that a source is in this library. ``source``: its own id, or its first entries. ``deleted``: how
    many conversations that it was before were deleted: those never come back."""
    pieces = [piece.encode() for piece in (library, *source, *([str(deleted)] if deleted else []))]
    return document_id(tagged_digest("llmcrdt/import/conversation/1", *pieces)[:16])


def content_text(parts: Sequence[Part]) -> str:
    """The content of an entry as text."""
    return exact_json([part_to_json(part) for part in parts])


@dataclass(frozen=True)
class ImportedEntry:
    """One entry of a history, ready to be written."""

    id: EntryId
    head: Head
    version: Version
    fields: Mapping[str, Scalar]

    @property
    def pin(self) -> Pin:
        return self.id, self.version.hash

    @cached_property
    def node(self) -> NewNode:
        return NewNode(schema.ENTRIES, self.id, self.fields)


class ImportChain:
    """The entries of a history, one after the other. ``make`` the next one, as often as you like; ``add`` one to go on
    after it. ``tip``: the entry that was added last; ``count``: how many were. ``session``: the one that writes them;
    ``session_beside``: the one of ``make_beside``."""

    def __init__(self, conversation: DocumentId) -> None:
        self.session = _session("llmcrdt/import/session/1", conversation)
        self.session_beside = _session("llmcrdt/import/beside/1", conversation)
        self.tip: EntryId | None = None
        self.count = 0
        self._conversation = conversation
        self._lamport = 0
        self._hash = EMPTY_FRAME
        self._base: Pin | None = None
        self._appended: list[Pin] = []
        # The last entry that is no result, and whether a result of an older call came after it. Such a one stands with
        # its call, so what comes next has to name that entry too.
        self._said: EntryId | None = None
        self._apart = False

    def make(
        self,
        role: Role,
        parts: Sequence[Part],
        *,
        author: str = "",
        answers: tuple[EntryId, str] | None = None,
        hidden: Mapping[str, HiddenField] | None = None,
        frame_bound: Set[str] = frozenset(),
        instead_of: Node | None = None,
        replaced: EntryId | None = None,
    ) -> ImportedEntry:
        """The next entry. An assistant's has the frame of all before it, marked ``assumed``: nobody knows what was
        really sent. ``frame_bound``: the hidden fields that hold only on the list before it. ``replaced``, with the
        node ``instead_of``: the entry in whose place it stands; such a one has no frame."""
        parents = (self.tip,) if self.tip else ()
        if self._apart and self._said:
            parents = (*parents, self._said)
        lamport = 1 + max(self._lamport, instead_of.lamport if instead_of else 0)
        frame = None
        if role == "assistant" and replaced is None:
            frame = Frame(self._base, tuple(self._appended), self._hash, assumed=True)
        head = Head(
            role, author, self.session, parents, lamport, 0, alternative_of=replaced, answers=answers, frame=frame
        )
        bound = {
            name: self._to_frame(field) if name in frame_bound else field for name, field in (hidden or {}).items()
        }
        return self._entry(head, parts, bound)

    def copy(self) -> ImportChain:
        """Another one, that goes on from here along another branch."""
        other = copy(self)
        other._appended = list(self._appended)
        return other

    def make_beside(self, parts: Sequence[Part], hidden: Mapping[str, HiddenField] | None = None) -> ImportedEntry:
        """A system entry that stands beside the history: nothing of that follows it. Settings are younger than the
        history; one with hidden fields is the same beside a longer history."""
        lamport = 1 if hidden else self._lamport + 1
        return self._entry(Head("system", "", self.session_beside, (), lamport, 0), parts, hidden or {})

    def add(self, entry: ImportedEntry) -> None:
        """Go on after an entry."""
        if entry.head.frame is not None:
            self._base, self._appended = entry.pin, []
        else:
            self._appended.append(entry.pin)
        self._hash = extend_frame_hash(self._hash, [entry.pin])
        answers = entry.head.answers
        self._apart = answers is not None and (self._apart or answers[0] != self._said)
        if answers is None:
            self._said = entry.id
        self.tip, self._lamport = entry.id, entry.head.lamport
        self.count += 1

    def _to_frame(self, field: HiddenField) -> HiddenField:
        return replace(field, binding={**field.binding, "frame": self._hash})

    def _entry(self, head: Head, parts: Sequence[Part], hidden: Mapping[str, HiddenField]) -> ImportedEntry:
        written = {name: write_hidden(field) for name, field in hidden.items()}
        digests = {name: field_digest(value, NOWHERE._replace(name=name)) for name, value in written.items()}
        fields: dict[str, Scalar] = {hidden_key(name): value for name, value in written.items()}
        fields["head"] = write_head(head)
        content = content_text(parts)
        pieces = [self._conversation.encode(), content.encode()]
        for name, value in sorted(fields.items()):
            pieces += [name.encode(), value if isinstance(value, bytes) else value.encode()]
        digest = tagged_digest("llmcrdt/import/entry/1", *pieces)
        # A generation says which hidden fields came with it also where there are none: nobody can add one then.
        vouched = digests if digests or head.frame else None
        name, text = write_version_of(
            head.role, content, lamport=head.lamport, by=head.session, nonce=digest[12:24], hidden=vouched
        )
        fields[f"version:{name}"] = text
        version = Version(name, "complete", tuple(parts), head.lamport, head.session, hidden=vouched)
        return ImportedEntry(EntryId(text_of(digest[:12])), head, version, fields)


def _session(tag: str, conversation: DocumentId) -> SessionId:
    return SessionId(text_of(tagged_digest(tag, conversation.encode())[:16]))


def groups_of(entries: Iterable[tuple[int, ImportedEntry]]) -> Iterator[list[NewNode]]:
    """The groups in which entries are written, each with its place in the history: those of two devices are the same
    where they import the same history."""
    block: list[NewNode] = []
    number = -1
    for place, entry in entries:
        if block and (place < ALONE or place // TOGETHER != number):
            yield block
            block = []
        number = place // TOGETHER
        block.append(entry.node)
        if place < ALONE:
            yield block
            block = []
    if block:
        yield block
