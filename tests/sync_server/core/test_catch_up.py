"""Records that a device missed come condensed, or as they are: never late, never twice, never more than the log has."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

import llmcrdt
from llmcrdt.sync import codec, protocol
from llmcrdt.sync import events as client_events
from llmcrdt.sync.messages import (
    RESUMED,
    Ack,
    Barrier,
    Close,
    Cursor,
    Delete,
    Error,
    Fold,
    Message,
    Open,
    Opened,
    Push,
    Reached,
    Record,
    Records,
    Snapshot,
    Welcome,
)
from sync_server.core.events import (
    CatchUpRequest,
    CatchUpResult,
    CompactRequest,
    CompactResult,
    Joined,
    Output,
    Send,
    Sent,
)
from sync_server.core.limits import Limits
from sync_server.core.rooms import Rooms
from sync_server.core.validation import Left, Received
from sync_server.log.base import LogError, Origin
from sync_server.log.file import DATABASE
from sync_server.log.sqlite import SqliteStorage
from sync_server.thread import RelayThread
from sync_server.workers import compactor_worker
from sync_server.workers.compactor import Compactor

from ...waiting import PATIENCE, eventually
from .test_validation import edits

D, E, S, T = b"d" * 16, b"e" * 16, b"s" * 16, b"t" * 16


class Relay:
    """Rooms over a real log. Peer 1 writes, the others come back; who condenses says b"less"."""

    def __init__(self, folder: Path, **limits: float) -> None:
        limits = {"compaction_bytes": 1 << 30, "outgoing": 1 << 20, "catch_up_records": 3, "catch_up_bytes": 1} | limits
        self.log = SqliteStorage(folder / DATABASE)
        self.rooms = Rooms(self.log, Limits(**limits), random.Random(1).randbytes, catch_up=True)  # type: ignore[arg-type]
        self.inbox: dict[int, list[Message]] = {}
        self.to_condense: list[CatchUpRequest] = []
        self.to_fold: list[CompactRequest] = []
        self.step(*map(Joined, range(1, 6)))
        self.say(1, Open(D, "yjs"), Open(E, "yjs"))
        self.cursors: list[Cursor] = []
        self.write(10)

    def step(self, *events: object) -> list[Output]:
        outputs = self.rooms.step(events)  # type: ignore[arg-type]
        for output in outputs:
            if isinstance(output, CatchUpRequest):
                self.to_condense.append(output)
            elif isinstance(output, CompactRequest):
                self.to_fold.append(output)
            elif isinstance(output, Send):
                for peer in output.peers:
                    self.inbox.setdefault(peer, []).append(output.message)  # type: ignore[arg-type]
        if self.rooms.more:
            self.step()
        return outputs

    def say(self, peer: int, *messages: Message) -> list[Message]:
        """The messages that the peer is told for it."""
        self.step(*(Received(peer, m) for m in messages))  # type: ignore[arg-type]
        return self.inbox.pop(peer, [])

    def write(self, count: int) -> None:
        before = self.log.records.last(D, S)
        for n in range(before + 1, before + count + 1):
            self.say(1, Push(D, S, n, (b"data-%d" % n,)))
            head = self.log.records.head(D)
            assert head
            self.cursors.append(head.cursor)

    def condensed(self, *records: bytes) -> None:
        """The first that was asked for."""
        self.step(CatchUpResult(*self.to_condense.pop(0), records))

    def failed(self) -> None:
        """It was too late, or the worker died."""
        self.step(CatchUpResult(*self.to_condense.pop(0), None))

    def fold(self) -> None:
        self.say(1, Fold(D))
        for todo in self.to_fold:
            self.step(CompactResult(*todo, [b"folded"]))
        self.to_fold = []


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    relay = Relay(tmp_path)
    yield relay
    relay.log.close()


def records(first: int, last: int) -> Records:
    return Records(D, first, tuple(Record(S, n, b"data-%d" % n) for n in range(first, last + 1)))


def is_less(message: Message, cursor: Cursor) -> bool:
    """Whether it stands for all up to a cursor."""
    assert isinstance(message, Snapshot)
    return (message.position, message.chain, message.data, message.last) == (cursor[1], cursor[2], b"less", True)


def test_what_was_missed_comes_condensed_and_what_came_since_as_it_is(relay: Relay) -> None:
    (opened,) = relay.say(2, Open(D, "yjs", relay.cursors[1]))
    assert opened == Opened(D, RESUMED, relay.cursors[9], 2)
    assert relay.to_condense == [CatchUpRequest(D, 2, 10)]
    relay.write(1)
    assert 2 not in relay.inbox
    relay.condensed(b"less")
    less, rest = relay.inbox.pop(2)
    assert is_less(less, relay.cursors[9])
    assert rest == records(11, 11)
    relay.write(1)
    assert relay.inbox.pop(2) == [records(12, 12)]


def test_who_stands_at_the_same_place_gets_the_same_and_nobody_condenses_it_twice(relay: Relay) -> None:
    for peer in (2, 3):
        relay.say(peer, Open(D, "yjs", relay.cursors[1]))
    assert len(relay.to_condense) == 1
    relay.condensed(b"less")
    first, second = relay.inbox.pop(2), relay.inbox.pop(3)
    assert first == second and is_less(first[0], relay.cursors[9])
    relay.write(2)
    _, again, rest = relay.say(4, Open(D, "yjs", relay.cursors[1]))
    assert [again] == first and rest == records(11, 12)
    assert not relay.to_condense
    # If more has come since, it is condensed anew.
    relay.write(1)
    relay.say(4, Open(D, "yjs", relay.cursors[1]))
    assert relay.to_condense == [CatchUpRequest(D, 2, 13)]


def test_what_cant_be_condensed_or_is_not_shorter_is_sent_as_it_is(relay: Relay) -> None:
    for peer, answer in ((2, ()), (3, (b"x" * 60,))):
        cursor = relay.cursors[peer]
        relay.say(peer, Open(D, "yjs", cursor))
        relay.condensed(*answer)
        assert relay.inbox.pop(peer) == [records(cursor.position + 1, 10)]
        # Nor is it tried again for the next.
        assert relay.say(4, Open(D, "yjs", cursor))[1:] == [records(cursor.position + 1, 10)]
        assert not relay.to_condense


def test_what_failed_is_tried_again_but_not_for_ever(relay: Relay) -> None:
    cursor = relay.cursors[1]
    for peer in (2, 3):
        relay.say(peer, Open(D, "yjs", cursor))
        relay.failed()
        assert relay.inbox.pop(peer) == [records(3, 10)]
    relay.say(4, Open(D, "yjs", cursor))
    relay.condensed(b"less")
    assert is_less(relay.inbox.pop(4)[0], relay.cursors[9])
    # A failure before it went well doesn't count any more.
    relay.write(3)
    for _ in range(3):
        relay.say(4, Open(D, "yjs", cursor))
        relay.failed()
    relay.inbox.clear()
    assert relay.say(4, Open(D, "yjs", cursor))[1:] == [records(3, 13)]
    assert not relay.to_condense
    # Nor is it tried more often when more has come.
    relay.write(3)
    relay.say(4, Open(D, "yjs", cursor))
    relay.failed()
    relay.inbox.clear()
    assert relay.say(4, Open(D, "yjs", cursor))[1:] == [records(3, 16)]
    assert not relay.to_condense


def test_what_failed_of_more_than_is_condensed_at_once_is_left_alone_as_well(tmp_path: Path) -> None:
    relay = Relay(tmp_path, catch_up_most=4)
    for _ in range(3):
        relay.say(2, Open(D, "yjs", relay.cursors[1]))
        relay.failed()
    relay.say(2, Open(D, "yjs", relay.cursors[1]))
    assert not relay.to_condense
    relay.log.close()


def test_what_came_with_a_step_that_was_not_written_is_tried_again(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise LogError("The disk is full.")

    relay.say(2, Open(D, "yjs", relay.cursors[1]))
    with monkeypatch.context() as patch:
        patch.setattr(relay.log.records, "append", full)
        relay.step(Received(1, Push(D, S, 11, (b"x",))), CatchUpResult(*relay.to_condense.pop(0), [b"less"]))
    assert relay.inbox.pop(2) == [records(3, 10)]
    relay.say(3, Open(D, "yjs", relay.cursors[1]))
    assert relay.to_condense == [CatchUpRequest(D, 2, 10)]


def test_what_had_no_room_is_tried_again(tmp_path: Path) -> None:
    relay = Relay(tmp_path, outgoing=1_000, batch=1_000, catch_up_share=1e9, catch_up_kept=4_500)
    relay.say(2, Open(D, "yjs", relay.cursors[1]))
    relay.condensed(b"x" * 3_000)
    for peer, comes in ((3, Records), (4, Snapshot)):
        relay.say(peer, Open(D, "yjs", relay.cursors[2]))
        relay.condensed(b"x" * 3_000)
        assert isinstance(relay.inbox.pop(peer)[0], comes)
        for _ in range(3):
            relay.step(Sent(2, 1_128))
    relay.log.close()


def test_what_the_peer_says_itself_meanwhile_is_acknowledged_in_its_place(relay: Relay) -> None:
    """Its own record of an earlier connection, which it says again, as well."""
    relay.say(3, Open(D, "yjs"), Push(D, T, 1, (b"mine",)))
    relay.say(3, Close(D))
    relay.to_condense.clear()
    relay.write(5)
    _, *nothing = relay.say(2, Open(D, "yjs", relay.cursors[1]), Push(D, T, 1, (b"mine",)), Push(D, T, 2, (b"more",)))
    assert not nothing, "what it missed comes before"
    assert relay.say(2, Barrier(1)) == []
    relay.condensed(b"less")
    less, first, second, reached = relay.inbox.pop(2)
    assert is_less(less, relay.cursors[14])
    assert first == Ack(D, T, 1, 1, 11)
    assert second == Ack(D, T, 2, 1, 17)
    assert reached == Reached(1)


def test_other_documents_and_others_do_not_wait(relay: Relay) -> None:
    relay.say(2, Open(D, "yjs", relay.cursors[1]), Open(E, "yjs"))
    assert isinstance(relay.say(2, Push(E, T, 1, (b"x",)))[0], Ack)
    assert relay.say(3, Open(D, "yjs", relay.cursors[8]))[1:] == [records(10, 10)]


def test_who_is_gone_or_opens_it_anew_is_not_told_what_it_did_not_ask(relay: Relay) -> None:
    relay.say(2, Open(D, "yjs", relay.cursors[1]))
    relay.say(3, Open(D, "yjs", relay.cursors[1]))
    relay.say(4, Open(D, "yjs", relay.cursors[1]))
    relay.step(Left(3))
    relay.say(4, Close(D))
    (_, tail) = relay.say(2, Open(D, "yjs", relay.cursors[7]))
    assert tail == records(9, 10)
    relay.condensed(b"less")
    assert relay.inbox == {}


def test_a_fold_takes_the_place_of_what_is_condensed(relay: Relay) -> None:
    """Also of what others were given before: it may hold what was erased since."""
    relay.say(2, Open(D, "yjs", relay.cursors[1]))
    relay.condensed(b"less")
    relay.inbox.clear()
    relay.say(3, Open(D, "yjs", relay.cursors[2]))
    relay.fold()
    (folded,) = relay.inbox.pop(3)
    assert isinstance(folded, Snapshot) and folded.data == b"folded"
    relay.condensed(b"less")
    assert 3 not in relay.inbox
    _, folded = relay.say(4, Open(D, "yjs", relay.cursors[1]))
    assert isinstance(folded, Snapshot) and folded.data == b"folded"
    assert not relay.rooms._catch_up._kept


def test_behind_a_fold_the_rest_may_be_condensed_too(relay: Relay) -> None:
    relay.fold()
    relay.write(5)
    _, folded = relay.say(2, Open(D, "yjs", relay.cursors[3]))
    assert isinstance(folded, Snapshot) and (folded.position, folded.data) == (10, b"folded")
    assert relay.to_condense == [CatchUpRequest(D, 10, 15)]
    relay.condensed(b"less")
    (less,) = relay.inbox.pop(2)
    assert is_less(less, relay.cursors[14])


def test_a_fold_in_the_middle_of_it_begins_anew(tmp_path: Path) -> None:
    relay = Relay(tmp_path, batch=2)
    client = protocol.Connection()
    client.open(D, "yjs", relay.cursors[1])
    client.receive(codec.encode(Welcome()))
    heard = relay.say(2, Open(D, "yjs", relay.cursors[1]))
    (sent,) = relay.rooms.step([CatchUpResult(*relay.to_condense.pop(0), [b"less, of many parts"])])
    assert isinstance(sent, Send) and isinstance(sent.message, Snapshot) and not sent.message.last
    (asked,) = [o for o in relay.rooms.step([Received(1, Fold(D))]) if isinstance(o, CompactRequest)]
    relay.step(CompactResult(*asked, [b"folded"]))
    events = [
        event
        for m in (*heard, sent.message, *relay.inbox.pop(2))
        for event in client.receive(codec.encode(m))  # type: ignore[arg-type]
    ]
    opened, arrived, caught_up = events
    assert isinstance(arrived, client_events.Arrived) and [r.data for r in arrived.records] == [b"folded"]
    assert arrived.cursor == relay.cursors[9]
    assert (opened, caught_up) == (client_events.Opened(D, False), client_events.CaughtUp(D))
    relay.log.close()


def test_a_document_that_is_deleted_says_nothing_more(relay: Relay) -> None:
    relay.say(2, Open(D, "yjs", relay.cursors[1]))
    relay.say(3, Open(D, "yjs", relay.cursors[2]))
    relay.condensed(b"less")
    relay.inbox.clear()
    relay.say(1, Delete(D))
    assert [type(m) for m in relay.inbox.pop(2)] == [Error]
    relay.condensed(b"less")
    assert [type(m) for m in relay.inbox.pop(3)] == [Error]
    assert not relay.rooms._catch_up._kept


@pytest.mark.parametrize(
    "limits",
    [
        {"catch_up_records": 9},
        {"catch_up_bytes": 60},
        {"catch_up_document": 60},
        {"catch_up_free": 1, "catch_up_ratio": 1},
        {"catch_up_free": 1, "catch_up_ratio": 0},
        {"catch_up_jobs": 0},
    ],
)
def test_a_few_records_are_sent_as_they_are(tmp_path: Path, limits: dict[str, int]) -> None:
    relay = Relay(tmp_path, **limits)
    assert relay.say(2, Open(D, "yjs", relay.cursors[1]))[1:] == [records(3, 10)]
    assert not relay.to_condense
    relay.log.close()


def test_no_more_of_a_long_log_is_looked_at_than_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop waits for that."""
    relay, found = Relay(tmp_path, catch_up_bytes=100), list[int]()
    relay.say(1, *(Push(D, S, n, (b"x" * 100,) * 100) for n in range(11, 4_011, 100)))
    weigh = relay.log.snapshots.bytes_between

    def noting(*arguments: Any) -> int:
        found.append(weigh(*arguments))
        return found[-1]

    monkeypatch.setattr(relay.log.snapshots, "bytes_between", noting)
    relay.say(2, Open(D, "yjs", relay.cursors[1]))
    assert relay.to_condense == [CatchUpRequest(D, 2, 4_010)]
    assert 100 <= found.pop() < 120_000
    # Of a log above ``catch_up_free`` a part has to be missed that is worth it.
    relay.rooms.limits = relay.rooms._catch_up._limits = replace(relay.rooms.limits, catch_up_free=1)
    relay.say(3, Open(D, "yjs", relay.cursors[2]))
    assert relay.to_condense[1:] == [CatchUpRequest(D, 3, 4_010)]
    assert 400_000 / 256 <= found.pop() < 120_000
    relay.log.close()


def test_a_long_tail_comes_in_several_and_what_is_kept_has_a_limit(tmp_path: Path) -> None:
    relay = Relay(tmp_path, catch_up_most=4, catch_up_kept=2_100)
    relay.say(2, Open(D, "yjs", relay.cursors[0]))
    for after, upto in ((1, 5), (5, 9)):
        assert relay.to_condense == [CatchUpRequest(D, after, upto)]
        relay.condensed(b"less")
        less, *rest = relay.inbox.pop(2)
        assert is_less(less, relay.cursors[upto - 1])
    assert rest == [records(10, 10)]
    relay.say(3, Open(D, "yjs", relay.cursors[2]))
    relay.condensed(b"less")
    assert [after for _, after in relay.rooms._catch_up._kept] == [5, 3]
    relay.log.close()


def test_who_does_not_read_holds_no_more_than_may_be_kept(tmp_path: Path) -> None:
    relay = Relay(tmp_path, outgoing=1_000, batch=1_000, catch_up_share=1e9, catch_up_kept=8_000)

    def came(peer: int) -> type[Message]:
        relay.say(peer, Open(D, "yjs", relay.cursors[peer]))
        relay.condensed(b"x" * 3_000)
        return type(relay.inbox[peer].pop())

    assert [came(peer) for peer in (2, 3, 4)] == [Snapshot, Snapshot, Records]
    for _ in range(2):
        relay.step(Sent(2, 1_128))
    assert came(5) is Snapshot
    relay.log.close()


def test_other_kinds_are_sent_as_they_are(relay: Relay) -> None:
    relay.say(1, Open(T, "sealed"), *(Push(T, S, n, (b"x" * 50,)) for n in range(1, 9)))
    assert isinstance(relay.say(2, Open(T, "sealed"))[1], Records)
    assert not relay.to_condense


# ---------------------------------------------------------------- the worker


def made(folder: Path, count: int) -> SqliteStorage:
    log = SqliteStorage(folder / DATABASE)
    log.records.append(D, S, 1, edits(count), Origin("yjs", b"l" * 16))
    assert not log.records.commit()
    return log


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteStorage]:
    log = made(tmp_path, 40)
    yield log
    log.close()


@pytest.fixture
def compactor(log: SqliteStorage) -> Iterator[Callable[..., Compactor]]:
    """``compactor(answer, **limits)`` works on ``log``. Its worker ends with the test, however that ends, and requests
    wait as long as a busy machine takes, unless ``limits`` say otherwise."""
    started: list[Compactor] = []

    def start(answer: Callable[[object], None], *, early: bool = False, **limits: float) -> Compactor:
        chosen = Limits(**{"catch_up_wait": PATIENCE, **limits})  # type: ignore[arg-type]
        started.append(Compactor(log, chosen, answer, early=early))
        return started[-1]

    yield start
    for each in started:
        each.stop()


def test_the_worker_answers_for_what_is_there_and_for_nothing_else(
    log: SqliteStorage, compactor: Callable[..., Compactor]
) -> None:
    answers: list[object] = []
    condenser = compactor(answers.append)
    for todo in (
        CatchUpRequest(D, 10, 40),
        CatchUpRequest(D, 10, 40),
        CatchUpRequest(E, 0, 5),
        CatchUpRequest(D, 20, 40),
    ):
        condenser.put(todo)
    first, again, unknown, _ = eventually(lambda: answers, lambda found: len(found) == 4)
    (worker,) = [condenser._worker]
    assert isinstance(first, CatchUpResult) and first == again and first.records is not None
    assert list(first.records) == compactor_worker.obey(
        b"condense", b"yjs", list(log.snapshots.contents_around(D, 10, 40))
    )
    assert unknown == CatchUpResult(E, 0, 5, [])
    # Records folded meanwhile have no beginning any more.
    head = log.records.head(D)
    assert head
    log.snapshots.put(D, head.cursor, S, [b"folded"], 1 << 16)
    assert not log.records.commit()
    assert condenser.catch_up(CatchUpRequest(D, 10, 40)) == []
    assert worker is condenser._worker is not None, "one process for all of them"
    condenser.stop()
    assert worker.returncode is not None


def test_what_waited_too_long_is_not_condensed(compactor: Callable[..., Compactor]) -> None:
    answers: list[object] = []
    compactor(answers.append, catch_up_wait=0.0).put(CatchUpRequest(D, 10, 40))
    assert eventually(lambda: answers) == [CatchUpResult(D, 10, 40, None)]


def test_whoever_waits_is_answered_where_the_worker_cant_be_asked(
    compactor: Callable[..., Compactor], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[object] = []
    condenser = compactor(answers.append, early=True)
    worker = eventually(lambda: condenser._worker)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Timer, "start", lambda _: threading.stack_size(1))  # ValueError
        condenser.put(CatchUpRequest(D, 10, 40))
        assert eventually(lambda: answers) == [CatchUpResult(D, 10, 40, None)]
    # The next one is started before it is needed.
    eventually(lambda: condenser._worker, lambda found: found not in (None, worker))
    condenser.put(CatchUpRequest(D, 10, 40))
    assert eventually(lambda: answers[1:]) != [CatchUpResult(D, 10, 40, None)]


def test_a_worker_that_idles_gives_way_to_a_new_one(compactor: Callable[..., Compactor]) -> None:
    answers: list[object] = []
    condenser = compactor(answers.append, catch_up_idle=0.01, early=True)
    first = eventually(lambda: condenser._worker)
    condenser.put(CatchUpRequest(D, 10, 40))
    eventually(lambda: answers)
    eventually(lambda: condenser._worker, lambda worker: worker not in (None, first))
    assert first.returncode is not None


def test_updates_that_wait_and_bytes_that_harm_are_left_to_the_records() -> None:
    some = list(edits(30))
    nothing: list[bytes] = []
    for data in (
        [b"", b"", *some[5:]],
        [b"", *some[5:10], b"", *some],
        [b"", b"", b"\xff"],
        [b"\xff", b"", b"", *some],
    ):
        assert compactor_worker.obey(b"condense", b"yjs", data) == nothing


@pytest.mark.parametrize("dies", [False, True])
def test_a_device_that_comes_back_has_the_same_also_where_the_worker_dies(tmp_path: Path, dies: bool) -> None:
    limits = Limits(catch_up_bytes=1, catch_up_share=1e9, catch_up_wait=60.0, compaction_memory=1 if dies else 1 << 32)
    with (
        RelayThread(tmp_path / "relay", limits=limits) as relay,
        llmcrdt.open(tmp_path / "writer.db") as writer,
        llmcrdt.open(tmp_path / "other.db", writer.library) as other,
    ):
        conversation = writer.create("long")
        conversation.append("user", "Hello")
        for repo in (writer, other):
            with repo.connect(relay.url) as link:
                link.wait_synced(PATIENCE)
        other.get(conversation.id).append("user", "said without a connection")
        with writer.connect(relay.url) as link:
            for n in range(40):
                conversation.append("user", f"said {n}")
            link.wait_synced(PATIENCE)
        with other.connect(relay.url) as link, writer.connect(relay.url) as sending:
            link.wait_synced(PATIENCE)
            sending.wait_synced(PATIENCE)
        one, two = (repo.get(conversation.id).transcript() for repo in (writer, other))
        assert one.hash == two.hash and len(one) == len(two) > 20
        with urlopen(f"{relay.url.replace('ws', 'http')}/metrics") as metrics:
            condensed = [
                line for line in metrics.read().decode().splitlines() if line.startswith("llmcrdt_relay_condensed")
            ]
        assert [line.split()[1] != "0" for line in condensed] in ([not dies], [] if dies else None)
