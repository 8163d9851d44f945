"""Relays over one storage: each hears of what another appends, and a document that fails takes no other with it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from llmcrdt.sync.chain import START, advance, digest
from llmcrdt.sync.messages import (
    Ack,
    Barrier,
    Cursor,
    Delete,
    Error,
    ErrorCode,
    Fold,
    Message,
    Open,
    Opened,
    Push,
    Reached,
    Record,
    Records,
    Snapshot,
)
from sync_server.core.events import Appended, CompactRequest, CompactResult, Drop, Event, Joined, Output, Send, Sent
from sync_server.core.limits import Limits
from sync_server.core.rooms import Rooms
from sync_server.core.validation import Received, ReplicaDropped, Validation
from sync_server.log.base import LogError
from sync_server.testing.memory import MemoryData, MemoryStorage

D, E, S, T = b"d" * 16, b"e" * 16, b"s" * 16, b"t" * 16


class Relay:
    """Rooms over shared data, with what each peer was sent. Changes of others wait in ``heard``."""

    def __init__(self, data: MemoryData, seed: int = 1, **limits: int) -> None:
        self.storage = MemoryStorage(data)
        self.heard: list[bytes] = []
        self.validation = Validation(available=True, always=False)
        rng = random.Random(seed)
        self.rooms = Rooms(
            self.storage, Limits(**limits), rng.randbytes, validation=self.validation, notify=self.heard.append
        )
        self.inbox: dict[int, list[Message]] = {}
        self.dropped: dict[int, ErrorCode] = {}
        self.outputs: list[Output] = []

    def step(self, *events: Event) -> None:
        """One step, and those that come of it: all that is queued leaves."""
        todo: tuple[Event, ...] = events
        self.outputs = []
        while todo:
            outputs = self.rooms.step(todo)
            self.outputs += outputs
            todo = ()
            for output in outputs:
                if isinstance(output, Drop):
                    self.dropped[output.peer] = ErrorCode(output.error.code)
                elif isinstance(output, Send):
                    todo += tuple(Sent(peer, output.weight) for peer in output.peers)
                    for peer in output.peers:
                        self.inbox.setdefault(peer, []).append(output.message)  # type: ignore[arg-type]

    def say(self, peer: int, *messages: Message) -> list[Message]:
        self.step(*(Received(peer, message) for message in messages))  # type: ignore[arg-type]
        return self.got(peer)

    def hear(self) -> None:
        heard, self.heard[:] = [*self.heard], []
        self.step(*map(Appended, heard))

    def got(self, peer: int) -> list[Message]:
        return self.inbox.pop(peer, [])


class Reader:
    """Follows the chain through what a peer is sent."""

    def __init__(self) -> None:
        self.cursor = Cursor(b"", 0, START)
        self.have: list[bytes] = []

    def take(self, messages: list[Message], said: dict[tuple[bytes, int], bytes]) -> None:
        for message in messages:
            match message:
                case Opened(_, _, head):
                    self.cursor = Cursor(head.log, 0, START)
                case Records(_, position, records):
                    assert position == self.cursor.position + 1
                    for record in records:
                        self.cursor = advance(self.cursor, digest(D, record))
                        self.have.append(record.data)
                case Ack(_, session, n, count, position):
                    assert position == self.cursor.position + 1
                    for m in range(n, n + count):
                        record = Record(session, m, said[session, m])
                        self.cursor = advance(self.cursor, digest(D, record))
                        self.have.append(record.data)
                case _:
                    raise AssertionError(message)


@pytest.mark.parametrize("seed", range(20))
def test_what_one_relay_appends_the_readers_of_the_others_get(seed: int) -> None:
    """Any schedule of pushes, and of hearing of them: every reader has the whole log in order, with its chain."""
    rng = random.Random(seed)
    data = MemoryData()
    relays = [Relay(data, n, batch=200, outgoing=600) for n in range(3)]
    readers = {(relay, peer): Reader() for relay in range(3) for peer in (1, 2)}
    said: dict[tuple[bytes, int], bytes] = {}
    for relay in relays:
        relay.step(Joined(1), Joined(2))
    # The first record makes the log; who opens it before has begun another.
    relays[0].say(1, Open(D, "yjs"), Push(D, b"0" * 16, 1, (b"first",)))
    for relay in relays:
        for peer in (1, 2):
            readers[relays.index(relay), peer].take(relay.say(peer, Open(D, "yjs")), said)
    n = dict.fromkeys(readers, 0)
    for _ in range(60):
        number, peer = rng.choice([*readers])
        relay, session = relays[number], bytes([number + 10, peer]) * 8
        if rng.random() < 0.5:
            pieces = tuple(rng.randbytes(rng.randrange(1, 80)) for _ in range(rng.randrange(1, 4)))
            for piece in pieces:
                n[number, peer] += 1
                said[session, n[number, peer]] = piece
            relay.step(Received(peer, Push(D, session, n[number, peer] - len(pieces) + 1, pieces)))
        else:
            relay.hear()
    for relay in relays:
        relay.hear()
        assert not relay.dropped
    (head,) = {relay.storage.records.head(D) for relay in relays}
    assert head is not None and head.cursor.position == len(said) + 1
    for (number, peer), reader in readers.items():
        reader.take(relays[number].got(peer), said)
        assert reader.cursor == head.cursor and reader.have[0] == b"first"
        assert sorted(reader.have[1:]) == sorted(said.values())
        assert relays[number].storage.records.holds(D, reader.cursor)
    assert len({tuple(reader.have) for reader in readers.values()}) == 1


def test_readers_get_a_snapshot_that_another_relay_made() -> None:
    data = MemoryData()
    one, two = Relay(data), Relay(data)
    one.step(Joined(1))
    two.step(Joined(2), Joined(3))
    one.say(1, Open(D, "yjs"), Push(D, S, 1, (b"a", b"b", b"c")))
    two.say(2, Open(D, "yjs"))
    one.say(1, Fold(D))
    (request,) = [output for output in one.outputs if isinstance(output, CompactRequest)]
    one.step(CompactResult(*request, [b"abc"]))
    two.hear()
    assert two.got(2) == [], "it is past the snapshot"
    _, part = two.say(3, Open(D, "yjs"))
    assert isinstance(part, Snapshot) and (part.position, part.data) == (3, b"abc")
    one.say(1, Push(D, S, 4, (b"d",)))
    two.hear()
    assert two.got(2) == two.got(3) == [Records(D, 4, (Record(S, 4, b"d"),))]


def test_a_document_that_another_relay_deletes_ends_here_as_well() -> None:
    data = MemoryData()
    one, two = Relay(data), Relay(data)
    one.step(Joined(1))
    two.step(Joined(2))
    one.say(1, Open(D, "yjs"), Push(D, S, 1, (b"a",)))
    two.say(2, Open(D, "yjs"))
    one.say(1, Delete(D))
    two.hear()
    (gone,) = two.got(2)
    assert isinstance(gone, Error) and gone.code == ErrorCode.GONE
    assert two.rooms.documents == 0


def test_of_two_logs_for_one_document_the_readers_of_the_second_come_again() -> None:
    data = MemoryData()
    one, two = Relay(data, 1), Relay(data, 2)
    one.step(Joined(1))
    two.step(Joined(2))
    for relay, peer in ((one, 1), (two, 2)):
        relay.say(peer, Open(D, "yjs"))
    one.say(1, Push(D, S, 1, (b"a",)))
    two.hear()
    assert two.dropped == {2: ErrorCode.STORAGE}
    two.step(Joined(3))
    opened, records = two.say(3, Open(D, "yjs"))
    assert isinstance(opened, Opened) and opened.head == one.storage.records.head(D).cursor  # type: ignore[union-attr]
    assert records == Records(D, 1, (Record(S, 1, b"a"),))


def test_the_validator_loads_a_document_again_that_another_relay_changed() -> None:
    data = MemoryData()
    one, two = Relay(data), Relay(data)
    one.step(Joined(1))
    two.step(Joined(2))
    one.say(1, Open(D, "yjs"), Push(D, S, 1, (b"a",)))
    two.say(2, Open(D, "yjs"))
    one.say(1, Push(D, S, 2, (b"b",)))
    two.step(Appended(D))
    assert ReplicaDropped(D) in two.outputs


def fail_at_commit(relay: Relay, *documents: bytes) -> Callable[[], None]:
    """Their next commit fails. The function that says so no more."""
    commit = relay.storage.commit

    def some() -> dict[bytes, LogError]:
        lost = [document for document in documents if relay.storage.staged.pop(document, None)]
        return {**commit(), **dict.fromkeys(lost, LogError("no disk"))}

    relay.storage.commit = some  # type: ignore[method-assign]
    return lambda: setattr(relay.storage, "commit", commit)


def test_a_document_that_fails_drops_who_spoke_of_it_and_nobody_else() -> None:
    relay = Relay(MemoryData())
    relay.step(*map(Joined, (1, 2, 3, 4)))
    for peer, document in ((1, D), (2, E), (3, D), (4, E)):
        relay.say(peer, Open(document, "yjs"), Push(document, bytes([peer]) * 16, 1, (b"first",)))
    relay.inbox.clear()
    mend = fail_at_commit(relay, D)
    relay.step(
        Received(1, Push(D, b"\1" * 16, 2, (b"lost",))),
        Received(2, Push(E, b"\2" * 16, 2, (b"kept",))),
        Received(3, Barrier(7)),
        Received(4, Barrier(8)),
    )
    assert relay.dropped == {1: ErrorCode.STORAGE}
    assert relay.got(2) == [Ack(E, b"\2" * 16, 2, 1, 3)]
    assert relay.got(4) == [Records(E, 3, (Record(b"\2" * 16, 2, b"kept"),)), Reached(8)]
    assert relay.got(3) == [Reached(7)], "it covers what is there"
    mend()
    assert relay.say(3, Push(D, b"\3" * 16, 2, (b"next",))) == [Ack(D, b"\3" * 16, 2, 1, 3)]


def test_nothing_is_said_that_rests_on_a_document_that_failed() -> None:
    """Openings, repeats and refusals of the same step are taken back; a deletion ends no stream."""
    relay = Relay(MemoryData())
    relay.step(*map(Joined, range(1, 7)))
    relay.say(1, Open(D, "yjs"), Push(D, S, 1, (b"a",)))
    relay.say(2, Open(D, "yjs"), Open(E, "yjs"))
    relay.inbox.clear()
    mend = fail_at_commit(relay, D)
    relay.step(
        Received(1, Push(D, S, 2, (b"lost",))),
        Received(3, Open(D, "yjs")),
        Received(4, Open(D, "yjs")),
        Received(4, Push(D, S, 2, (b"lost",))),
        Received(5, Open(D, "yjs")),
        Received(5, Push(D, T, 9, (b"gap",))),
        Received(6, Delete(D)),
        Received(2, Push(E, T, 1, (b"kept",))),
    )
    assert set(relay.dropped) == {1, 3, 4, 5, 6} and set(relay.dropped.values()) == {ErrorCode.STORAGE}
    assert relay.got(2) == [Ack(E, T, 1, 1, 1)] and not relay.inbox
    mend()
    assert relay.say(2, Push(D, T, 1, (b"b",))) == [Ack(D, T, 1, 1, 2)]
