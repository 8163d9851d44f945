"""Devices of a simulated person: one conversation each, in memory or in a real SQLite file, with a clock of its own."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from sim_kinds import KINDS
from sim_memory import MemoryFile, MemoryJournal

import llmcrdt
from llmcrdt.document.conversation import Conversation, core_of
from llmcrdt.document.core import ConversationCore
from llmcrdt.document.observers import Change
from llmcrdt.document.stream import Stream
from llmcrdt.document.transcript import Transcript
from llmcrdt.testing.host import LoneHost

DAY = 86_400.0


class Device:
    """One process with the conversation open. ``inbox``: updates on their way to it. ``watched``: what an observer
    believes to be visible, from the changes it was told alone."""

    conv: Conversation

    def __init__(self, name: str, rng: random.Random, sent: Callable[[Device, bytes], None], crdt: str) -> None:
        self.name = name
        self.crdt = crdt
        self.rng = rng
        self.sent = sent
        self.offset = rng.uniform(-DAY, DAY)
        self.inbox: list[bytes] = []
        self.streams: list[Stream] = []
        self.frame: Transcript | None = None
        self.watched: set[str] = set()

    @property
    def core(self) -> ConversationCore:
        return core_of(self.conv)

    def clock(self) -> float:
        return 1.8e9 + self.offset

    def opened(self) -> None:
        """After the conversation was opened: nothing of an earlier process is left."""
        self.streams, self.frame = [], None
        self.watched = set(self.conv.transcript().ids)
        self.conv.observe(self._hear)

    def _hear(self, change: Change) -> None:
        added = {entry.id for entry in change.added}
        assert not added & self.watched, "an entry is told as added once"
        assert set(change.removed) <= self.watched, "what is told as removed was there"
        assert {e.id for e in change.changed} <= self.watched, "what is told as changed was there"
        self.watched = (self.watched | added) - set(change.removed)

    # what happens to the process and its file

    def kill(self) -> None:
        """The process ends without a word, and is started again."""
        raise NotImplementedError

    def restart(self) -> None:
        """The process ends properly, and is started again."""
        raise NotImplementedError

    def backup(self) -> None:
        """Somebody copies the file away."""
        raise NotImplementedError

    def roll_back(self) -> bool:
        """The file is replaced by the copy, and opened again. False where there is none."""
        raise NotImplementedError

    def copy(self, name: str) -> Device:
        """Somebody copies the file to another device and opens it there."""
        raise NotImplementedError

    def beside(self, name: str) -> Device | None:
        """A second process on the same file."""
        raise NotImplementedError

    def fill_disk(self) -> bool:
        """The next write fails. False where that can't be made to happen."""
        return False

    def stored(self) -> list[bytes]:
        """All bytes that are kept for it."""
        raise NotImplementedError

    def close(self) -> None:
        self.conv.close()


class MemoryDevice(Device):
    """A conversation over a file in memory: fast, and decided by the seed alone."""

    def __init__(
        self,
        name: str,
        rng: random.Random,
        sent: Callable[[Device, bytes], None],
        file: MemoryFile | None = None,
        *,
        crdt: str,
    ) -> None:
        super().__init__(name, rng, sent, crdt)
        self.file = file or MemoryFile()
        self._backup: MemoryFile | None = None
        self._open()

    def _open(self) -> None:
        host = LoneHost(
            MemoryJournal(self.file, lambda update: self.sent(self, update)),
            lambda: KINDS[self.crdt].replica(self.rng),
            author=self.name,
            clock=self.clock,
            random=self.rng.randbytes,
            kind=self.crdt,
        )
        self.conv = Conversation(ConversationCore(llmcrdt.ids.DocumentId("sim"), host))
        self.opened()

    def kill(self) -> None:
        self._open()

    def restart(self) -> None:
        self.conv.close()
        self._open()

    def backup(self) -> None:
        self._backup = self.file.copy()

    def roll_back(self) -> bool:
        if self._backup is None:
            return False
        self.file = self._backup.copy()
        self._open()
        return True

    def copy(self, name: str) -> MemoryDevice:
        return MemoryDevice(name, self.rng, self.sent, self.file.copy(), crdt=self.crdt)

    def beside(self, name: str) -> MemoryDevice:
        return MemoryDevice(name, self.rng, self.sent, self.file, crdt=self.crdt)

    def stored(self) -> list[bytes]:
        return [self.file.snapshot or b"", *(update for _, _, update in self.file.rows)]

    def fill_disk(self) -> bool:
        self.file.full = True
        return True


class FileDevice(Device):
    """A repo on a real SQLite file. A killed process leaves the file and its write-ahead log as they are."""

    def __init__(
        self,
        name: str,
        rng: random.Random,
        sent: Callable[[Device, bytes], None],
        path: Path,
        conversation: str | None = None,
        *,
        crdt: str,
    ) -> None:
        super().__init__(name, rng, sent, crdt)
        self.path = path
        self._backup: Path | None = None
        self._copies = 0
        self._open(conversation)

    def _open(self, conversation: str | None) -> None:
        self.repo = llmcrdt.open(self.path, author=self.name, clock=self.clock, random=self.rng.randbytes)
        self.conv = self.repo.join(conversation, crdt=self.crdt) if conversation else self.repo.create(crdt=self.crdt)
        self.core.observers.dispatch = lambda call: call()  # at once, so that the schedule is decided by its seed
        self.opened()

    def _move(self, to: Path) -> None:
        old, id_ = self.repo, self.conv.id
        for ending in ("", "-wal"):
            if Path(f"{self.path}{ending}").exists():
                shutil.copyfile(f"{self.path}{ending}", f"{to}{ending}")
        old.close()
        self.path = to
        self._open(id_)

    def _new_path(self) -> Path:
        self._copies += 1
        return self.path.with_name(f"{self.name}-{self._copies}.db")

    def kill(self) -> None:
        self._move(self._new_path())

    def restart(self) -> None:
        id_ = self.conv.id
        self.repo.close()
        self._open(id_)

    def backup(self) -> None:
        self._backup = self._new_path()
        for ending in ("", "-wal"):
            if Path(f"{self.path}{ending}").exists():
                shutil.copyfile(f"{self.path}{ending}", f"{self._backup}{ending}")

    def roll_back(self) -> bool:
        if self._backup is None:
            return False
        id_ = self.conv.id
        self.repo.close()
        self.path, backup = self._new_path(), self._backup
        for ending in ("", "-wal"):
            if Path(f"{backup}{ending}").exists():
                shutil.copyfile(f"{backup}{ending}", f"{self.path}{ending}")
        self._open(id_)
        return True

    def copy(self, name: str) -> FileDevice:
        path = self.path.with_name(f"{name}.db")
        for ending in ("", "-wal"):
            if Path(f"{self.path}{ending}").exists():
                shutil.copyfile(f"{self.path}{ending}", f"{path}{ending}")
        return FileDevice(name, self.rng, self.sent, path, self.conv.id, crdt=self.crdt)

    def beside(self, name: str) -> FileDevice | None:
        return FileDevice(name, self.rng, self.sent, self.path, self.conv.id, crdt=self.crdt)

    def stored(self) -> list[bytes]:
        return [
            Path(f"{self.path}{ending}").read_bytes()
            for ending in ("", "-wal")
            if Path(f"{self.path}{ending}").exists()
        ]

    def close(self) -> None:
        self.repo.close()
