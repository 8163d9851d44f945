"""ConversationView: a replica, parsed, checked and ordered, entry by entry. It writes nothing."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter

from ..crdt.backend import Node as ReplicaNode
from ..crdt.backend import Replica, Touched
from ..exceptions import EntryNotFound, InvalidContent, Withheld
from ..ids import ContentHash, EntryId, KeyId
from . import schema
from .blob import Blob, BlobStorage
from .branch import branch_to
from .elsewhere import list_elsewhere
from .encryption import NOWHERE, EncryptedField, FieldAddress, is_encrypted
from .entry import Entry, SyncState
from .entry_state import EntryState, EntryStates, chosen_version, entry_at_once, entry_of, entry_state_of, has_choice
from .frame import Frame
from .nodes import Node, by_age
from .order import Order
from .projection import read_nodes
from .simple_entry import read_simple_entry
from .standing_acts import StandingActs
from .transcript import EntryReader, Ids, NoCollections, Transcript

_MANY = 64
"""New entries that are read at once. Of more, the simple ones are read when somebody asks for them."""


class ConversationView:
    """One replica, as it is read.

    ``sync_state``: which relays have an entry. ``address``: that of a hidden field, for those that are encrypted.
    ``blobs``: where the contents of attachments are kept.

    Called under ``lock``; what a transcript reads later, when it is asked, takes the lock itself. ``changed`` collects
    the entries that came or were read again (with their fields, where a change brought them), until somebody empties
    it. ``acts``: the stop requests and claims; selections and keeps go into ``order``.
    """

    def __init__(
        self,
        sync_state: Callable[[EntryId], SyncState],
        lock: threading.RLock,
        address: Callable[[EntryId, str], FieldAddress] = lambda entry, name: NOWHERE,
        blobs: BlobStorage | None = None,
    ) -> None:
        self._sync_state = sync_state
        self._address = address
        self._blobs = blobs
        self._lock = lock
        self._cache: dict[EntryId, Entry] = {}
        self._unread: dict[EntryId, ContentHash] = {}  # the only version of an entry that was not read yet
        self._fields: Callable[[EntryId], ReplicaNode | None] | None = None  # reads an entry that is in ``_unread``
        self._given: weakref.WeakSet[EntryReader] = weakref.WeakSet()
        self.order = Order()
        self.states = EntryStates()
        self.erased: set[EntryId] = set()
        self.released: set[str] = set()
        """The blobs that entries named when they were erased; emptied by whoever takes care of them."""
        self.acts = StandingActs(self.order)
        self.changed: dict[EntryId, ReplicaNode | None] = {}
        self.read_since_clean: set[EntryId] | None = None
        """The entries that were read since ``erasure.is_clean`` looked; None: all."""
        self._encrypted: dict[EntryId, tuple[int, KeyId]] | None = None  # lamport and key; None until somebody asks

    # reading the replica

    def read_all(self, replica: Replica) -> None:
        """Read a whole replica; this object must be new."""
        with NoCollections():
            self._read_later(replica)
            self._read_new(replica, [EntryId(key) for key in replica.keys(schema.ENTRIES)])
            self.acts.read(replica, replica.keys(schema.ACTS))

    def _read_later(self, replica: Replica) -> None:
        """Entries that were not read are read from this replica when somebody asks for them."""
        order, address = self.order, self._address

        def read(entry: EntryId) -> EntryState:  # it names no ``self``: then nothing here is in a circle
            if not order.knows(entry):
                raise KeyError(entry)
            return entry_state_of(entry, replica.node(schema.ENTRIES, entry), address)

        self._fields = lambda entry: replica.node(schema.ENTRIES, entry)
        self.states.read = read

    def _read_new(self, replica: Replica, entries: Sequence[EntryId]) -> None:
        """Note many entries of which nothing is known, oldest first: the simple ones without reading more than
        their order needs."""
        found: list[tuple[int, EntryId, Node | EntryState | str]] = []
        for entry in entries:
            fields = replica.node(schema.ENTRIES, entry)
            simple = read_simple_entry(entry, fields) if self._encrypted is None else None
            if simple is not None:
                node, self._unread[entry] = simple
                found.append((node.lamport, entry, node))
            else:
                state = self._checked(entry, fields)
                found.append((0 if isinstance(state, str) else state.head.lamport, entry, state))
        for _, entry, read in sorted(found, key=itemgetter(0, 1)):
            if isinstance(read, Node):
                self._note_changed(entry)
                self._keep_pinned(read.frame)
                self.order.put(read)
            else:
                self._note(entry, read)

    def restore(self, replica: Replica, rows: Sequence[tuple[str, bool, str]]) -> None:
        """Take over from the entry index what ``read_all`` would find; entries are read when they are asked for."""
        with NoCollections():
            self._restore(replica, rows)

    def _restore(self, replica: Replica, rows: Sequence[tuple[str, bool, str]]) -> None:
        nodes: list[Node] = []
        unreadable: dict[EntryId, str] = {}
        for row, found in zip(rows, read_nodes(rows), strict=True):
            if isinstance(found, str):
                unreadable[EntryId(row[0])] = found
            else:
                node, erased, version = found
                nodes.append(node)
                if erased:
                    self.erased.add(node.id)
                if version is not None:
                    self._unread[node.id] = version
        self.order.restore(nodes, unreadable, [EntryId(row[0]) for row in rows if row[1]])
        self.acts.read(replica, replica.keys(schema.ACTS))
        self._read_later(replica)
        for node in nodes:
            if node.id not in self._unread:
                # It may change: a transcript must be able to show it as it was.
                self.order.erase(node.id, self.states[node.id].erases)

    def read(self, replica: Replica, touched: Touched) -> set[EntryId]:
        """Read again what a change touched. Returns the entries that say something else now."""
        changed: set[EntryId] = set()
        keys = touched.of(schema.ENTRIES)
        if len(keys) > _MANY:
            new = [i for i in map(EntryId, keys) if not self.order.knows(i) and self.order.why_unreadable(i) is None]
            with NoCollections():
                self._read_new(replica, new)
            keys = keys.difference(new)
        for key in keys:
            entry = EntryId(key)
            fields = touched.nodes.get((schema.ENTRIES, key)) or replica.node(schema.ENTRIES, key)
            if self._note(entry, self._checked(entry, fields)):
                changed.add(entry)
            if entry in self.changed:
                self.changed[entry] = fields
        self.acts.read(replica, touched.of(schema.ACTS))
        return changed

    def _checked(self, entry: EntryId, fields: ReplicaNode | None) -> EntryState | str:
        """One entry, or why it can't be read (O1)."""
        try:
            return entry_state_of(entry, fields, self._address)
        except InvalidContent as error:
            return error.message

    def _note_changed(self, entry: EntryId) -> None:
        self.changed[entry] = None
        if self.read_since_clean is not None:
            self.read_since_clean.add(entry)

    def _note(self, entry: EntryId, state: EntryState | str) -> bool:
        """Note the state of an entry, or why it can't be read. Returns whether it says something else than before; of
        one not read before, its content is compared."""
        before, only = self.states.get(entry), self._unread.get(entry)
        if before == state if isinstance(state, EntryState) else self.order.why_unreadable(entry) == state:
            return False
        if self.order.knows(entry):
            self._keep_for_transcripts(entry)
        self._note_changed(entry)
        self._cache.pop(entry, None)
        if isinstance(state, str):
            self.states.pop(entry, None)
            self._unread.pop(entry, None)
            self.erased.discard(entry)
            self.order.erase(entry, ())
            self.order.put_unreadable(entry, state)
            return before is not None or only is not None
        self._keep_pinned(state.head.frame)
        self.states[entry] = state
        if self._encrypted is not None:
            self._note_key(entry, state)
        if state.erased is not None:
            self.erased.add(entry)
            for version in before.versions if before else ():
                self.released |= {part.hash for part in version.parts if isinstance(part, Blob)}
        else:
            self.erased.discard(entry)
        self.order.put(state.head.node(entry))
        self.order.erase(entry, state.erases)
        return before is not None or only is None or [version.hash for version in state.versions] != [only]

    def _keep_pinned(self, frame: Frame | None) -> None:
        """A frame that comes may pin other versions than those that transcripts show which were made before."""
        for pinned, _ in frame.pins if frame and self._given else ():
            if self.order.knows(pinned) and self.has_choice(pinned):
                self._keep_for_transcripts(pinned)

    def _keep_for_transcripts(self, entry: EntryId) -> None:
        """Transcripts that were made before go on showing an entry as it is now; one that was never read and is erased
        by now, as erased."""
        only = None if entry in self.states else self._unread.get(entry)
        if only and self._fields is not None and f"version:{only}" not in (self._fields(entry) or ()):
            return
        for reader in tuple(self._given):
            reader.keep(entry, self.entry(entry, only) if only else None)

    # answers

    def only_version(self, entry: EntryId) -> ContentHash | None:
        """The version of a simple entry that was not read yet; None for any other."""
        return None if entry in self.states else self._unread.get(entry)

    def find_state(self, entry: EntryId) -> EntryState | None:
        """The state of an entry; None while it can't be read."""
        try:
            return self.states[entry]
        except (KeyError, InvalidContent):
            return None

    def find(self, entry: Entry | EntryId, *, shown: bool = False) -> EntryId:
        """The id of a sound entry. Raises EntryNotFound. ``shown``: it has to be in the transcript."""
        found = entry.id if isinstance(entry, Entry) else entry
        known = self.order.now().visible if shown else self.order.sound()
        if found not in known:
            where = "in the transcript of" if shown else "in"
            raise EntryNotFound(f"There is no entry {found!r} {where} this conversation.", hint="Was it synced yet?")
        return found

    def check_not_withheld(self, entry: EntryId) -> None:
        """Raises Withheld for what an erase keeps out of sight."""
        now = self.order.now()
        hider = now.hidden_by.get(entry)
        if hider and hider.withheld:
            made = entry if entry in now.withheld else hider.way
            raise Withheld(
                f"Entry {made} was made of {now.withheld[made]} by somebody who did not know that this is erased.",
                hint=f"Read it; then conv.keep({made!r}) brings it back, conv.erase({made!r}) ends it.",
            )

    def newest_key(self, replica: Replica) -> KeyId | None:
        """The key of the youngest entry with an encrypted field; None where there is none. The first call reads the
        whole replica."""
        sound = self.order.sound()
        if self._encrypted is None:
            self._encrypted = {}
            for key in replica.keys(schema.ENTRIES):
                fields = replica.node(schema.ENTRIES, key) or {}
                if EntryId(key) in sound and any(map(is_encrypted, fields.values())):
                    self._note_key(EntryId(key), self.states[EntryId(key)])
        found = [(lamport, entry, key) for entry, (lamport, key) in self._encrypted.items() if entry in sound]
        return max(found)[2] if found else None

    def _note_key(self, entry: EntryId, state: EntryState) -> None:
        keys = sorted(field.key for field in state.hidden.values() if isinstance(field, EncryptedField))
        assert self._encrypted is not None
        if keys:
            self._encrypted[entry] = (state.head.lamport, keys[-1])
        else:
            self._encrypted.pop(entry, None)

    def possibly_unsealed(self) -> list[EntryId]:
        """The sound entries, oldest first, without some that are known to be sealed."""
        return by_age((i for i in self.order.sound() if i in self.states or i not in self._unread), self.order.sound())

    def has_choice(self, entry: EntryId) -> bool:
        """Whether it matters which version of an entry is pinned."""
        return (entry in self.states or entry not in self._unread) and has_choice(self.states[entry])

    def shown(self, entry: EntryId) -> Entry:
        """An entry in the version that the transcript shows."""
        return self.entry(entry, self.order.now().pins.get(entry))

    def entry(self, entry: EntryId, pin: ContentHash | None = None) -> Entry:
        """An entry in the version that a frame pins, else in its best one, else as it has grown so far."""
        sync = self._sync_state(entry)
        cached = self._cache.get(entry)
        if entry not in self.states and (only := self._unread.get(entry)) is not None and self._fields is not None:
            if cached is None or cached.sync != sync:
                node = self.order.sound()[entry]
                fields = self._fields(entry) or {}
                self._cache[entry] = cached = entry_at_once(node, fields, only, sync, self._address, self._blobs)
            return cached
        state = self.states[entry]
        if cached and cached.sync == sync and cached.hash == chosen_version(state, pin)[1]:
            return cached
        self._cache[entry] = made = entry_of(entry, state, pin, sync, self._blobs)
        return made

    def ids(self) -> Ids:
        """The transcript as it is now, by ids."""
        now = self.order.now()
        return Ids(now.head, now.tail)

    def transcript(self, ends: Iterable[EntryId] | None = None) -> Transcript:
        """The transcript as it is now. ``ends``: the list that ends with these sound entries, shown or not, in its
        place: an answer to it is computed on exactly that, whatever else stands in the conversation."""
        if ends is not None:
            return _branch(self, ends)
        now = self.order.now()
        pins = now.pins
        frame = self.states[now.generation].head.frame if now.generation else None
        reader = EntryReader(lambda entry: self.entry(entry, pins.get(entry)))
        self._given.add(reader)
        return Transcript(
            Ids(now.head, now.tail),
            reader,
            lock=self._lock,
            tips=now.tips,
            base=(len(now.head) - 1, frame.hash) if frame else None,
            malformed=now.malformed,
            elsewhere=list_elsewhere(self.order, now, reader, self._lock),
            erased=sorted((self.states[i].erased_at, i) for i in self.erased if i in now.visible),
        )


def _branch(view: ConversationView, ends: Iterable[EntryId]) -> Transcript:
    sound, shown = view.order.sound(), view.order.now().pins
    ids, pins, base = branch_to(ends, sound)
    there = frozenset(ids)
    covered = {parent for each in ids for parent in sound[each].follows}
    frame = view.states[ids[base]].head.frame if base is not None else None
    reader = EntryReader(lambda each: view.entry(each, pins.get(each) or shown.get(each)))
    view._given.add(reader)
    return Transcript(
        Ids(ids, []),
        reader,
        lock=view._lock,
        tips=tuple(each for each in ids if each not in covered),
        base=(base, frame.hash) if base is not None and frame else None,
        malformed={},
        elsewhere=lambda: (),
        erased=sorted((view.states[i].erased_at, i) for i in view.erased if i in there),
    )
