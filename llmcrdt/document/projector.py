"""Derives the rows of a conversation's entry index from what was read of its document."""

from __future__ import annotations

from collections.abc import Callable, Set

from ..crdt.backend import Node as ReplicaNode
from ..crdt.backend import Replica
from ..ids import ContentHash, EntryId
from . import schema
from .arrangement import Arrangement
from .blob import Blob, BlobStorage
from .canonical import parse_json
from .encryption import NOWHERE, FieldAddress
from .entry import Entry, Role, SyncState
from .entry_state import EntryState, entry_of, entry_state_of, has_choice, searchable_text
from .nodes import Node
from .projection import IndexChange, IndexRow, Known, pack_fields, unpack_fields, write_node, write_unreadable
from .simple_entry import VERSION_NAME, words_of_version
from .transcript import Ids, NoCollections
from .view import ConversationView


class Projector:
    """Implements ``projection.IndexSource``. A change costs the rows that it adds or changes, and a look at the part of
    the transcript that it moves."""

    def __init__(self, view: ConversationView, replica: Replica) -> None:
        self._view = view
        self._replica = replica
        self._then: Ids | None = None
        self._pins: dict[EntryId, ContentHash] = {}
        self._pinned = 0
        self._withheld: Set[EntryId] = frozenset()
        self._malformed: Set[EntryId] = frozenset()

    def note_written(self) -> None:
        now = self._view.order.now()
        self._then = self._view.ids()
        # The pins grow in place: those that are there now are those of the latest generation's frame.
        self._pins, self._pinned = now.pins, max(0, len(now.head) - 1)
        self._withheld, self._malformed = withheld_of(now), now.malformed.keys()
        self._view.order.steady = len(self._then)
        self._view.changed.clear()

    def changes(self, known: Known | None) -> IndexChange | None:
        with NoCollections():
            now = self._view.order.now()
            if known is not None:
                return self._difference(now, known)
            return self._since(self._then, now) if self._then is not None else None

    def _since(self, then: Ids, now: Arrangement) -> IndexChange:
        """The changes of the rows that were true of ``then``."""
        view, ids = self._view, self._view.ids()
        steady = view.order.steady
        put = view.changed.keys() | (self._withheld ^ withheld_of(now)) | (self._malformed ^ now.malformed.keys())
        pinned = set(then[steady : self._pinned])
        for i in pinned.union(now.head[steady:]) - put:  # one that can't be read any more has no versions
            if now.pins.get(i) != (self._pins.get(i) if i in pinned else None) and view.has_choice(i):
                put.add(i)
        after = ids[steady:]
        # Rows are numbered as they come: in the order of the transcript they are one run of it.
        order = [*filter(put.__contains__, after), *sorted(put.difference(after))] if len(put) > 1 else put
        return IndexChange((), [self._current(i, now) for i in order], steady, after)

    def _current(self, entry: EntryId, now: Arrangement) -> IndexRow:
        reason = self._view.order.why_unreadable(entry)
        return self._row(entry, now) if reason is None else _unreadable(entry, reason)

    def _difference(self, now: Arrangement, known: Known) -> IndexChange:
        put: dict[str, IndexRow] = {}
        found: set[str] = set()
        changed = self._view.changed.keys() | (self._withheld ^ withheld_of(now))
        for thing in self._view.order.everything():
            entry = thing.id if isinstance(thing, Node) else thing[0]
            found.add(entry)
            pin = now.pins.get(entry) if isinstance(thing, Node) and self._view.has_choice(entry) else None
            if entry not in known or entry in changed or known[entry] != pin:
                put[entry] = self._row(entry, now) if isinstance(thing, Node) else _unreadable(*thing)
        shown = self._view.ids()[:]
        rows = [put.pop(i) for i in shown if i in put]  # as _since numbers them
        return IndexChange([entry for entry in known if entry not in found], [*rows, *put.values()], 0, shown)

    def _row(self, entry: EntryId, now: Arrangement) -> IndexRow:
        fields = self._view.changed.get(entry) or self._replica.node(schema.ENTRIES, entry) or {}
        findable = entry not in withheld_of(now)
        pin = now.pins.get(entry)
        version = self._view.only_version(entry)
        if version is not None and findable and (node := self._view.order.sound().get(entry)) is not None:
            short = write_node(node, erased=False, version=version)
            words = words_of_version(fields[VERSION_NAME + version])
            return IndexRow(entry, None, short, False, pack_fields(fields), words)
        row = row_of(entry, self._view.states[entry], fields, pin, findable=findable)
        return row if entry in self._view.order.sound() else row._replace(words=None)


def row_of(
    entry: EntryId,
    state: EntryState,
    fields: ReplicaNode,
    pin: ContentHash | None,
    *,
    findable: bool = True,
) -> IndexRow:
    """The row of an entry. ``findable``: nothing withholds it, so its words and its fields may stand in the index."""
    return IndexRow(
        entry,
        pin if has_choice(state) else None,
        write_node(state.head.node(entry), erased=state.erased is not None, version=only_version(state)),
        state.erased is not None,
        pack_fields(fields) if findable else b"",
        searchable_text(state, pin) if findable else None,
    )


def withheld_of(now: Arrangement) -> Set[EntryId]:
    """The entries that an erase withholds, with all that follow them: nobody finds those by their words."""
    return {i for i, hider in now.hidden_by.items() if hider.withheld} if now.withheld else frozenset()


def only_version(state: EntryState) -> ContentHash | None:
    """The only version of an entry that need not be read before somebody asks for it. One with attachments has to be:
    who erases it must know which."""
    if len(state.versions) != 1 or any(isinstance(part, Blob) for part in state.versions[0].parts):
        return None
    return state.versions[0].hash


def _unreadable(entry: EntryId, reason: str) -> IndexRow:
    return IndexRow(entry, None, write_unreadable(reason), False, b"", None)


def entry_of_row(
    entry: str,
    pin: str | None,
    fields: bytes,
    sync_state: Callable[[EntryId], SyncState] = lambda entry: "local",
    address: Callable[[EntryId, str], FieldAddress] = lambda entry, name: NOWHERE,
    blobs: BlobStorage | None = None,
) -> Entry:
    """The entry that a row of the index stands for. ``address``: where its hidden fields stand."""
    id_ = EntryId(entry)
    state = entry_state_of(id_, unpack_fields(fields), address)
    known = None if pin is None else ContentHash(pin)
    return entry_of(id_, state, known, sync_state(id_), blobs)


def origin_of_row(fields: bytes) -> tuple[Role, float]:
    """Role and time (seconds since 1970) of the entry that a row of the index stands for; it was checked before it came
    there."""
    head = parse_json(unpack_fields(fields, b"head")["head"])
    return head["role"], head["created_at"] / 1000


_ANY = EntryId("A" * 16)


def words_of_row(fields: bytes, pin: str | None) -> str | None:
    """The words of a row that has some, from its fields and its pin."""
    versions = unpack_fields(fields, b"version:")
    if len(versions) == 1:
        return words_of_version(*versions.values())
    return searchable_text(entry_state_of(_ANY, unpack_fields(fields)), None if pin is None else ContentHash(pin))
