"""Reading: what a replica says of a conversation, entry by entry: parsed, checked, ordered. It writes nothing."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from ..crdt.backend import Node as ReplicaNode
from ..crdt.backend import Replica, Touched
from ..exceptions import EntryNotFound, InvalidContent, Withheld
from ..ids import ContentHash, EntryId, SessionId, is_entry_id
from . import schema
from .acts import Claim, Keep, Stop, read_act
from .blob import Blob, BlobStorage
from .encryption import NOWHERE, FieldAddress
from .entry import Entry, HiddenField, Part, SyncState, ToolCall, Version, visible_text
from .order import Arrangement, Erase, Hider, Node, Order, Selection, ancestors
from .projection import read_nodes
from .transcript import Elsewhere, Ids, Transcript


@dataclass(frozen=True)
class EntryState:
    """What the document says of one entry, checked."""

    head: schema.Head
    versions: tuple[Version, ...]
    live: tuple[Part, ...]
    hidden: Mapping[str, HiddenField]
    erased: tuple[ContentHash, ...] | None = None  # the hashes that an erased entry had
    leftover: bool = False  # content stands beside an erase, and has to go
    erases: tuple[Erase, ...] = ()

    @property
    def erased_at(self) -> int:
        """The lamport of the latest erase; 0 where none says it."""
        return max((mark.lamport for mark in self.erases), default=0)


class EntryStates(dict[EntryId, EntryState]):
    """What was read so far; an entry that is asked for and was not read yet is read then."""

    def __init__(self) -> None:
        self.read: Callable[[EntryId], EntryState] | None = None

    def __missing__(self, entry: EntryId) -> EntryState:
        if self.read is None:
            raise KeyError(entry)
        self[entry] = readable = self.read(entry)
        return readable


class ConversationView:
    """The readable side of one replica.

    ``sync_state``: which relays have an entry. ``place``: where a hidden field stands, for those that are sealed.
    ``blobs``: where the contents of attachments are kept.

    Called under ``lock``; what a transcript reads later, when it is asked, takes the lock itself. ``created`` and
    ``changed`` collect the entries that came, and those that were read again (with their fields, where a change brought
    them), until somebody empties them.
    """

    def __init__(
        self,
        sync_state: Callable[[EntryId], SyncState],
        lock: threading.RLock,
        place: Callable[[EntryId, str], FieldAddress] = lambda entry, name: NOWHERE,
        blobs: BlobStorage | None = None,
    ) -> None:
        self._sync_state = sync_state
        self._place = place
        self._blobs = blobs
        self._lock = lock
        self._cache: dict[EntryId, Entry] = {}
        self._unread: dict[EntryId, ContentHash] = {}  # the only version of an entry that was not read yet
        self._given: weakref.WeakSet[Transcript] = weakref.WeakSet()
        self.order = Order()
        self.readable = EntryStates()
        self.erased: set[EntryId] = set()
        self.released: set[str] = set()
        """The blobs that entries named when they were erased; emptied by whoever takes care of them."""
        self.stops: set[EntryId] = set()
        self.claims: dict[str, dict[SessionId, Claim]] = {}
        self.created: set[EntryId] = set()
        self.changed: dict[EntryId, ReplicaNode | None] = {}

    # taking in

    def read_all(self, replica: Replica) -> None:
        """Read a whole replica; this object must be new."""
        entries = [EntryId(key) for key in replica.keys(schema.ENTRIES)]
        found = [(entry, self._checked(entry, replica.node(schema.ENTRIES, entry))) for entry in entries]
        for entry, read in sorted(found, key=lambda f: (0 if isinstance(f[1], str) else f[1].head.lamport, f[0])):
            self._note(entry, read)
        self._read_acts(replica, replica.keys(schema.ACTS))

    def restore(self, replica: Replica, rows: Sequence[tuple[str, int | None, str | None, str]]) -> None:
        """Take over from the tables what ``read_all`` would find; entries are read when they are asked for."""
        with _no_collections():
            self._restore(replica, rows)

    def _restore(self, replica: Replica, rows: Sequence[tuple[str, int | None, str | None, str]]) -> None:
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
        shown = [EntryId(row[0]) for row in rows if row[1] is not None]
        pins = {EntryId(row[0]): ContentHash(row[2]) for row in rows if row[2] is not None}
        self.order.restore(nodes, unreadable, shown, pins)
        self._read_acts(replica, replica.keys(schema.ACTS))
        self.readable.read = lambda entry: self._read_again(replica, entry)
        for node in nodes:
            if node.id not in self._unread:
                # It may change: a transcript must be able to show it as it was.
                self.order.erase(node.id, self.readable[node.id].erases)

    def read(self, replica: Replica, touched: Touched) -> set[EntryId]:
        """Read again what a change touched. Returns the entries that say something else now."""
        changed: set[EntryId] = set()
        for key in touched.of(schema.ENTRIES):
            entry = EntryId(key)
            fields = touched.nodes.get((schema.ENTRIES, key)) or replica.node(schema.ENTRIES, key)
            if self._note(entry, self._checked(entry, fields)):
                changed.add(entry)
            if entry in self.changed:
                self.changed[entry] = fields
        self._read_acts(replica, touched.of(schema.ACTS))
        return changed

    def _checked(self, entry: EntryId, fields: ReplicaNode | None) -> EntryState | str:
        """One entry, or why it can't be read (O1)."""
        try:
            return entry_state_of(entry, fields, self._place)
        except InvalidContent as error:
            return error.message

    def _read_again(self, replica: Replica, entry: EntryId) -> EntryState:
        if not self.order.knows(entry):
            raise KeyError(entry)
        return entry_state_of(entry, replica.node(schema.ENTRIES, entry), self._place)

    def _note(self, entry: EntryId, readable: EntryState | str) -> bool:
        """Take in what was read of an entry. Whether that is news; of one not read before, its content is compared."""
        before, only = self.readable.get(entry), self._unread.get(entry)
        if before == readable if isinstance(readable, EntryState) else self.order.why_unreadable(entry) == readable:
            return False
        if self.order.knows(entry):
            self._keep(entry)
        else:
            self.created.add(entry)
        self.changed[entry] = None
        self._cache.pop(entry, None)
        if isinstance(readable, str):
            self.readable.pop(entry, None)
            self._unread.pop(entry, None)
            self.erased.discard(entry)
            self.order.erase(entry, ())
            self.order.put_unreadable(entry, readable)
            return before is not None or only is not None
        for pinned, _ in readable.head.frame.pins if readable.head.frame else ():
            if self._given and self.order.knows(pinned) and _has_choice(self.readable[pinned]):
                self._keep(pinned)
        self.readable[entry] = readable
        if readable.erased is not None:
            self.erased.add(entry)
            for version in before.versions if before else ():
                self.released |= {part.hash for part in version.parts if isinstance(part, Blob)}
        else:
            self.erased.discard(entry)
        self.order.put(readable.head.node(entry))
        self.order.erase(entry, readable.erases)
        return before is not None or only is None or [version.hash for version in readable.versions] != [only]

    def _keep(self, entry: EntryId) -> None:
        """Transcripts that were given out go on showing an entry as it is now."""
        only = None if entry in self.readable else self._unread.get(entry)
        for transcript in tuple(self._given):
            transcript.keep(entry, self.entry(entry, only) if only else None)

    def _read_acts(self, replica: Replica, keys: Iterable[str]) -> None:
        for key in keys:
            text = replica.get(schema.ACTS, key)
            act = schema.read_selection(key, text) or read_act(key, text)
            self.order.keep(key, act.entry if isinstance(act, Keep) else None)
            match act:
                case Selection():
                    self.order.select(act)
                case Stop():
                    self.stops.add(act.entry)
                case Claim():
                    self.claims.setdefault(act.call, {})[act.session] = act
            if act:
                self.order.saw(act.lamport)

    # giving out

    def find_readable(self, entry: EntryId) -> EntryState | None:
        """What the document says of an entry; None while it can't be read."""
        try:
            return self.readable[entry]
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

    def open_ones(self) -> list[EntryId]:
        """The sound entries, without some that are known to be sealed."""
        return [i for i in self.order.sound() if i in self.readable or i not in self._unread]

    def shown(self, entry: EntryId) -> Entry:
        """An entry in the version that the transcript shows."""
        return self.entry(entry, self.order.now().pins.get(entry))

    def entry(self, entry: EntryId, pin: ContentHash | None = None) -> Entry:
        """An entry in the version that a frame pins, else in its best one, else as it has grown so far."""
        sync = self._sync_state(entry)
        readable, cached = self.readable[entry], self._cache.get(entry)
        if cached and cached.sync == sync and cached.hash == _chosen(readable, pin)[1]:
            return cached
        self._cache[entry] = made = entry_of(entry, readable, pin, sync, self._blobs)
        return made

    def ids(self) -> Ids:
        """The transcript as it is now, by ids."""
        now = self.order.now()
        return Ids(now.head, now.tail)

    def transcript(self) -> Transcript:
        now = self.order.now()
        pins = now.pins
        frame = self.readable[now.generation].head.frame if now.generation else None
        made = Transcript(
            Ids(now.head, now.tail),
            lambda entry: self.entry(entry, pins.get(entry)),
            lock=self._lock,
            tips=now.tips,
            base=(len(now.head) - 1, frame.hash) if frame else None,
            malformed=now.malformed,
            elsewhere=self._elsewhere(now),
            erased_at=max((self.readable[i].erased_at for i in self.erased if i in now.visible), default=0),
        )
        self._given.add(made)
        return made

    def _elsewhere(self, now: Arrangement) -> Callable[[], tuple[Elsewhere, ...]]:
        hidden_by = now.hidden_by

        def elsewhere() -> tuple[Elsewhere, ...]:
            with self._lock:
                return tuple(self._listed(i, h) for i, h in hidden_by.items())

        return elsewhere

    def _listed(self, entry: EntryId, hider: Hider) -> Elsewhere:
        way: Literal["replaced", "withheld"] = "withheld" if hider.withheld else "replaced"
        return Elsewhere(self.entry(entry), hider.way, self._unseen(entry, hider), way)

    def _unseen(self, entry: EntryId, hider: Hider) -> bool:
        """Whether whoever decided had not seen ``entry``: it is nowhere above what they had seen."""
        sound = self.order.sound()
        after = (hider.way, *self.readable[hider.way].head.after) if hider.after is None else hider.after
        seen = {i for i in after if i in sound}
        return all(i != entry and entry not in ancestors(sound[i], sound, sound[entry].lamport) for i in seen)


@contextmanager
def _no_collections() -> Iterator[None]:
    """Many objects that all stay: looking for garbage among them again and again costs a quarter of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def entry_state_of(
    entry: EntryId,
    fields: ReplicaNode | None,
    place: Callable[[EntryId, str], FieldAddress] = lambda entry, name: NOWHERE,
) -> EntryState:
    """What the fields of one entry say. Raises InvalidContent: the entry is malformed (O1)."""
    if fields is None or not is_entry_id(entry):
        raise InvalidContent("is not an entry")
    if "head" not in fields:
        raise InvalidContent("has no head")
    head = schema.read_head(fields["head"])
    erased = schema.erased_of(entry, fields)
    if erased is not None:
        leftover = any(name.startswith(("version:", "live:", "hidden:")) for name in fields)
        return EntryState(head, (), (), {}, erased, leftover, schema.erases_of(fields))
    versions = tuple(schema.versions_of(head.role, fields))
    if not versions and not schema.is_live(fields):
        raise InvalidContent(schema.why_no_version(head.role, fields))
    hidden = schema.hidden_of(fields, lambda name: place(entry, name))
    return EntryState(head, versions, schema.live_parts(fields), hidden)


def entry_of(
    entry: EntryId,
    readable: EntryState,
    pin: ContentHash | None,
    sync: SyncState,
    blobs: BlobStorage | None = None,
) -> Entry:
    """The entry in the version that ``pin`` names, else in its best one, else as it has grown so far."""
    version, hash_ = _chosen(readable, pin)
    head = readable.head
    parts = version.parts if version else readable.live
    return Entry(
        id=entry,
        role=head.role,
        parts=tuple(_placed(part, entry, blobs) for part in parts),
        status="erased" if readable.erased else version.status if version else "streaming",
        hash=hash_,
        author=head.author,
        session=head.session,
        parents=head.parents,
        lamport=head.lamport,
        created_at=head.created_at / 1000,
        after=head.after,
        alternative_of=head.alternative_of,
        answers=head.answers,
        frame=head.frame,
        model=head.model or {},
        covers=head.covers,
        usage=version.usage if version else {},
        hidden=readable.hidden,
        sync=sync,
    )


def _placed(part: Part, entry: EntryId, blobs: BlobStorage | None) -> Part:
    """A part that knows where it stands: a call its entry, an attachment where its content is kept."""
    match part:
        case ToolCall():
            return replace(part, entry=entry)
        case Blob():
            return part.kept_by(blobs)
    return part


def words_of(readable: EntryState, pin: ContentHash | None) -> str | None:
    """The visible text of the version to show; None where nothing is sealed, or it was erased."""
    version, _ = _chosen(readable, pin)
    return visible_text(version.parts) if version and readable.erased is None else None


def _chosen(readable: EntryState, pin: ContentHash | None) -> tuple[Version | None, ContentHash | None]:
    """The version to show, and the hash that the entry has then."""
    version = next((v for v in readable.versions if v.hash == pin), None) or next(iter(readable.versions), None)
    if readable.erased:
        return version, _erased_hash(readable.erased, pin)
    return version, version.hash if version else None


def _has_choice(readable: EntryState) -> bool:
    """Whether it matters which version is pinned."""
    return len(readable.versions) > 1 or readable.erased is not None


def _erased_hash(hashes: tuple[ContentHash, ...], pin: ContentHash | None) -> ContentHash:
    return pin if pin is not None else hashes[0]
