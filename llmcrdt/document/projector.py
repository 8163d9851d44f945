"""Derives the rows of a conversation's entry index from what was read of its document."""

from __future__ import annotations

from collections.abc import Callable, Set

from ..crdt.backend import Replica
from ..ids import ContentHash, EntryId
from . import schema
from .blob import Blob, BlobStorage
from .encryption import NOWHERE, FieldAddress
from .entry import Entry, SyncState
from .entry_state import EntryState, entry_of, entry_state_of, searchable_text
from .nodes import Node
from .order import Arrangement
from .projection import KEEP, IndexChange, IndexRow, Known, pack_fields, unpack_fields, write_node, write_unreadable
from .view import ConversationView


class Projector:
    """Implements ``projection.IndexSource``. An append costs what it adds; anything that rearranges is compared
    whole."""

    def __init__(self, view: ConversationView, replica: Replica) -> None:
        self._view = view
        self._replica = replica
        self._then: Arrangement | None = None
        self._withheld: Set[EntryId] = frozenset()
        self._size = 0

    def note_written(self) -> None:
        self._then = self._view.order.now()
        self._withheld = _withheld(self._then)
        self._size = len(self._view.ids())
        self._view.created.clear()
        self._view.changed.clear()

    def changes(self, known: Known | None) -> IndexChange | None:
        now = self._view.order.now()
        if known is not None:
            return self._difference(now, known)
        return self._extension(now) if now is self._then else None

    def _extension(self, now: Arrangement) -> IndexChange:
        """The order only grew: new entries stand near the end, and what stands before them has not moved."""
        ids, created = self._view.ids(), self._view.created
        positions: dict[EntryId, int] = {}
        missing, at = len(ids) - self._size, len(ids)
        while missing:
            at -= 1
            positions[ids[at]] = at
            missing -= ids[at] in created
        pinned: set[EntryId] = set()
        for entry in created:
            frame = self._view.states[entry].head.frame
            pinned.update(other for other, _ in (frame.pins if frame else ()))
        put = set(self._view.changed)
        put |= {entry for entry in pinned if len(self._view.states[entry].versions) != 1}
        rows = [self._row(entry, positions.get(entry, KEEP), now) for entry in sorted(put)]
        moved = [(i, positions.get(i, KEEP), now.pins.get(i)) for i in sorted((pinned | positions.keys()) - put)]
        return IndexChange((), rows, moved)

    def _difference(self, now: Arrangement, known: Known) -> IndexChange:
        positions = {entry: index for index, entry in enumerate((*now.head, *now.tail))}
        put: list[IndexRow] = []
        moved: list[tuple[str, int | None, str | None]] = []
        found: set[str] = set()
        changed = self._view.changed.keys() | (self._withheld ^ _withheld(now))
        for thing in self._view.order.everything():
            entry = thing.id if isinstance(thing, Node) else thing[0]
            found.add(entry)
            was = known.get(entry)
            true = (positions.get(entry), now.pins.get(entry))
            if was is None or entry in changed or was[1] != true[1]:
                put.append(self._row(entry, true[0], now) if isinstance(thing, Node) else _unreadable(*thing))
            elif was != true:
                moved.append((entry, *true))
        return IndexChange([entry for entry in known if entry not in found], put, moved)

    def _row(self, entry: EntryId, position: int | None, now: Arrangement) -> IndexRow:
        state = self._view.states[entry]
        pin: ContentHash | None = now.pins.get(entry)
        fields = self._view.changed.get(entry) or self._replica.node(schema.ENTRIES, entry) or {}
        withheld = entry in _withheld(now)
        return IndexRow(
            entry,
            position,
            pin,
            write_node(
                state.head.node(entry),
                erased=state.erased is not None,
                version=only_version(state),
            ),
            state.erased is not None,
            b"" if withheld else pack_fields(fields),
            searchable_text(state, pin) if entry in self._view.order.sound() and not withheld else None,
        )


def _withheld(now: Arrangement) -> Set[EntryId]:
    """The entries that an erase withholds, with all that follow them: nobody finds those by their words."""
    return {i for i, hider in now.hidden_by.items() if hider.withheld} if now.withheld else frozenset()


def only_version(state: EntryState) -> ContentHash | None:
    """The only version of an entry that need not be read before somebody asks for it. One with attachments has to be:
    who erases it must know which."""
    if len(state.versions) != 1 or any(isinstance(part, Blob) for part in state.versions[0].parts):
        return None
    return state.versions[0].hash


def _unreadable(entry: EntryId, reason: str) -> IndexRow:
    return IndexRow(entry, None, None, write_unreadable(reason), False, b"", None)


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
