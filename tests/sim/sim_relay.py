"""The relay of a simulation: real rooms over a real log, and what step_loop.py and dispatch.py do, on virtual time."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from sim_disk import Disks
from sim_network import Clock, Wire
from sim_validator import SimulatedValidator

from llmcrdt.crdt.yjs.compact import compact_updates
from llmcrdt.exceptions import LLMCRDTError
from llmcrdt.sync import codec, messages
from llmcrdt.sync.messages import (
    Ack,
    Deleted,
    Error,
    ErrorCode,
    Folded,
    Message,
    Opened,
    Push,
    Records,
    Snapshot,
    Welcome,
)
from sync_server.auth.tokens import Tokens
from sync_server.core.events import (
    CatchUpRequest,
    CatchUpResult,
    CompactRequest,
    CompactResult,
    Drop,
    Event,
    Greeted,
    Joined,
    Output,
    Send,
    Sent,
    Tick,
)
from sync_server.core.limits import Limits
from sync_server.core.rooms import Rooms
from sync_server.core.validation import (
    DiffRequest,
    DiffResponse,
    Flushed,
    Left,
    MergeRequest,
    Received,
    ReplicaDropped,
    ValidateRequest,
    Validation,
)
from sync_server.doors.base import Door, Refused
from sync_server.doors.native import NativeDoor
from sync_server.doors.yjs import YjsDoor
from sync_server.log.base import LogError
from sync_server.log.file import DATABASE
from sync_server.log.sqlite import SqliteStorage
from sync_server.workers import compactor_worker

LIMITS = Limits(
    batch=1_500, outgoing=4_000, window_records=12, window=3_000, compaction_bytes=6_000, compaction_tail=1_000,
    sweep=4, group=40, keep=12_000, catch_up_records=2, catch_up_bytes=1, catch_up_most=12, catch_up_share=1e9,
    catch_up_jobs=2, catch_up_kept=4_000,
)  # fmt: skip
_TICK = 0.5

Name = tuple[bytes, bytes, int]
"""A record's name: document, session, n."""


class Ledger:
    """The relay's word on what is on disk, by name, and which documents are deleted, since its data was last wiped
    or put back (``epoch`` counts that). ``bad``: records that must go nowhere. ``largest``: of the records, and answers
    to pages, that were ever sent to anybody."""

    def __init__(self) -> None:
        self.epoch = 0
        self.pushed: dict[Name, bytes] = {}
        self.acked: dict[Name, bytes] = {}
        self.deleted: set[bytes] = set()
        self.happened: Counter[str] = Counter()
        self.bad: set[bytes] = set()
        self.largest = 0

    def start_over(self) -> None:
        self.epoch += 1
        self.acked.clear()
        self.deleted.clear()

    def note(self, message: object) -> None:
        """The relay says this to somebody."""
        document = getattr(message, "document", None)
        match message:
            case Ack(_, session, first, count):
                for n in range(first, first + count):
                    if (message.document, session, n) not in self.pushed:
                        continue  # the relay's own record of what a page said
                    data = self.acked[message.document, session, n] = self.pushed[message.document, session, n]
                    assert data not in self.bad, "what is bad is never acknowledged"
            case Records(_, _, records):
                assert not self.bad.intersection(record.data for record in records), "what is bad goes to nobody"
                self.largest = max(self.largest, *(len(record.data) for record in records))
            case DiffResponse(_, update):
                self.largest = max(self.largest, len(update))
            case Deleted(_, messages.DELETE_DONE):
                self.deleted.add(message.document)
                self.happened["deletions done"] += 1
                return
            case Error(ErrorCode.BAD_RECORD):
                self.happened["records refused"] += 1
        if isinstance(message, Ack | Records | Snapshot | Opened | Folded):
            assert document not in self.deleted, "what was deleted takes nothing and says nothing any more"


class _Peer:
    """One connection, seen from the relay: what ``net.connection.Connection`` counts."""

    def __init__(self, number: int, wire_: Wire, door: Door) -> None:
        self.number, self.wire, self.door = number, wire_, door
        self.working = self.unreported = 0
        self.ended = False


class RelayProcess:
    """One process, from its start to its end. Raises LogError where it can't start."""

    def __init__(
        self, name: str, folder: Path, disks: Disks, clock: Clock, rng: random.Random, ledger: Ledger,
        died: Callable[[], None], deleted: Callable[[bytes], None],
    ) -> None:  # fmt: skip
        self.name, self.folder, self.disks, self.clock, self.rng, self.ledger = name, folder, disks, clock, rng, ledger
        self._died, self._deleted = died, deleted
        self.alive = True
        self.folds_work = False
        self.peak = 0
        self._events: list[Event] = []
        self._peers: dict[int, _Peer] = {}
        self._by_wire: dict[Wire, _Peer] = {}
        self._numbers = 0
        self._woken = self._checks = self._announcing = False
        self._said = 0.0
        with disks.running(name):
            self.log = SqliteStorage(folder / DATABASE)
            self.rooms = Rooms(self.log, LIMITS, rng.randbytes, Validation(available=True, always=True), catch_up=True)
        self._tokens = Tokens(folder)
        self.validator = SimulatedValidator(self.log.snapshots, LIMITS, self._put, rng)
        self._wake()
        self._tick()

    # ---------------------------------------------------------------- its end

    def die(self) -> None:
        """kill -9."""
        self.alive = False
        self.disks.kill(self.name)
        self.close_files()
        for peer in self._peers.values():
            seconds = self.rng.choice((0.0, 0.1, 5.0))
            peer.wire.cut(client_after=seconds, relay_after=0)

    def close_files(self) -> None:
        with self.disks.running(self.name):
            self.validator.die()
            self.ledger.happened["workers lost"] += self.validator.restarts
            self.log.database.connection.close()
            self.log.database.lock.close()

    # ---------------------------------------------------------------- connections

    def joined(self, wire_: Wire) -> None:
        if not self.alive:
            wire_.cut(client_after=0.01, relay_after=0)
            return
        self._numbers += 1
        door: Door = YjsDoor(wire_.path, b"", self._tokens) if wire_.path else NativeDoor(LIMITS, "relay")
        peer = _Peer(self._numbers, wire_, door)
        self._peers[peer.number] = self._by_wire[wire_] = peer
        self._put(Joined(peer.number))
        door.begin()
        if door.greeted:
            self._put(Greeted(peer.number, door.features))

    def left(self, wire_: Wire) -> None:
        peer = self._by_wire.pop(wire_, None)
        if peer is not None and self.alive:
            del self._peers[peer.number]
            self._put(Left(peer.number))

    def sent(self, wire_: Wire, weight: int) -> None:
        peer = self._by_wire.get(wire_)
        if peer is not None and self.alive:
            peer.unreported += weight
            if peer.unreported >= LIMITS.outgoing // 4:
                self._put(Sent(peer.number, peer.unreported))
                peer.unreported = 0
            self.readable(wire_)

    def readable(self, wire_: Wire) -> None:
        """Read from a connection: from a page's now or a little later, so that one read brings several frames."""
        if wire_.path:
            self.clock.after(self.rng.choice((0.0, 0.0, 0.02, 0.3)), lambda: self._read(wire_))
        else:
            self._read(wire_)

    def _read(self, wire_: Wire) -> None:
        """Hand frames to the rooms, as long as this connection may be read from."""
        peer = self._by_wire.get(wire_)
        if peer is None or not self.alive:
            return
        while wire_.inbox and peer.working <= LIMITS.window and wire_.queued <= LIMITS.outgoing and not peer.ended:
            frame = wire_.inbox.popleft()
            message = peer.door.receive(frame)
            if isinstance(message, Welcome):
                self._put(Greeted(peer.number, peer.door.features))
            if isinstance(message, Welcome | Error | Deleted):
                wire_.send_down(codec.encode(message), 0)
                continue
            if isinstance(message, Push):
                for n, data in enumerate(message.data, message.n):
                    self.ledger.pushed.setdefault((message.document, message.session, n), data)
            if message is not None:
                size = len(frame) + (LIMITS.window if isinstance(message, DiffRequest) else 0)
                if isinstance(message, MergeRequest):
                    joined, _, size = peer.door.join_following(message, frame, wire_.inbox)
                    assert isinstance(joined, MergeRequest)
                    message = joined
                    self.ledger.happened["updates merged with others"] += len(joined.updates) - 1
                peer.working += size
                self._put(Received(peer.number, message, size))

    # ---------------------------------------------------------------- the thread of the rooms

    def _put(self, event: Event) -> None:
        self._events.append(event)
        self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self.clock.after(self.rng.choice((0.0, 0.001, 0.02)), self._step)

    def _tick(self) -> None:
        if self.alive:
            if self.rooms.stuck:
                self._put(Tick())
            self.clock.after(_TICK, self._tick)

    def _step(self) -> None:
        self._woken = False
        if not self.alive:
            return
        events, self._events = self._events[: LIMITS.group], self._events[LIMITS.group :]
        with self.disks.running(self.name):
            outputs = self.rooms.step(events, self._hand_out if self.rng.random() < 0.8 else None)
        if self.disks.power_is_gone(self.folder):
            self._died()
            return
        for output in outputs:
            if isinstance(output, ValidateRequest | ReplicaDropped | Flushed):
                self.validator.put(output)
        self._check_soon()
        if self.rooms.announces and not self._announcing:
            self._announcing = True
            self.clock.after(LIMITS.presence_tick, self._announce)
        # Between the commit and what is said of it there is time to die.
        self._said = max(self._said, self.clock.now + self.rng.choice((0.0, 0.005)))
        self.clock.at(self._said, lambda taken=self.rooms.taken: self._dispatch(taken, list(outputs)))  # type: ignore[misc]
        if self._events or self.rooms.more:
            self._wake()

    def _hand_out(self, orders: Sequence[ValidateRequest | ReplicaDropped]) -> None:
        """Before the commit, whatever becomes of that."""
        for order in orders:
            self.validator.put(order)
            self._check_soon()

    def _announce(self) -> None:
        self._announcing = False
        if self.alive:
            self._put(Tick())

    def _check_soon(self) -> None:
        if not self._checks and not self.validator.idle:
            self._checks = True
            self.clock.after(self.rng.choice((0.0, 0.001, 0.05)), self._check)

    def _check(self) -> None:
        """The validator's thread."""
        self._checks = False
        if self.alive:
            with self.disks.running(self.name):
                self.validator.turn()
            self._check_soon()

    def _dispatch(self, taken: Sequence[tuple[int, int]], outputs: list[Output]) -> None:
        if not self.alive:
            return
        for number, size in taken:
            if number in self._peers:
                self._peers[number].working -= size
        for output in outputs:
            match output:
                case CompactRequest():
                    self.clock.after(self.rng.uniform(0, 0.5), lambda todo=output: self._fold(todo))  # type: ignore[misc]
                case CatchUpRequest():
                    self.clock.after(self.rng.uniform(0, 0.5), lambda todo=output: self._condense(todo))  # type: ignore[misc]
                case Drop(number, error):
                    if peer := self._peers.get(number):
                        self._end(peer, error)
                case Send(peers, message, weight):
                    self.ledger.note(message)
                    if isinstance(message, Deleted):
                        self._deleted(message.document)
                    for number in peers:
                        if peer := self._peers.get(number):
                            self._send(peer, message, weight)
                            self.peak = max(self.peak, peer.wire.queued)
        for peer in tuple(self._peers.values()):
            self.readable(peer.wire)

    def _send(self, peer: _Peer, message: Message | DiffResponse, weight: int) -> None:
        """As ``dispatch.Dispatch`` does."""
        question = peer.door.ask_back(message) if isinstance(message, DiffResponse) else None
        if question is not None:
            peer.wire.send_down(question, 0)
        try:
            frames = peer.door.encode(message)
        except Refused as e:
            return self._end(peer, e.error)
        if not frames:
            peer.unreported += weight
        for n, frame in enumerate(frames):
            peer.wire.send_down(frame, 0 if n else weight)

    def _end(self, peer: _Peer, error: Error) -> None:
        last, peer.wire.reason, _ = peer.door.close_frame(error)
        peer.ended = True
        if last is not None:
            peer.wire.send_down(last, 0)
        peer.wire.cut(client_after=0.5, relay_after=0.5)

    def _fold(self, todo: CompactRequest) -> None:
        """The worker process: it may crash."""
        if not self.alive:
            return
        records = None
        if self.folds_work or self.rng.random() < 0.8:
            try:
                with self.disks.running(self.name):
                    records = compact_updates(self.log.snapshots.contents(todo.document, todo.upto.position))
            except (LogError, LLMCRDTError):
                records = None
        self._put(CompactResult(todo.document, todo.upto, records))

    def _condense(self, todo: CatchUpRequest) -> None:
        """As the fold: it may crash, or take too long."""
        if not self.alive:
            return
        records = None
        if self.rng.random() < 0.9:
            with suppress(LogError), self.disks.running(self.name):
                data = list(self.log.snapshots.contents_around(*todo))
                records = compactor_worker.obey(b"condense", b"yjs", data)
        self.ledger.happened["parts of logs condensed"] += bool(records)
        self._put(CatchUpResult(*todo, records))


def copy_files(source: Path, target: Path) -> None:
    """A copy of a folder, made while nothing is written: databases with their write-ahead logs."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file() and not path.name.endswith(("-shm", "-lock")):
            shutil.copyfile(path, target / path.name)
