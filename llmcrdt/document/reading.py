"""Reading: what a replica says of a conversation, entry by entry: parsed, checked, ordered. It writes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..crdt.replica import Replica, Touched
from ..exceptions import EntryNotFound, InvalidContent
from ..ids import ContentHash, EntryId, SessionId, is_entry_id
from . import schema
from .acts import Claim, Stop, read_act
from .blob import Blob, Keeper
from .entry import Entry, HiddenField, Part, ToolCall, Version
from .order import Arrangement, Hider, Order, Selection, ancestors
from .sealing import NOWHERE, Place
from .transcript import Elsewhere, Transcript


@dataclass(frozen=True)
class Readable:
    """What the document says of one entry, checked."""

    head: schema.Head
    versions: tuple[Version, ...]
    live: tuple[Part, ...]
    hidden: Mapping[str, HiddenField]
    erased: tuple[ContentHash, ...] | None = None  # the hashes that an erased entry had
    leftover: bool = False  # content stands beside an erase, and has to go


class Reading:
    """The readable side of one replica.

    ``is_local``: whether no relay has an entry yet. ``place``: where a hidden field stands, for those that are sealed.
    ``blobs``: where the contents of attachments are kept.

    Called under ``lock``; what a transcript reads later, when it is asked, takes the lock itself.
    """

    def __init__(
        self,
        is_local: Callable[[EntryId], bool],
        lock: threading.RLock,
        place: Callable[[EntryId, str], Place] = lambda entry, name: NOWHERE,
        blobs: Keeper | None = None,
    ) -> None:
        self._is_local = is_local
        self._place = place
        self._blobs = blobs
        self._lock = lock
        self._cache: dict[EntryId, Entry] = {}
        self.order = Order()
        self.readable: dict[EntryId, Readable] = {}
        self.erased: set[EntryId] = set()
        self.released: set[str] = set()
        """The blobs that entries named when they were erased; emptied by whoever takes care of them."""
        self.stops: set[EntryId] = set()
        self.claims: dict[str, dict[SessionId, Claim]] = {}

    # taking in

    def read_all(self, replica: Replica) -> None:
        """Read a whole replica; this object must be new."""
        found = [(EntryId(key), self._read(replica, EntryId(key))) for key in replica.keys(schema.ENTRIES)]
        for entry, node in sorted(found, key=lambda pair: (pair[1].head.lamport if pair[1] else 0, pair[0])):
            self._note(entry, node)
        self._read_acts(replica, replica.keys(schema.ACTS))

    def read(self, replica: Replica, touched: Touched) -> set[EntryId]:
        """Read again what a change touched. Returns the entries that say something else now."""
        changed: set[EntryId] = set()
        for key in touched.of(schema.ENTRIES):
            entry, before = EntryId(key), self.readable.get(EntryId(key))
            self._note(entry, self._read(replica, entry))
            if self.readable.get(entry) != before:
                changed.add(entry)
        self._read_acts(replica, touched.of(schema.ACTS))
        return changed

    def _read(self, replica: Replica, entry: EntryId) -> Readable | None:
        """Read one entry, or note why it can't be read (O1)."""
        fields = replica.node(schema.ENTRIES, entry)
        try:
            if fields is None or not is_entry_id(entry):
                raise InvalidContent("is not an entry")
            if "head" not in fields:
                raise InvalidContent("has no head")
            head = schema.read_head(fields["head"])
            erased = schema.erased_of(entry, fields)
            if erased is not None:
                leftover = any(name.startswith(("version:", "live:", "hidden:")) for name in fields)
                return Readable(head, (), (), {}, erased, leftover)
            versions = tuple(schema.versions_of(head.role, fields))
            if not versions and not any(name.startswith("live:") for name in fields):
                raise InvalidContent("has no content")
            return Readable(
                head,
                versions,
                schema.live_parts(fields),
                schema.hidden_of(fields, lambda name: self._place(entry, name)),
            )
        except InvalidContent as error:
            self.order.put_unreadable(entry, error.message)
            return None

    def _note(self, entry: EntryId, readable: Readable | None) -> None:
        self._cache.pop(entry, None)
        if readable is None:
            self.readable.pop(entry, None)
        else:
            before, self.readable[entry] = self.readable.get(entry), readable
            if readable.erased is not None:
                self.erased.add(entry)
                for version in before.versions if before else ():
                    self.released |= {part.hash for part in version.parts if isinstance(part, Blob)}
            self.order.put(readable.head.node(entry))

    def _read_acts(self, replica: Replica, keys: Iterable[str]) -> None:
        for key in keys:
            text = replica.get(schema.ACTS, key)
            act = schema.read_selection(key, text) or read_act(key, text)
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

    def find(self, entry: Entry | EntryId, *, shown: bool = False) -> EntryId:
        """The id of a sound entry. Raises EntryNotFound. ``shown``: it has to be in the transcript."""
        found = entry.id if isinstance(entry, Entry) else entry
        known = self.order.now().visible if shown else self.order.sound()
        if found not in known:
            where = "in the transcript of" if shown else "in"
            raise EntryNotFound(f"There is no entry {found!r} {where} this conversation.", hint="Was it synced yet?")
        return found

    def shown(self, entry: EntryId) -> Entry:
        """An entry in the version that the transcript shows."""
        return self.entry(entry, self.order.now().pins.get(entry))

    def entry(self, entry: EntryId, pin: ContentHash | None = None) -> Entry:
        """An entry in the version that a frame pins, else in its best one, else as it has grown so far."""
        sync: Literal["local", "durable"] = "local" if self._is_local(entry) else "durable"
        readable = self.readable[entry]
        version = next((v for v in readable.versions if v.hash == pin), None) or next(iter(readable.versions), None)
        hash_ = _erased_hash(readable.erased, pin) if readable.erased else version.hash if version else None
        cached = self._cache.get(entry)
        if cached and cached.sync == sync and cached.hash == hash_:
            return cached
        made = _entry(entry, readable, version, sync, hash_, self._blobs)
        self._cache[entry] = made
        return made

    def list_now(self) -> tuple[Sequence[EntryId], Callable[[EntryId], Entry]]:
        """The ids of the transcript, and how to read one of them in the version it shows."""
        now = self.order.now()
        return [*now.head, *now.tail], lambda entry: self.entry(entry, now.pins.get(entry))

    def transcript(self) -> Transcript:
        now = self.order.now()
        ids, read = self.list_now()
        frame = self.readable[now.generation].head.frame if now.generation else None
        return Transcript(
            ids,
            self._locked(read),
            tips=now.tips,
            base=(len(now.head) - 1, frame.hash) if frame else None,
            malformed=dict(now.malformed),
            elsewhere=self._elsewhere(now),
        )

    def _elsewhere(self, now: Arrangement) -> Callable[[], tuple[Elsewhere, ...]]:
        hidden_by = dict(now.hidden_by)

        def elsewhere() -> tuple[Elsewhere, ...]:
            with self._lock:
                return tuple(Elsewhere(self.entry(i), h.way, self._unseen(i, h)) for i, h in hidden_by.items())

        return elsewhere

    def _locked(self, read: Callable[[EntryId], Entry]) -> Callable[[EntryId], Entry]:
        def locked(entry: EntryId) -> Entry:
            with self._lock:
                return read(entry)

        return locked

    def _unseen(self, entry: EntryId, hider: Hider) -> bool:
        """Whether whoever decided had not seen ``entry``: it is nowhere above what they had seen."""
        sound = self.order.sound()
        after = (hider.way, *self.readable[hider.way].head.after) if hider.after is None else hider.after
        seen = {i for i in after if i in sound}
        return all(i != entry and entry not in ancestors(sound[i], sound, sound[entry].lamport) for i in seen)


def _entry(
    entry: EntryId,
    readable: Readable,
    version: Version | None,
    sync: Literal["local", "durable"],
    hash_: ContentHash | None,
    blobs: Keeper | None,
) -> Entry:
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


def _placed(part: Part, entry: EntryId, blobs: Keeper | None) -> Part:
    """A part that knows where it stands: a call its entry, an attachment where its content is kept."""
    match part:
        case ToolCall():
            return replace(part, entry=entry)
        case Blob():
            return part.kept_by(blobs)
    return part


def _erased_hash(hashes: tuple[ContentHash, ...], pin: ContentHash | None) -> ContentHash:
    return pin if pin is not None else hashes[0]
