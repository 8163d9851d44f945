"""The clients of a simulation: real repos on real files, each with a real follower, on virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from sim_disk import Disks
from sim_network import Clock, Wire
from sim_relay import RelayProcess

import llmcrdt
from llmcrdt.document.conversation import core_of
from llmcrdt.exceptions import LLMCRDTError, RelayRefused, StoreError
from llmcrdt.ids import DocumentId
from llmcrdt.repo.sync_source import SyncSource
from llmcrdt.sync.backoff import Backoff
from llmcrdt.sync.messages import ErrorCode
from llmcrdt.sync.reconnect import HELD
from llmcrdt.sync.synchronizer import Synchronizer

URL = "ws://relay"
DAY = 86_400.0


class Machine:
    """A device with one file: its disk, its clock, the processes that have the file open. ``said``: the entries that
    were written or taken in here and are on its disk, by conversation. ``deleted``: the conversations that were deleted
    here."""

    def __init__(self, folder: Path, library: str | None, rng: random.Random) -> None:
        self.folder, self.library = folder, library
        self.path = folder / "chats.db"
        self.offset = rng.uniform(-DAY, DAY)
        self.processes: list[ClientProcess] = []
        self.backup: Path | None = None
        self.said: dict[str, set[str]] = {}
        self.deleted: set[str] = set()
        self.starts = 0


class SimulatedLink:
    """A link as a repo sees it: LinkControl."""

    url = URL
    state = "online"

    def __init__(self, process: ClientProcess) -> None:
        self._process = process

    def notify(self, document: DocumentId | None = None) -> None:
        self._process.soon(lambda: self._process.follower.local_changed(document))

    def request_compaction(self, document: DocumentId) -> Future[None]:
        future: Future[None] = Future()
        done = lambda outcome: future.set_result(None) if outcome == 0 else future.set_exception(StoreError("no fold"))  # noqa: E731
        self._process.soon(lambda: self._process.follower.request_compaction(document, done))
        return future

    def request_deletion(self, document: DocumentId, after: DocumentId) -> Future[None]:
        future: Future[None] = Future()
        done = lambda outcome: future.set_result(None) if outcome == 0 else future.set_exception(StoreError("refused"))  # noqa: E731
        self._process.soon(lambda: self._process.follower.request_deletion(document, after, done))
        return future

    def announce(self, document: DocumentId) -> None:
        self._process.soon(lambda: self._process.follower.announce(document))

    def close(self) -> None:
        pass


class ClientProcess:
    """One process, from its start to its end. Raises StoreError where it can't start."""

    def __init__(
        self, name: str, machine: Machine, disks: Disks, clock: Clock, rng: random.Random,
        relay: Callable[[], RelayProcess], died: Callable[[Machine], None],
    ) -> None:  # fmt: skip
        self.name, self.machine, self.disks, self.clock, self.rng = name, machine, disks, clock, rng
        self._relay, self._died = relay, died
        self.alive = True
        self.wire: Wire | None = None
        self.refills = 0
        self._since: float | None = None
        self._frames: list[bytes] = []
        self._version: int | None = None
        self._backoff = Backoff(rng.random)
        with disks.running(name):
            self.repo = llmcrdt.open(
                machine.path, machine.library, author=machine.folder.name,
                clock=lambda: 1.8e9 + machine.offset + clock.now, random=rng.randbytes,
            )  # fmt: skip
        self.local = SyncSource(self.repo._core, URL, None)
        self.follower = Synchronizer(self.local, rng.random, "sim")
        self.link = SimulatedLink(self)
        with disks.running(name):
            self.repo._core.links.add(self.link, None)  # type: ignore[arg-type]
        machine.processes.append(self)
        self._poll()
        self._tick()
        self.connect()

    # ---------------------------------------------------------------- its end

    def die(self) -> None:
        """kill -9."""
        self.alive = False
        self.machine.processes.remove(self)
        self.disks.kill(self.name)
        with self.disks.running(self.name):
            self.repo._core.store._connection.db.close()
        self.repo._core.resources.applying.leave()
        if self.wire is not None:
            self.wire.client_open = False
            self.wire.cut(client_after=0, relay_after=self.rng.choice((0.0, 0.2, 20.0)))

    def run(self, call: Callable[[], object]) -> bool:
        """Do something in this process. False where the disk refused it, or the power went."""
        if not self.alive:
            return False
        done = True
        try:
            with self.disks.running(self.name):
                call()
        except StoreError:
            done = False
        if self.disks.power_is_gone(self.machine.folder):
            self._died(self.machine)
            return False
        return done

    def soon(self, call: Callable[[], object]) -> None:
        """On the link's thread, in a moment."""
        self.clock.after(0, lambda: self._guarded(call))

    def _guarded(self, call: Callable[[], object]) -> None:
        """A failure on the link's thread ends the connection."""
        if not self.run(call) and self.alive:
            self._disconnect()
        self._pump()

    def _poll(self) -> None:
        if self.alive:
            if len(self.machine.processes) > 1 or self.repo._core.deletion.looks_left:
                self.run(self._look)
            self.clock.after(0.3, self._poll)

    def _tick(self) -> None:
        if self.alive:
            self.run(self.repo._core.documents.tick_presence)
            self.clock.after(2.0, self._tick)

    def _look(self) -> None:
        self._version = self.repo._core.look(self._version)

    # ---------------------------------------------------------------- the connection

    def connect(self) -> None:
        if not self.alive or self.wire is not None:
            return
        relay = self._relay()
        if not relay.alive:
            self.clock.after(self._backoff.next(), self.connect)
            return
        self._since = None
        self.wire = Wire(self.clock, self.rng, self, relay)
        self._guarded(self.follower.connected)

    def arrived(self, frame: bytes) -> None:
        if self._since is None:
            self._since = self.clock.now
        self._frames.append(frame)
        if len(self._frames) == 1:  # those that come before the link's thread gets to it are handled together
            self.clock.after(self.rng.choice((0.0, 0.0, 0.05, 0.3)), self._handle_arrived)

    def _handle_arrived(self) -> None:
        frames, self._frames = self._frames, []
        if not self.alive or not frames:
            return

        def receive() -> None:
            try:
                self.follower.receive(*frames)
            except RelayRefused as error:
                raise StoreError(str(error)) from error  # a relay without a disk ends the connection

        self._guarded(receive)
        refused = [why for why in self.follower.refused.values() if why.code != ErrorCode.GONE]
        assert not refused, refused

    def closed(self, wire: Wire) -> None:
        if self.alive and wire is self.wire:
            self._disconnect()

    def cut(self, client_after: float, relay_after: float) -> None:
        if self.wire is not None:
            self.wire.cut(client_after=client_after, relay_after=relay_after)

    def _disconnect(self) -> None:
        wire, self.wire = self.wire, None
        self._frames = []
        self.follower.disconnected()
        if wire is not None:
            wire.client_open = False
            wire.cut(client_after=0, relay_after=self.rng.choice((0.0, 0.1, 10.0)))
        if self._since is not None and self.clock.now - self._since >= HELD:
            self._backoff.reset()
        pause, self.follower.retry_after = self._backoff.next(self.follower.retry_after), 0.0
        self.clock.after(pause, self.connect)

    def _pump(self) -> None:
        if self.wire is not None:
            for frame in self.follower.drain_frames():
                self.wire.send_up(frame)
        for pause, document, opening in self.follower.drain_timers():
            self.clock.after(pause, partial(self._guarded, partial(self.follower.timer_expired, document, opening)))

    # ---------------------------------------------------------------- what it knows

    def conversations(self) -> Sequence[llmcrdt.Conversation]:
        self.repo._core.listing.refresh()
        return [self.repo.get(id_) for id_ in self.repo._core.following()[1:]]

    def is_deleted(self, conversation: str) -> bool:
        """Whether its library says so."""
        self.repo._core.listing.refresh()
        card = self.repo._core.library.card(DocumentId(conversation))
        return card is not None and card.deleted

    def entries(self, conversation: llmcrdt.Conversation) -> set[str]:
        shown = conversation.transcript()
        return {*shown.ids, *(found.entry.id for found in shown.elsewhere), *shown.malformed}

    def note_said(self) -> None:
        """All that it has now is on its disk."""
        for conversation in self.conversations():
            self.machine.said.setdefault(conversation.id, set()).update(self.entries(conversation))

    def state(self) -> dict[str, bytes]:
        """All that it has, as one update for each document."""
        found: dict[str, bytes] = {}
        self.repo._core.listing.refresh()
        for document in self.repo._core.following():
            owner = self.repo._core.library if document == self.repo.library else core_of(self.repo.get(document))
            owner.document.refresh()
            found[document] = owner.document.diff()
        return found


__all__ = ["DAY", "URL", "ClientProcess", "LLMCRDTError", "Machine"]
