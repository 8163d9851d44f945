"""Folding: what old cursors get, what is in no file any more, and what a worker or a relay that dies leaves."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect
from websockets.typing import Subprotocol

import llmcrdt
from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.exceptions import RelayRefused, SyncError
from llmcrdt.ids import document_id
from llmcrdt.sync import codec, protocol
from llmcrdt.sync import events as client_events
from llmcrdt.sync.chain import START
from llmcrdt.sync.link import Link, control_of
from llmcrdt.sync.messages import (
    FOLD_DONE,
    FOLD_FAILED,
    FOLD_NEVER,
    MAX_FRAME,
    PATH,
    RESET,
    RESUMED,
    SUBPROTOCOL,
    Ack,
    Barrier,
    Cursor,
    Error,
    ErrorCode,
    Fold,
    Folded,
    Hello,
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
from llmcrdt.testing.local_documents import BlobDocuments
from sync_server.core.events import CompactRequest, CompactResult, Event, Joined, Output, Send, Sent
from sync_server.core.limits import Limits
from sync_server.core.rooms import Rooms
from sync_server.core.validation import Received
from sync_server.log.sqlite import SqliteStorage
from sync_server.thread import RelayThread

from ...waiting import PATIENCE

D, S, T = b"d" * 16, b"s" * 16, b"t" * 16
DOCUMENT = document_id(D)
SECRET = b"SECRET-THAT-IS-ERASED"


class Relay:
    """Rooms over a real log. To fold is to join the records."""

    def __init__(self, folder: Path, **limits: int) -> None:
        self.folder = folder
        limits = {"compaction_bytes": 1 << 30, "batch": 10, "outgoing": 1 << 20, **limits}
        self.log = SqliteStorage(folder / "relay.db")
        self.rooms = Rooms(self.log, Limits(**limits), random.Random(1).randbytes)
        self.inbox: list[Message] = []
        self.to_fold: list[CompactRequest] = []
        self.step(Joined(1), Joined(2))

    def step(self, *events: object) -> list[Output]:
        outputs = self.rooms.step(events)  # type: ignore[arg-type]
        for output in outputs:
            if isinstance(output, CompactRequest):
                self.to_fold.append(output)
            elif isinstance(output, Send):
                self.inbox.append(output.message)
        return outputs

    def say(self, *messages: Message, peer: int = 1) -> list[Message]:
        self.inbox = []
        self.step(*(Received(peer, m) for m in messages))  # type: ignore[arg-type]
        return self.rest()

    def rest(self) -> list[Message]:
        while self.rooms.more:
            self.step()
        return self.inbox

    def fold(self) -> list[Message]:
        """Ask, fold, and let the old records go."""
        self.say(Fold(D), peer=1)
        for document, upto in self.to_fold:
            data = b"+".join(self.log.snapshots.contents(document, upto.position))
            self.step(CompactResult(document, upto, [data, b"waiting"]))
        self.to_fold = []
        return self.rest()

    def cursor(self) -> Cursor:
        head = self.log.records.head(D)
        assert head
        return head.cursor


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    relay = Relay(tmp_path)
    yield relay
    relay.log.close()


def joined(messages: list[Message]) -> list[bytes]:
    """The records of the snapshot in some messages. A newer one that takes its place while it is sent begins anew,
    under another session."""
    records: dict[int, bytes] = {}
    session = None
    for m in messages:
        if isinstance(m, Snapshot):
            if m.session != session:
                session, records = m.session, {}
            assert len(records.get(m.n, b"")) == m.offset
            records[m.n] = records.get(m.n, b"") + m.data
    return [records[n] for n in sorted(records)]


def test_old_cursors_get_the_snapshot_and_the_tail_new_ones_the_tail(relay: Relay) -> None:
    relay.say(Open(D, "yjs"))
    cursors = [Cursor(relay.inbox[0].head.log, 0, START)]  # type: ignore[union-attr]
    for n in range(1, 8):
        relay.say(Push(D, S, n, (b"data-%d" % n,)))
        cursors.append(relay.cursor())
    assert relay.fold()[-1] == Folded(D, FOLD_DONE)
    relay.say(Push(D, S, 8, (b"data-8",)))
    for old in (*cursors[:7], None):
        first, *rest = relay.say(Open(D, "yjs", old), peer=2)
        assert isinstance(first, Opened)
        assert (first.how, first.position) == ((RESUMED, old.position) if old else (RESET, 0))
        assert joined(rest[:-1]) == [b"+".join(b"data-%d" % n for n in range(1, 8)), b"waiting"]
        parts = [m for m in rest if isinstance(m, Snapshot)]
        assert {(m.position, m.chain) for m in parts} == {cursors[7][1:]}
        assert [m.last for m in parts] == [False] * (len(parts) - 1) + [True]
        assert rest[-1] == Records(D, 8, (Record(S, 8, b"data-8"),))
    _, *rest = relay.say(Open(D, "yjs", cursors[7]), peer=2)
    assert rest == [Records(D, 8, (Record(S, 8, b"data-8"),))]


def test_a_cursor_of_another_history_is_found_out_also_below_the_fold(relay: Relay) -> None:
    relay.say(Open(D, "yjs"))
    for n in range(1, 6):
        relay.say(Push(D, S, n, (b"data",)))
    log = relay.cursor().log
    relay.fold()
    for wrong in (Cursor(log, 3, b"x" * 32), Cursor(b"l" * 16, 0, START), Cursor(log, 9, b"x" * 32)):
        (first, *_) = relay.say(Open(D, "yjs", wrong), peer=2)
        assert isinstance(first, Opened)
        assert first.how == RESET


def test_what_is_folded_again_and_again_is_still_known(relay: Relay) -> None:
    relay.say(Open(D, "yjs"))
    cursors = []
    for n in range(1, 31):
        relay.say(Push(D, S, n, (b"%d" % n,)))
        cursors.append(relay.cursor())
        if n % 7 == 0:
            relay.fold()
    for cursor in cursors:
        assert relay.log.records.holds(D, cursor)
        assert not relay.log.records.holds(D, cursor._replace(chain=bytes(reversed(cursor.chain))))
    relay.log.close()
    relay.log = SqliteStorage(relay.folder / "relay.db")
    assert all(relay.log.records.holds(D, cursor) for cursor in cursors)
    assert relay.log.records.head(D) == ("yjs", cursors[-1])


def test_a_folded_record_sent_again_is_acknowledged_behind_the_snapshot(relay: Relay) -> None:
    relay.say(Open(D, "yjs"))
    data = tuple(b"data-%d" % n for n in range(1, 6))
    relay.say(Push(D, S, 1, data))
    relay.fold()
    # A peer past the fold has the answer at once, and in one message.
    assert relay.say(Push(D, S, 1, data)) == [Ack(D, S, 1, 5, 1)]
    relay.step(Received(2, Open(D, "yjs")), Received(2, Push(D, S, 1, data)))
    relay.inbox = []
    _, *rest = relay.say(Open(D, "yjs"), Push(D, S, 1, data), peer=2)
    assert all(isinstance(m, Snapshot) for m in rest[:-1])
    assert rest[-1] == Ack(D, S, 1, 5, 1)
    assert relay.rooms._subscriptions.peers[2].unacked == 0
    assert relay.say(Push(D, S, 6, (b"next",)), peer=2)[0] == Ack(D, S, 6, 1, 6)


def test_a_gap_is_a_gap_also_behind_a_fold(relay: Relay) -> None:
    relay.say(Open(D, "yjs"))
    relay.say(Push(D, S, 1, (b"a", b"b")))
    relay.fold()
    (refused,) = relay.say(Push(D, S, 4, (b"d",)))
    assert isinstance(refused, Error)
    assert (refused.code, refused.n) == (ErrorCode.GAP, 3)


def test_a_log_is_folded_when_it_outgrows_its_snapshot_and_keeps_a_tail(tmp_path: Path) -> None:
    relay = Relay(tmp_path, compaction_bytes=1000, compaction_tail=300, sweep=7)
    relay.say(Open(D, "yjs"))
    n, asked = 0, []
    for _ in range(60):
        n += 1
        relay.say(Push(D, S, n, (b"x" * 100,)))
        for document, upto in relay.to_fold:
            asked.append((n, upto.position))
            relay.step(CompactResult(document, upto, [b"y" * 2000]))
        relay.to_fold = []
    # Above 1,000 + 300 bytes first, then above what the snapshot has, and 300.
    assert asked == [(14, 11), (35, 32), (56, 53)]
    relay.rest()
    assert relay.log.snapshots.tail_size(D) == (n - 53) * 100
    relay.log.close()


class Follower:
    """The library's end of a connection, over the rooms. It has a set of words of 4 bytes, which records and
    snapshots are made of. Frames wait until they are taken."""

    def __init__(self, peer: int) -> None:
        self.peer, self.session = peer, bytes([peer]) * 16
        self.client = protocol.Connection()
        self.queue: list[bytes] = []
        self.weight = self.n = 0
        self.outbox: dict[int, bytes] = {}
        self.words: set[bytes] = set()
        self.client.receive(codec.encode(Welcome("relay", 1 << 20, 1 << 20, 1 << 20, 10)))
        self.client.drain_frames()

    def said(self) -> list[Event]:
        return [Received(self.peer, codec.decode(frame)) for frame in self.client.drain_frames()]  # type: ignore[arg-type]

    def open(self, resume: bool) -> list[Event]:
        cursor = self.client.cursor(D) if resume and self.client.is_open(D) else None
        if cursor is None:
            self.words.clear()
        self.client.open(D, "yjs", cursor)
        self.push(self.outbox)
        return self.said()

    def write(self, data: Sequence[bytes]) -> list[Event]:
        new = dict(enumerate(data, self.n + 1))
        self.n += len(new)
        self.outbox |= new
        self.push(new)
        return self.said()

    def push(self, data: Mapping[int, bytes]) -> None:
        if data:
            self.client.push(D, [Record(self.session, n, one) for n, one in data.items()])

    def take(self) -> list[Event]:
        """Take in what has come. The library's end raises where it is not what the protocol promises."""
        for frame in self.queue:
            for event in self.client.receive(frame):
                match event:
                    case client_events.Arrived(_, records):
                        self.words.update(*map(in_fours, (record.data for record in records)))
                    case client_events.Acked(_, names):
                        self.words.update(*(in_fours(self.outbox.pop(n)) for _, n in names))
        self.queue, weight, self.weight = [], self.weight, 0
        return [Sent(self.peer, weight)]


def in_fours(data: bytes) -> list[bytes]:
    return [data[at : at + 4] for at in range(0, len(data), 4)]


followers = st.integers(0, 2)
crossings = st.one_of(
    st.tuples(st.just("write"), followers, st.integers(1, 4), st.integers(1, 8)),
    st.tuples(st.just("take"), followers),
    st.tuples(st.just("open"), followers, st.booleans()),
    st.tuples(st.just("fold"), followers),
    st.tuples(st.just("folded"), st.sampled_from((True, True, False))),
    # In one step: what was written behind a fold, and the fold.
    st.tuples(st.just("write and folded"), followers),
)


@settings(deadline=None, max_examples=150)
@given(plan=st.lists(st.lists(crossings, max_size=5), min_size=4, max_size=15))
def test_whoever_a_fold_overtakes_misses_nothing(tmp_path_factory: pytest.TempPathFactory, plan: list) -> None:
    """Readers may stand anywhere when a fold takes effect, and it may do so any number of times."""
    log = SqliteStorage(tmp_path_factory.mktemp("folds") / "relay.db")
    limits = Limits(compaction_bytes=60, compaction_tail=20, batch=12, outgoing=300, sweep=3, window_records=1 << 20)
    rooms = Rooms(log, limits, random.Random(1).randbytes)
    three = [Follower(peer) for peer in (1, 2, 3)]
    to_fold: list[CompactRequest] = []
    written: list[bytes] = []

    def step(*events: Event) -> None:
        for output in rooms.step(events):
            if isinstance(output, CompactRequest):
                to_fold.append(output)
            else:
                assert isinstance(output, Send), output
                for peer in output.peers:
                    three[peer - 1].queue.append(codec.encode(output.message))  # type: ignore[arg-type]
                    three[peer - 1].weight += output.weight

    def folded(works: bool) -> list[Event]:
        document, upto = to_fold.pop(0)
        every = dict.fromkeys(in_fours(b"".join(log.snapshots.contents(document, upto.position))))
        return [CompactResult(document, upto, [b"".join(every)] if works else None)]

    step(*(Joined(one.peer) for one in three), *(event for one in three for event in one.open(False)))
    for group in plan:
        events: list[Event] = []
        for name, *arguments in group:
            if name == "write":
                who, count, size = arguments
                data = [b"".join(b"%04d" % (len(written) + n * size + i) for i in range(size)) for n in range(count)]
                written += [word for one in data for word in in_fours(one)]
                events += three[who].write(data)
            elif name == "take":
                events += three[arguments[0]].take()
            elif name == "open":
                events += three[arguments[0]].open(arguments[1])
            elif name == "fold":
                three[arguments[0]].client.request_compaction(D)
                events += three[arguments[0]].said()
            elif name == "write and folded":
                written.append(b"%04d" % len(written))
                events += three[arguments[0]].write(written[-1:])
                events += folded(True) if to_fold else ()
            elif to_fold:
                events += folded(arguments[0])
        step(*events)
    while to_fold or rooms.more or any(one.queue for one in three):
        step(*(event for one in three for event in one.take()), *(folded(True) if to_fold else ()))
    head = log.records.head(D)
    for one in three:
        assert one.words == set(written)
        assert not one.outbox
        assert head is None or one.client.cursor(D) == head.cursor
    log.close()


def test_a_kind_that_can_not_be_folded_never_is(tmp_path: Path) -> None:
    relay = Relay(tmp_path, compaction_bytes=10, compaction_tail=0)
    relay.say(Open(D, "sealed"))
    relay.say(Push(D, S, 1, (b"x" * 100,)))
    assert relay.say(Fold(D)) == [Folded(D, FOLD_NEVER)]
    assert relay.to_fold == []
    relay.log.close()


def test_a_fold_that_failed_is_told_and_not_tried_at_once(tmp_path: Path) -> None:
    relay = Relay(tmp_path, compaction_bytes=100, compaction_tail=0)
    relay.say(Open(D, "yjs"))
    relay.say(Push(D, S, 1, (b"x" * 150,)), Fold(D))
    ((document, upto),) = relay.to_fold
    relay.step(CompactResult(document, upto, None))
    assert Folded(D, FOLD_FAILED) in relay.inbox
    relay.to_fold = []
    relay.say(Push(D, S, 2, (b"x" * 100,)))
    assert relay.to_fold == []
    relay.say(Push(D, S, 3, (b"x" * 100,)))
    assert [todo.upto.position for todo in relay.to_fold] == [3]
    relay.log.close()


def test_what_a_client_asked_for_is_done_after_a_restart(tmp_path: Path) -> None:
    relay = Relay(tmp_path)
    relay.say(Open(D, "yjs"))
    relay.say(Push(D, S, 1, (b"a",)), Fold(D))
    relay.log.close()
    relay = Relay(tmp_path)
    relay.rest()
    assert [todo.upto.position for todo in relay.to_fold] == [1]
    relay.step(CompactResult(D, relay.to_fold[0].upto, [b"a"]))
    relay.log.close()
    relay = Relay(tmp_path)
    relay.rest()
    assert relay.to_fold == []
    assert relay.log.database.connection.execute("SELECT count(*) FROM records").fetchone() == (0,)
    relay.log.close()


# ---------------------------------------------------------------- with sockets, a worker process and Yjs documents


def written(*texts: str, erase: bool = False) -> list[bytes]:
    """The updates of somebody who writes texts, and then erases the first."""
    replica, updates = YjsReplica(["words"]), []
    for i, text in enumerate(texts):
        with replica.edit() as edit:
            edit.put_node("words", f"w{i}", {"text": text})
        updates.append(edit.update)
    if erase:
        with replica.edit() as edit:
            edit.delete_field("words", "w0", "text")
        updates.append(edit.update)
    return updates


def found(folder: Path, piece: bytes) -> list[str]:
    return [path.name for path in sorted(folder.rglob("*")) if path.is_file() and piece in path.read_bytes()]


def fill(url: str, updates: list[bytes], session: bytes = S, kind: str = "yjs") -> None:
    """Push updates as the records of one session, and wait for their acks."""
    with connect(url + PATH, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None) as client:
        for message in (Hello(), Open(D, kind)):
            client.send(codec.encode(message))
        while not isinstance(codec.decode(client.recv(timeout=PATIENCE)), Opened):  # type: ignore[arg-type]
            pass
        client.send(codec.encode(Push(D, session, 1, tuple(updates))))
        while not isinstance(codec.decode(client.recv(timeout=PATIENCE)), Ack):  # type: ignore[arg-type]
            pass


def stored(url: str, kind: str = "yjs", document: bytes = D) -> list[bytes]:
    """All that a new device gets."""
    got: list[Message] = []
    options = {"subprotocols": [Subprotocol(SUBPROTOCOL)], "proxy": None, "max_size": MAX_FRAME}
    with connect(url + PATH, **options) as client:  # type: ignore[arg-type]
        for message in (Hello(), Open(document, kind), Barrier(1)):
            client.send(codec.encode(message))
        while not isinstance(message := codec.decode(client.recv(timeout=PATIENCE)), Reached):  # type: ignore[arg-type]
            got.append(message)
    return [*joined(got), *(r.data for m in got if isinstance(m, Records) for r in m.records)]


def ask_fold(url: str, kind: str = "yjs") -> int:
    with connect(url + PATH, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None) as client:
        for message in (Hello(), Open(D, kind), Fold(D)):
            client.send(codec.encode(message))
        while not isinstance(answer := codec.decode(client.recv(timeout=PATIENCE)), Folded):  # type: ignore[arg-type]
            pass
    return answer.outcome


def words(updates: list[bytes]) -> dict[str, object]:
    replica = YjsReplica(["words"])
    for update in updates:
        replica.apply(update)
    return {key: dict(replica.node("words", key) or {}) for key in replica.keys("words")}


def test_erased_words_are_in_no_file_of_the_relay(tmp_path: Path) -> None:
    texts = [SECRET.decode() * 300, *(f"text {n} " * 20 for n in range(400))]
    updates = written(*texts, erase=True)
    with RelayThread(tmp_path) as relay:
        fill(relay.url, updates)
        assert found(tmp_path, SECRET)
        assert ask_fold(relay.url) == FOLD_DONE
        assert found(tmp_path, SECRET) == []
        assert found(tmp_path, b"text 399")
        assert words(stored(relay.url)) == words(updates)
    assert found(tmp_path, SECRET) == []


def test_updates_that_wait_and_bytes_that_are_none_survive_a_fold(tmp_path: Path) -> None:
    updates = written("one", "two", "three")
    with RelayThread(tmp_path, check=False) as relay:
        fill(relay.url, [updates[2], b"no update", updates[0]])
        assert ask_fold(relay.url) == FOLD_DONE
        kept = stored(relay.url)
        assert sorted(kept[1:]) == sorted([updates[2], b"no update"])
        fill(relay.url, [updates[1]], T)
        assert ask_fold(relay.url) == FOLD_DONE
        first, second = stored(relay.url)
        assert (words([first]), second) == (words(updates), b"no update")


def test_a_worker_that_dies_harms_nobody(tmp_path: Path) -> None:
    updates = written("one", "two")
    limits = Limits(compaction_memory=1 << 20)  # less than an interpreter needs
    with RelayThread(tmp_path, limits=limits) as relay:
        fill(relay.url, updates)
        assert ask_fold(relay.url) == FOLD_FAILED
        assert stored(relay.url) == updates
    with RelayThread(tmp_path) as relay:
        assert ask_fold(relay.url) == FOLD_DONE
        assert words(stored(relay.url)) == words(updates)


def test_a_link_asks_when_its_records_are_acknowledged_and_again_after_a_cut(tmp_path: Path) -> None:
    local = BlobDocuments(1)
    local.follow(DOCUMENT)
    relay = RelayThread(tmp_path, check=False)
    with Link(relay.url, local) as link:
        link.wait_synced(PATIENCE)
        relay.close()
        local.put(DOCUMENT, b"x")
        answer = control_of(link).request_compaction(DOCUMENT)
        assert not answer.done()
        with RelayThread(tmp_path, port=relay.port, check=False) as again:
            answer.result(PATIENCE)
            # Blobs are no Yjs updates, so they stand beside the document.
            assert len(stored(again.url)) == 1
            later = control_of(link).request_compaction(document_id(b"?" * 16))
    assert isinstance(later.exception(5), SyncError)


def test_what_a_conversation_erased_leaves_the_relay_and_old_devices_keep_up(tmp_path: Path) -> None:
    """One device erases while another is away: it comes back with a cursor from before the fold."""
    word = SECRET.decode()
    with (
        RelayThread(tmp_path / "relay") as relay,
        llmcrdt.open(tmp_path / "a.db") as a,
        llmcrdt.open(tmp_path / "b.db", library=a.library) as b,
    ):
        mine = a.create("talk")
        doomed = mine.append("user", word * 5)
        with a.connect(relay.url) as link:
            link.wait_synced(PATIENCE)
            with b.connect(relay.url) as away:
                away.wait_synced(PATIENCE)
            b.get(mine.id).append("user", "said while away")
            for n in range(50):
                mine.append("user", f"line {n}")
            mine.erase(doomed)
            control_of(link).request_compaction(mine.id).result(PATIENCE)
            assert found(tmp_path / "relay", SECRET) == []
            with b.connect(relay.url) as back:
                back.wait_synced(PATIENCE)
                link.wait_synced(PATIENCE)
                texts = [[part.text for part in e.parts] for e in mine.transcript()]
                assert texts == [[part.text for part in e.parts] for e in b.get(mine.id).transcript()]
                assert ["said while away"] in texts
                assert not any(word in text for parts in texts for text in parts)
            assert found(tmp_path / "relay", SECRET) == []
            with llmcrdt.open(tmp_path / "c.db", library=a.library) as c, c.connect(relay.url) as new:
                new.wait_synced(PATIENCE)
                assert texts == [[part.text for part in e.parts] for e in c.get(mine.id).transcript()]


def test_a_link_is_told_what_can_not_be_folded(tmp_path: Path) -> None:
    local = BlobDocuments(1)
    local.follow(DOCUMENT, "sealed")
    with RelayThread(tmp_path) as relay, Link(relay.url, local) as link:
        control = control_of(link)
        local.put(DOCUMENT, b"x")
        control.notify(DOCUMENT)
        with pytest.raises(RelayRefused):
            control.request_compaction(DOCUMENT).result(PATIENCE)


def start(data: Path) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "sync_server", "--port", "0", "--data", str(data)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout
    return child, child.stdout.readline().split()[-1]


def test_a_relay_killed_while_it_folds_loses_nothing_and_goes_on(tmp_path: Path) -> None:
    """Killed at some moment from the request to the last record swept; ``make soak`` does it 100 times."""
    updates = written(SECRET.decode() * 50, *(f"text {n} " * 30 for n in range(3000)), erase=True)
    rng = random.Random(3)
    child, url = start(tmp_path)
    try:
        fill(url, updates)
        for _ in range(int(os.environ.get("LLMCRDT_FOLD_KILLS", "4"))):
            options = {"subprotocols": [Subprotocol(SUBPROTOCOL)], "proxy": None, "close_timeout": 0}
            with connect(url + PATH, **options) as client:  # type: ignore[arg-type]
                for message in (Hello(), Open(D, "yjs"), Fold(D)):
                    client.send(codec.encode(message))
                time.sleep(rng.random() * 0.8)
                child.kill()
            child.communicate()
            child, url = start(tmp_path)
            assert words(stored(url)) == words(updates)
        assert ask_fold(url) == FOLD_DONE
        assert found(tmp_path, SECRET) == []
        fill(url, updates)  # an outbox sent again: nothing is there twice
        assert len(stored(url)) == 1
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
