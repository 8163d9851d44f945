"""Followers, rooms and a real log, driven frame by frame: whatever is delayed, cut, wiped or restored, all replicas end
with the same set, and at every step a device's outbox and the relay's log together hold all that the device has."""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llmcrdt.ids import document_bytes, document_id
from llmcrdt.sync import codec, connection_sync
from llmcrdt.sync.messages import Welcome
from llmcrdt.sync.synchronizer import Synchronizer
from llmcrdt.testing.local_documents import BlobDocuments, pack, unpack
from sync_server.core.events import CatchUpRequest, CatchUpResult, CompactRequest, CompactResult, Drop, Joined, Sent
from sync_server.core.limits import Limits
from sync_server.core.rooms import Rooms
from sync_server.core.validation import Left, Received
from sync_server.doors.native import NativeDoor
from sync_server.log.sqlite import SqliteStorage

# No power fails here, so where the system has a disk in memory, its fsync is enough.
MEMORY = "/dev/shm"
DEVICES = 3
DOCUMENTS = [document_id(bytes([n]) * 16) for n in (1, 2)]
LIMITS = Limits(
    batch=60, outgoing=600, window_records=8, window=200, compaction_bytes=60, compaction_tail=20, sweep=3,
    catch_up_records=2, catch_up_bytes=1, catch_up_most=6, catch_up_share=1e9, catch_up_jobs=2, catch_up_kept=2_200,
)  # fmt: skip


@dataclass
class Wire:
    """One connection: frames under way in both directions, and the relay's side of it."""

    peer: int
    door: NativeDoor = field(default_factory=lambda: NativeDoor(LIMITS, "relay"))
    up: deque[bytes] = field(default_factory=deque)
    down: deque[tuple[bytes, int]] = field(default_factory=deque)


class Network:
    """A relay and its devices, without sockets. Nothing moves unless it is told to."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.files = 0
        self.devices = [BlobDocuments(seed * 100 + n) for n in range(DEVICES)]
        self.synchronizers = [Synchronizer(d, self.random.random) for d in self.devices]
        for device in self.devices:
            for document in DOCUMENTS:
                device.follow(document)
        self.wires: dict[int, Wire] = {}
        self.timers: list[tuple[int, str, int]] = []
        self.peers = 0
        self.to_fold: list[CompactRequest] = []
        self.to_condense: list[CatchUpRequest] = []
        self.asked: list[int] = []
        self.answers: list[tuple[int, int]] = []
        self.log = self._new_log()

    def _new_log(self, backup: Path | None = None) -> SqliteStorage:
        self.files += 1
        folder = self.folder / str(self.files)
        folder.mkdir()
        if backup:
            shutil.copy(backup, folder / "relay.db")
        log = SqliteStorage(folder / "relay.db")
        self.to_fold, self.to_condense = [], []
        self.rooms = Rooms(log, LIMITS, self.random.randbytes, catch_up=True)
        return log

    def relay_from(self, backup: Path | None) -> None:
        """Another log takes the relay's place: an empty one, or an old copy."""
        for device in tuple(self.wires):
            self.cut(device)
        self.log.close()
        self.log = self._new_log(backup)

    def backup(self) -> Path:
        path = self.folder / f"backup-{self.files}-{self.random.random()}"
        with sqlite3.connect(self.log.database.path) as source, sqlite3.connect(path) as target:
            source.backup(target)
        source.close()
        target.close()
        return path

    def connect(self, device: int) -> None:
        if device in self.wires:
            return
        self.peers += 1
        self.wires[device] = Wire(self.peers)
        self.synchronizers[device].connected()
        self.step([Joined(self.peers)])
        self.collect(device)

    def cut(self, device: int) -> None:
        connection = self.wires.pop(device, None)
        if connection:
            self.synchronizers[device].disconnected()
            self.step([Left(connection.peer)])

    def collect(self, device: int) -> None:
        """Frames go on the wire, timers on the list."""
        if device in self.wires:
            self.wires[device].up.extend(self.synchronizers[device].drain_frames())
        self.timers += (
            (device, document, opening) for _, document, opening in self.synchronizers[device].drain_timers()
        )

    def put(self, device: int, document: str, blob: bytes) -> None:
        self.devices[device].put(document, blob)
        self.synchronizers[device].local_changed(document)
        self.collect(device)

    def to_relay(self, moves: list[tuple[int, int]]) -> None:
        """Some frames of some devices, all in one step of the relay."""
        events = []
        for device, count in moves:
            connection = self.wires.get(device)
            for _ in range(count):
                if connection is None or not connection.up:
                    break
                message = connection.door.receive(connection.up.popleft())
                if isinstance(message, Welcome):
                    connection.down.append((codec.encode(message), 0))
                else:
                    events.append(Received(connection.peer, message))
        self.step(events)

    def step(self, events: list) -> None:
        for output in self.rooms.step(events):
            if isinstance(output, CompactRequest):
                self.to_fold.append(output)
                continue
            if isinstance(output, CatchUpRequest):
                self.to_condense.append(output)
                continue
            assert not isinstance(output, Drop), output.error
            assert output.weight <= 1000
            for connection in self.wires.values():
                if connection.peer in output.peers:
                    connection.down.append((codec.encode(output.message), output.weight))

    def to_device(self, device: int, count: int) -> None:
        connection = self.wires.get(device)
        if connection is None:
            return
        came = [connection.down.popleft() for _ in range(min(count, len(connection.down)))]
        self.synchronizers[device].receive(*(frame for frame, _ in came))
        self.collect(device)
        self.step([Sent(connection.peer, sum(weight for _, weight in came))])

    def fire(self) -> None:
        timers, self.timers = self.timers, []
        for device, document, opening in timers:
            self.synchronizers[device].timer_expired(document, opening)
            self.collect(device)

    def fold(self, works: bool = True) -> None:
        """The folder gets its turn: what a document's blobs fold to is all of them in one record, or in two."""
        todo, self.to_fold = self.to_fold, []
        for document, upto in todo:
            blobs = {b for data in self.log.snapshots.contents(document, upto.position) for b in unpack(data)}
            ordered = sorted(blobs)
            records = [pack(part) for part in (ordered[:5], ordered[5:]) if part]
            self.step([CompactResult(document, upto, records if works else None)])

    def condense(self, works: bool = True) -> None:
        """The condenser gets its turn: what comes of the records is all their blobs, in one or two."""
        todo, self.to_condense = self.to_condense, []
        for part in todo:
            pieces = list(self.log.snapshots.contents_around(*part))
            tail = pieces[len(pieces) - pieces[::-1].index(b"") :] if pieces else []
            ordered = sorted({b for data in tail for b in unpack(data)})
            records = [pack(part) for part in (ordered[:3], ordered[3:]) if part]
            self.step([CatchUpResult(*part, records if works else None)])

    def ask_fold(self, device: int, document: str) -> None:
        number = len(self.asked)
        self.asked.append(device)
        self.synchronizers[device].request_compaction(document, lambda outcome: self.answers.append((number, outcome)))
        self.collect(device)

    def settle(self, devices: Sequence[int] = range(DEVICES)) -> None:
        """Connect these devices, and let everything of theirs arrive."""
        for device in devices:
            self.connect(device)
        for _ in range(10_000):
            self.to_relay([(device, 3) for device in devices])
            for device in devices:
                self.to_device(device, 3)
            self.fire()
            self.fold()
            self.condense()
            if self.rooms.more:
                self.step([])
            elif (
                not self.to_fold
                and not self.to_condense
                and not any(self.wires[device].up or self.wires[device].down for device in devices)
            ):
                return
        raise AssertionError("it never comes to rest")

    def relay_blobs(self, document: str, position: int | None = None) -> set[bytes]:
        """All blobs of a log, or (about) those up to a position: what was folded isn't told apart."""
        raw = document_bytes(document)
        stored = self.log.records.read(raw, 0, 1 << 30, 1 << 20)
        folded = self.log.snapshots.get(raw)
        before = self.log.snapshots.contents(raw, folded.position) if folded else ()
        tail = (s.record.data for s in stored if position is None or s.position <= position)
        return {b for data in (*before, *tail) for b in unpack(data)}


class SyncMachine(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 1000))
    def start(self, seed: int) -> None:
        self._folder = tempfile.TemporaryDirectory(dir=MEMORY if Path(MEMORY).is_dir() else None)
        self.net = Network(Path(self._folder.name), seed)
        # On half of them documents that come in part are soon too much together, and come one after the other.
        self._patch = pytest.MonkeyPatch()
        if seed % 2:
            self._patch.setattr(connection_sync, "ROOM", 40)
            self._patch.setattr(connection_sync, "LOOK", 1)
        self.blobs = 0
        self.backups: list[Path] = []

    def teardown(self) -> None:
        if not hasattr(self, "net"):
            return
        try:
            self.check_convergence()
        finally:
            self._patch.undo()
            self.net.log.close()
            self._folder.cleanup()

    @rule(device=st.integers(0, DEVICES - 1), document=st.sampled_from(DOCUMENTS), count=st.integers(1, 12))
    def put(self, device: int, document: str, count: int) -> None:
        for _ in range(count):
            self.blobs += 1
            self.net.put(device, document, b"%d" % self.blobs)

    @rule(device=st.integers(0, DEVICES - 1))
    def connect(self, device: int) -> None:
        self.net.connect(device)

    @rule(device=st.integers(0, DEVICES - 1))
    def cut(self, device: int) -> None:
        self.net.cut(device)

    @rule(moves=st.lists(st.tuples(st.integers(0, DEVICES - 1), st.integers(1, 6)), min_size=1, max_size=4))
    def to_relay(self, moves: list[tuple[int, int]]) -> None:
        self.net.to_relay(moves)

    @rule(device=st.integers(0, DEVICES - 1), count=st.integers(1, 8))
    def to_device(self, device: int, count: int) -> None:
        self.net.to_device(device, count)

    @rule()
    def fire(self) -> None:
        self.net.fire()

    @rule(works=st.sampled_from([True, True, False]))
    def fold(self, works: bool) -> None:
        self.net.fold(works)

    @rule(works=st.sampled_from([True, True, False]))
    def condense(self, works: bool) -> None:
        self.net.condense(works)

    @rule(device=st.integers(0, DEVICES - 1), document=st.sampled_from(DOCUMENTS))
    def ask_fold(self, device: int, document: str) -> None:
        self.net.ask_fold(device, document)

    @rule()
    def more(self) -> None:
        self.net.step([])

    @rule()
    def settle(self) -> None:
        self.net.settle()

    @rule(device=st.integers(0, DEVICES - 1))
    def settle_one(self, device: int) -> None:
        self.net.settle([device])

    @rule(device=st.integers(0, DEVICES - 1))
    def restart(self, device: int) -> None:
        self.net.cut(device)
        self.net.devices[device].restart()

    @rule(device=st.integers(0, DEVICES - 1))
    def wipe_device(self, device: int) -> None:
        self.net.cut(device)
        for document in DOCUMENTS:
            self.net.devices[device].forget(document)
            self.net.devices[device].follow(document)

    @rule()
    def wipe_relay(self) -> None:
        self.net.relay_from(None)

    @rule()
    def backup(self) -> None:
        self.backups.append(self.net.backup())

    @precondition(lambda self: self.backups)
    @rule(data=st.data())
    def restore_relay(self, data: st.DataObject) -> None:
        self.net.relay_from(data.draw(st.sampled_from(self.backups)))

    @invariant()
    def nothing_lost(self) -> None:
        """If the relay knows a device's cursor, the log up to there and the outbox hold all that the device has."""
        for device in self.net.devices:
            for document in DOCUMENTS:
                doc, raw = device[document], document_bytes(document)
                head = self.net.log.records.head(raw)
                if doc.cursor is None or head is None or head.cursor.log != doc.cursor.log:
                    continue
                if self.net.log.records.holds(raw, doc.cursor):
                    waiting = {b for w in doc.outbox for b in unpack(w.record.data)}
                    assert self.net.relay_blobs(document, doc.cursor.position) | waiting >= set(doc.blobs)

    def check_convergence(self) -> None:
        net = self.net
        everything = {
            document: net.relay_blobs(document).union(*(d.blobs(document) for d in net.devices))
            for document in DOCUMENTS
        }
        done = []
        for device, synchronizer in enumerate(net.synchronizers):
            synchronizer.add_waiter(lambda why, device=device: done.append((device, why)))
            net.collect(device)
        net.settle()
        for document in DOCUMENTS:
            assert [d.blobs(document) for d in net.devices] == [everything[document]] * DEVICES
            assert net.relay_blobs(document) == everything[document]
            assert not any(d[document].outbox or d[document].quarantine for d in net.devices)
        assert {number for number, _ in net.answers} == set(range(len(net.asked)))
        assert len(net.answers) == len(net.asked)
        assert sorted(done) == [(device, None) for device in range(DEVICES)]
        before = self.refills(everything)
        for device in range(DEVICES):
            net.cut(device)
        net.settle()
        assert self.refills(everything) == before

    def refills(self, everything: dict[str, set[bytes]]) -> int:
        """How often a device had to fill the relay. A log that nobody wrote to is not kept, so it doesn't count."""
        return sum(d[document].refills for d in self.net.devices for document in DOCUMENTS if everything[document])


SyncMachine.TestCase.settings = settings(
    max_examples=250,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestSyncMachine = SyncMachine.TestCase


@pytest.mark.parametrize("wiped", [True, False])
def test_a_cut_while_another_log_is_taken_in_loses_nothing(tmp_path: Path, wiped: bool) -> None:
    """A cursor must not be remembered before what the log lacks stands in the outbox. An old copy has the same id."""
    net, document = Network(tmp_path, 1), DOCUMENTS[0]
    net.put(1, document, b"b")
    net.settle([1])
    backup = net.backup()
    net.put(0, document, b"a")
    net.settle([0])
    net.relay_from(None if wiped else backup)
    net.put(1, document, b"c")
    net.put(1, document, b"d")
    net.settle([1])
    net.connect(0)
    net.to_relay([(0, 20)])
    net.condense()
    net.to_device(0, 20)
    assert net.devices[0].blobs(document) == {b"a", b"b", b"c", b"d"}
    net.cut(0)
    net.settle()
    assert net.devices[1].blobs(document) == net.relay_blobs(document) == {b"a", b"b", b"c", b"d"}
    net.log.close()


def test_a_relay_that_knows_a_cursor_again_is_not_taken_at_its_word(tmp_path: Path) -> None:
    """Records taken in from another log meanwhile, until a cut, are not in the log that is back."""
    net, document = Network(tmp_path, 1), DOCUMENTS[0]
    net.put(0, document, b"a")
    net.settle([0])
    backup = net.backup()
    net.relay_from(None)
    net.put(1, document, b"b")
    net.settle([1])
    net.connect(0)
    net.to_relay([(0, 20)])
    net.to_device(0, 20)
    assert net.devices[0].blobs(document) == {b"a", b"b"}
    net.relay_from(backup)
    net.settle([0])
    assert net.relay_blobs(document) == {b"a", b"b"}
    net.log.close()


def test_a_timer_of_an_earlier_connection_does_nothing(tmp_path: Path) -> None:
    net, document = Network(tmp_path, 1), DOCUMENTS[0]
    net.put(0, document, b"a")
    net.settle([0])
    refills = net.devices[0][document].refills
    net.relay_from(None)
    net.connect(0)
    net.to_relay([(0, 20)])
    net.to_device(0, 20)
    assert net.timers
    net.cut(0)
    net.connect(0)
    net.to_relay([(0, 20)])
    net.to_device(0, 2)
    net.timers.sort(key=lambda timer: timer[2])
    first, *net.timers = net.timers
    net.synchronizers[0].timer_expired(*first[1:])
    assert net.devices[0][document].refills == refills
    net.settle()
    assert net.devices[0][document].refills == refills + 1
    net.log.close()


def test_a_goal_waits_for_what_the_window_had_no_room_for(tmp_path: Path) -> None:
    """Two refills, of which the window takes one: the barrier is answered before the second is even sent."""
    net = Network(tmp_path, 1)
    for document in DOCUMENTS:
        net.put(0, document, b"x" * 150)
    left: list[int] = []
    net.synchronizers[0].add_waiter(lambda why: left.append(sum(len(net.devices[0][d].outbox) for d in DOCUMENTS)))
    net.settle([0])
    assert left == [0]
    net.log.close()


def test_what_the_window_had_no_room_for_is_sent_when_a_document_is_left(tmp_path: Path) -> None:
    """No ack will come of what was pushed of it: it may be deleted, here and there."""
    net = Network(tmp_path, 1)
    net.settle([0])
    for document in DOCUMENTS:
        net.put(0, document, b"x" * 150)
    net.devices[0].forget(DOCUMENTS[0])
    net.synchronizers[0].local_changed()
    net.collect(0)
    net.settle([0])
    assert net.relay_blobs(DOCUMENTS[1]) and not net.devices[0].outbox(DOCUMENTS[1])
    net.log.close()


def test_a_document_that_goes_and_comes_back_is_waited_for(tmp_path: Path) -> None:
    """It was there when the barrier was sent, but what the relay has of it is no longer here."""
    net, document = Network(tmp_path, 1), DOCUMENTS[1]
    net.put(1, document, b"x")
    net.settle([0, 1])
    done: list[set[bytes]] = []
    device, synchronizer = net.devices[0], net.synchronizers[0]
    synchronizer.add_waiter(lambda why: done.append(device.blobs(document)))
    net.collect(0)
    device.forget(document)
    synchronizer.local_changed()
    device.follow(document)
    synchronizer.local_changed()
    net.collect(0)
    net.to_relay([(0, 1)])
    net.to_device(0, 1)
    net.settle([0])
    assert done == [{b"x"}]
    net.log.close()
