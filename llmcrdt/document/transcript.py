"""Transcript: one order of a conversation, as every replica with the same document sees it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, overload

from ..exceptions import NotSealed
from ..ids import ContentHash, EntryId, FrameHash, tagged_hash
from .entry import Entry
from .frame import EMPTY_FRAME, Frame, Pin, extend_frame_hash


class NoCollections:
    """Many objects are made that all stay: looking for garbage among them again and again costs more than they do."""

    __slots__ = ("_was",)

    def __enter__(self) -> None:
        self._was = gc.isenabled()
        gc.disable()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._was:
            gc.enable()


@dataclass(frozen=True)
class Elsewhere:
    """A sound entry that is not in the transcript. ``unseen``: whoever hid it had not seen it.

    ``way``: "replaced" where another alternative is shown: ``hidden_by`` is the entry that was selected, else the
    youngest alternative that is shown; "withheld" where it was made of an
    erased entry, ``hidden_by``, by somebody who had not seen the erase, or follows such a one, which is ``hidden_by``
    then. Those say perhaps what was erased: ``conv.keep`` brings them back, ``conv.erase`` ends them.
    """

    entry: Entry
    hidden_by: EntryId
    unseen: bool
    way: Literal["replaced", "withheld"] = "replaced"


class ListedElsewhere(Sequence[Elsewhere]):
    """The hidden entries of a transcript, oldest first. Each is read when it is asked for; ``len`` reads none."""

    def __init__(self, ids: Sequence[EntryId], read: Callable[[EntryId], Elsewhere], lock: threading.RLock) -> None:
        self._ids, self._read, self._lock = ids, read, lock
        self._found: dict[EntryId, Elsewhere] = {}

    @overload
    def __getitem__(self, index: int) -> Elsewhere: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Elsewhere, ...]: ...
    def __getitem__(self, index: int | slice) -> Elsewhere | tuple[Elsewhere, ...]:
        with self._lock:
            if isinstance(index, slice):
                with NoCollections():
                    return tuple([self._at(i) for i in self._ids[index]])
            return self._at(self._ids[index])

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[Elsewhere]:
        return iter(self[:])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (ListedElsewhere, tuple)):
            return NotImplemented
        return len(self) == len(other) and self[:] == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self._ids))

    def __repr__(self) -> str:
        return repr(self[:])

    def _at(self, entry: EntryId) -> Elsewhere:
        if entry not in self._found:
            self._found[entry] = self._read(entry)
        return self._found[entry]


class Ids(Sequence[EntryId]):
    """Two lists that only grow, one after the other, as long as they are now. Costs nothing to make."""

    __slots__ = ("_head", "_head_size", "_size", "_tail")

    def __init__(self, head: Sequence[EntryId], tail: Sequence[EntryId]) -> None:
        self._head, self._tail = head, tail
        self._head_size, self._size = len(head), len(head) + len(tail)

    @overload
    def __getitem__(self, index: int) -> EntryId: ...
    @overload
    def __getitem__(self, index: slice) -> list[EntryId]: ...
    def __getitem__(self, index: int | slice) -> EntryId | list[EntryId]:
        if isinstance(index, slice):
            start, end, step = index.indices(self._size)
            if step != 1:
                return [self[i] for i in range(start, end, step)]
            in_head = list(self._head[start : min(end, self._head_size)])
            return in_head + list(self._tail[max(0, start - self._head_size) : max(0, end - self._head_size)])
        if index < 0:
            index += self._size
        if not 0 <= index < self._size:
            raise IndexError("transcript index out of range")
        return self._head[index] if index < self._head_size else self._tail[index - self._head_size]

    def __iter__(self) -> Iterator[EntryId]:
        return iter(self[:])

    def __len__(self) -> int:
        return self._size

    def from_end(self, entry: EntryId) -> int:
        """The index of an entry, sought from the end. Raises ValueError."""
        for index in range(self._size - 1, -1, -1):
            if self[index] == entry:
                return index
        raise ValueError(entry)


class EntryReader:
    """Reads the entries of one transcript, as of the moment it was made. Called under the conversation's lock."""

    def __init__(self, read: Callable[[EntryId], Entry]) -> None:
        self._read = read
        self._kept: dict[EntryId, Entry] = {}

    def read(self, entry: EntryId) -> Entry:
        """The entry as it was."""
        return self._kept.get(entry) or self._read(entry)

    def keep(self, entry: EntryId, as_it_was: Entry | None = None) -> None:
        """An entry is about to change: go on with what can be read now, or with ``as_it_was``."""
        if entry not in self._kept:
            self._kept[entry] = as_it_was or self._read(entry)


_FIRST, _AT_ONCE = 16, 512  # entries that are read together: at first, and at most


class Transcript(Sequence[Entry]):
    """The entries of a conversation in order, as of the moment it was made. Entries are read when asked for; what
    changes before that is kept here as it was.

    ``hash`` is equal wherever the same entries stand in the same order with the same content. ``elsewhere``: entries
    that are not shown, oldest first (O4); ``elsewhere_hash`` is equal wherever it is the same. ``malformed``: entry ids
    that take no part, with the reason (O1).
    """

    def __init__(
        self,
        ids: Ids,
        reader: EntryReader,
        *,
        lock: threading.RLock,
        tips: tuple[EntryId, ...],
        base: tuple[int, FrameHash] | None,
        malformed: Mapping[EntryId, str],
        elsewhere: Callable[[], Sequence[Elsewhere]],
        erased: Sequence[tuple[int, EntryId]] = (),
    ) -> None:
        self._ids = ids
        self._reader = reader
        self._base = base  # index of the latest generation, and the hash of its frame
        self._find_elsewhere = elsewhere
        self._elsewhere: Sequence[Elsewhere] | None = None
        self._erased = tuple(erased)  # lamport of the erase, and entry; the latest last
        self._entries: dict[int, Entry] = {}
        self._lock = lock
        self.tips = tips
        self.malformed = malformed

    @property
    def ids(self) -> tuple[EntryId, ...]:
        """The ids of its entries."""
        return tuple(self._ids)

    @property
    def hash(self) -> FrameHash:
        """The frame hash of the whole list; an unsealed entry counts as one without content."""
        start, before = self._base or (0, EMPTY_FRAME)
        return extend_frame_hash(before, [(e.id, e.hash or "") for e in self[start:]])

    @property
    def elsewhere(self) -> Sequence[Elsewhere]:
        """The entries that are not shown, oldest first (O4); each is read when it is asked for."""
        if self._elsewhere is None:
            self._elsewhere = self._find_elsewhere()
        return self._elsewhere

    @property
    def elsewhere_hash(self) -> str:
        """The hash of ``elsewhere``, as docs/semantics.md (O4) has it; an unsealed entry counts as one without
        content."""
        listed = (
            (e.entry.id, e.entry.hash or "", e.hidden_by, "unseen" if e.unseen else "seen", e.way)
            for e in self.elsewhere
        )
        return tagged_hash("llmcrdt/elsewhere/1", *(piece.encode() for each in listed for piece in each))

    @property
    def erased(self) -> tuple[EntryId, ...]:
        """The ids of its entries that were erased when it was made."""
        return tuple(entry for _, entry in self._erased)

    @property
    def generation(self) -> Entry | None:
        """The latest generation; everything before it is its frame."""
        return self[self._base[0]] if self._base else None

    def frame(
        self,
        *,
        renderer: str = "",
        sent: str | None = None,
        assumed: bool = False,
        beside_unfinished: bool = False,
        restart: str = "",
    ) -> Frame:
        """This transcript as the frame of a generation. Entries still being written are left out (O2).

        It extends the latest generation's, unless something in it was erased since, or ``restart`` says why not.
        Raises NotSealed where something was written on an unfinished entry, unless ``beside_unfinished`` says that the
        generation is meant to run beside it.
        """
        pins, latest = self._pins(beside_unfinished), self.generation
        if latest is None or latest.frame is None:
            return Frame(None, tuple(pins), extend_frame_hash(EMPTY_FRAME, pins), renderer, sent, assumed)
        restarts = restart or ("erased" if self._erased and self._erased[-1][0] > latest.lamport else "")
        if restarts:
            whole = [(entry.id, ContentHash(entry.hash)) for entry in self[: self._at_base()] if entry.hash]
            whole += pins
            hash_ = extend_frame_hash(EMPTY_FRAME, whole)
            return Frame(None, tuple(whole), hash_, renderer, sent, assumed, restarts=restarts)
        hash_ = extend_frame_hash(latest.frame.hash, pins)
        if latest.sealed:
            return Frame(pins[0], tuple(pins[1:]), hash_, renderer, sent, assumed)
        return Frame(latest.frame.base, (*latest.frame.appended, *pins), hash_, renderer, sent, assumed)

    def _at_base(self) -> int:
        return self._base[0] if self._base else 0

    def until(self, entry: EntryId) -> Frame:
        """The list up to and with an entry, as a frame. Raises NotSealed where something in it is being written."""
        end = self._ids.index(entry) + 1
        start, base = 0, None
        for index in range(end - 1, -1, -1):  # the last generation before stands for all of its frame
            if (base := self[index].frame) is not None:
                start = index
                break
        pins = []
        for each in self[start:end]:
            if each.hash is None:
                raise NotSealed(
                    f"Entry {each.id} is still being written.", hint="Wait for it, or call conv.seal(entry)."
                )
            pins.append((each.id, each.hash))
        if base is None:
            return Frame(None, tuple(pins), extend_frame_hash(EMPTY_FRAME, pins))
        return Frame(pins[0], tuple(pins[1:]), extend_frame_hash(base.hash, pins))

    def parents(self) -> tuple[EntryId, ...]:
        """The parents of an entry computed on this transcript: its tips, without what is still being written."""
        if all(self._find(tip).sealed for tip in self.tips):
            return self.tips
        sealed = [entry for entry in self if entry.sealed]
        covered = {parent for entry in sealed for parent in entry.parents}
        return tuple(entry.id for entry in sorted(sealed, key=lambda e: (e.lamport, e.id)) if entry.id not in covered)

    def _pins(self, beside_unfinished: bool) -> list[Pin]:
        unsealed, pins = set(), []
        for entry in self[self._at_base() :]:
            if entry.hash is None:
                unsealed.add(entry.id)
            elif unsealed.intersection(entry.parents) and not beside_unfinished:
                raise NotSealed(
                    f"Entry {entry.id} was written on one that is still being written.",
                    hint="Wait for it, or end it with conv.seal(entry).",
                )
            else:
                pins.append((entry.id, ContentHash(entry.hash)))
        return pins

    def _find(self, entry: EntryId) -> Entry:
        return self[self._ids.from_end(entry)]

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Entry, ...]: ...
    def __getitem__(self, index: int | slice) -> Entry | tuple[Entry, ...]:
        if isinstance(index, slice):
            return self._read(range(*index.indices(len(self._ids))))
        if index < 0:
            index += len(self._ids)
        if not 0 <= index < len(self._ids):
            raise IndexError("transcript index out of range")
        if index not in self._entries:
            entry = self._ids[index]
            with self._lock:
                self._entries[index] = self._reader.read(entry)
        return self._entries[index]

    def _read(self, places: range) -> tuple[Entry, ...]:
        entries = self._entries
        with self._lock, NoCollections():
            for index in places:
                if index not in entries:
                    entries[index] = self._reader.read(self._ids[index])
        return tuple([entries[index] for index in places])

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[Entry]:
        start, count = 0, _FIRST
        while start < len(self._ids):
            yield from self[start : start + count]
            start, count = start + count, min(2 * count, _AT_ONCE)

    def __repr__(self) -> str:
        return f"<Transcript of {len(self)} entries, {self.hash}>"
