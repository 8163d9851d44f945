"""A repo's file in memory: what a journal keeps of one document, shared by all the processes that have it open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from llmcrdt.ids import SessionId


@dataclass
class MemoryFile:
    """One document on one disk. ``full`` makes the next write fail, as a full disk does."""

    snapshot: bytes | None = None
    rows: list[tuple[int, str | None, bytes]] = field(default_factory=list)  # place, writer, update
    place: int = 0
    folded: int = 0  # the place that the snapshot reaches to
    full: bool = False
    erased: int = 0  # entries that were erased when the file was purged last
    broken: list[bytes] = field(default_factory=list)

    def add(self, writer: str | None, update: bytes) -> None:
        self.place += 1
        self.rows.append((self.place, writer, update))

    def copy(self) -> MemoryFile:
        return replace(self, rows=list(self.rows), broken=list(self.broken), full=False)


class MemoryJournal:
    """One process's view of the file. Implements ``document.Journal``. ``sent`` gets each update that was written."""

    def __init__(self, file: MemoryFile, sent: Callable[[bytes], None]) -> None:
        self._file = file
        self._sent = sent
        self._seen = 0
        self._writer: str | None = None

    def load(self) -> tuple[bytes | None, Sequence[bytes]]:
        self._seen, self._writer = self._file.place, None
        return self._file.snapshot, [update for _, _, update in self._file.rows]

    def append(self, update: bytes, session: SessionId, keys: Iterable[str]) -> None:
        if self._file.full:
            self._file.full = False
            raise OSError("the disk is full")
        self._file.add(session, update)
        self._writer = session
        self._sent(update)

    def news(self) -> Sequence[bytes]:
        if self._seen == self._file.place:
            return ()
        found = [u for place, writer, u in self._file.rows if place > self._seen and writer != self._writer]
        if self._file.folded > self._seen and self._file.snapshot is not None:
            found.insert(0, self._file.snapshot)
        self._seen = self._file.place
        return found

    def compact(self, snapshot: Callable[[], tuple[bytes, Sequence[bytes]]]) -> None:
        strange = any(place > self._seen and writer != self._writer for place, writer, _ in self._file.rows)
        if len(self._file.rows) < 12 or strange:
            return
        whole, pending = snapshot()
        self._file.snapshot, self._file.folded, self._file.rows = whole, self._file.place, []
        for update in pending:
            self._file.add(self._writer, update)
        self._seen = self._file.place

    def purge(self, snapshot: Callable[[], tuple[bytes, Sequence[bytes]]], erased: int) -> bool:
        if any(place > self._seen and writer != self._writer for place, writer, _ in self._file.rows):
            return False
        whole, pending = snapshot()
        self._file.place += 1
        self._file.snapshot, self._file.folded, self._file.rows = whole, self._file.place, []
        self._file.erased = erased
        for update in pending:
            self._file.add(self._writer, update)
        self._seen = self._file.place
        return True

    def purged(self) -> int:
        return self._file.erased

    def set_aside(self, update: bytes, reason: str) -> None:
        self._file.broken.append(update)
        self._file.rows = [row for row in self._file.rows if row[2] != update]
