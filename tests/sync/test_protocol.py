"""A client's connection, frame by frame, against a relay that breaks the protocol."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.exceptions import MalformedFrame, RelayRefused
from llmcrdt.ids import document_id
from llmcrdt.sync import codec, messages
from llmcrdt.sync.chain import START, advance, digest
from llmcrdt.sync.events import Acked, Arrived, CaughtUp, Event, Opened, Reached, Refused, Welcomed
from llmcrdt.sync.messages import Ack, Cursor, Error, ErrorCode, Message, Record, Records
from llmcrdt.sync.protocol import Connection
from llmcrdt.sync.synchronizer import Synchronizer
from llmcrdt.testing.local_documents import BlobDocuments

D, S, T, LOG = b"d" * 16, b"s" * 16, b"t" * 16, b"l" * 16
EMPTY = Cursor(LOG, 0, START)


def cursor_after(*records: Record, start: Cursor = EMPTY) -> Cursor:
    for record in records:
        start = advance(start, digest(D, record))
    return start


def hear(connection: Connection, *sent: Message) -> list[Event]:
    return [event for m in sent for event in connection.receive(codec.encode(m))]


def said(connection: Connection) -> list[Message]:
    return [codec.decode(frame) for frame in connection.drain_frames()]


def live(cursor: Cursor | None = EMPTY, head: Cursor | None = None) -> Connection:
    """A connection with one document open."""
    connection = Connection("test")
    connection.open(D, "yjs", cursor)
    start = cursor or EMPTY
    how = messages.RESUMED if cursor else messages.RESET
    hear(connection, messages.Welcome(), messages.Opened(D, how, head or start, start.position))
    connection.drain_frames()
    return connection


ONE, TWO, THREE = Record(T, 1, b"a"), Record(S, 1, b"b"), Record(T, 2, b"c")


def test_hello_comes_first_and_openings_need_not_wait() -> None:
    connection = Connection("me", b"token")
    connection.open(D, "yjs", None)
    assert said(connection) == [messages.Hello("me", b"token", messages.FEATURES), messages.Open(D, "yjs", None)]
    assert not connection.fits(1)
    assert hear(connection, messages.Welcome()) == [Welcomed(messages.Welcome())]
    assert hear(connection, messages.Opened(D, messages.RESET, EMPTY, 0)) == [Opened(D, True), CaughtUp(D)]
    assert said(connection) == []


def test_the_cursor_moves_with_records_and_acks() -> None:
    connection = live()
    connection.push(D, [TWO])
    assert said(connection) == [messages.Push(D, S, 1, (b"b",))]
    end = cursor_after(ONE)
    assert hear(connection, Records(D, 1, (ONE,))) == [Arrived(D, (ONE,), end)]
    assert hear(connection, Ack(D, S, 1, 1, 2)) == [Acked(D, ((S, 1),), cursor_after(ONE, TWO))]
    assert hear(connection, Records(D, 3, (THREE,))) == [Arrived(D, (THREE,), cursor_after(ONE, TWO, THREE))]


def test_the_ack_of_a_repeat_moves_no_cursor() -> None:
    start = cursor_after(ONE, TWO)
    connection = live(start)
    connection.push(D, [TWO])
    assert hear(connection, Ack(D, S, 1, 1, 2)) == [Acked(D, ((S, 1),), start)]
    assert hear(connection, Ack(D, S, 1, 1, 2)) == [Acked(D, (), start)]


def test_caught_up_comes_once_where_the_head_was() -> None:
    head = cursor_after(ONE, TWO)
    connection = live(None, head)
    assert hear(connection, Records(D, 1, (ONE,))) == [Arrived(D, (ONE,), cursor_after(ONE))]
    three = Records(D, 2, (TWO, THREE))
    assert hear(connection, three) == [Arrived(D, (TWO, THREE), cursor_after(ONE, TWO, THREE)), CaughtUp(D)]
    assert hear(connection, messages.Reached(4)) == [Reached(4)]


@pytest.mark.parametrize(
    "message",
    [
        Records(D, 2, (ONE,)),
        Records(D, 5, (ONE,)),
        Ack(D, S, 1, 1, 1),
        Ack(D, T, 9, 1, 3),
        messages.Welcome(),
        messages.Hello(),
        messages.Barrier(1),
        messages.Opened(b"?" * 16, messages.RESET, EMPTY, 0),
        messages.Opened(D, messages.RESET, EMPTY, 0),
    ],
)
def test_a_relay_that_breaks_the_protocol_is_found_out(message: Message) -> None:
    connection = live(cursor_after(ONE, TWO))
    if isinstance(message, Ack) and message.session == S:
        # Known to the relay before, so it is at or below the cursor: a repeat, and no fault.
        assert hear(connection, message) == [Acked(D, (), cursor_after(ONE, TWO))]
        return
    with pytest.raises(MalformedFrame):
        hear(connection, message)


def test_a_log_that_is_not_what_its_head_says_is_found_out() -> None:
    connection = live(None, cursor_after(ONE, TWO))
    with pytest.raises(MalformedFrame, match="chain"):
        hear(connection, Records(D, 1, (ONE, TWO._replace(data=b"changed"))))


def test_a_relay_resumes_only_at_the_cursor() -> None:
    for head, position in [(cursor_after(ONE, TWO), 2), (Cursor(b"?" * 16, 1, START), 1)]:
        connection = Connection()
        connection.open(D, "yjs", cursor_after(ONE))
        with pytest.raises(MalformedFrame):
            hear(connection, messages.Welcome(), messages.Opened(D, messages.RESUMED, head, position))


def test_nothing_comes_before_the_greeting() -> None:
    with pytest.raises(MalformedFrame):
        hear(Connection(), messages.Reached(1))
    error = Error(ErrorCode.TOO_MANY_CONNECTIONS, "Try again later.", retry_after=5)
    assert hear(Connection(), error) == [Refused(error)]


def test_what_belongs_to_an_earlier_opening_is_ignored() -> None:
    connection = live()
    connection.push(D, [Record(S, 1, b"x" * 100)])
    connection.open(D, "yjs", None)
    stale: list[Message] = [Records(D, 1, (ONE,)), Ack(D, S, 1, 1, 2), Error(ErrorCode.GAP, "", D, S, 1)]
    assert hear(connection, *stale) == []
    connection.open(D, "yjs", None)
    assert hear(connection, messages.Opened(D, messages.RESET, cursor_after(ONE), 0), *stale[:1]) == []
    assert hear(connection, messages.Opened(D, messages.RESET, cursor_after(ONE), 0)) == [Opened(D, True)]
    assert len(hear(connection, Records(D, 1, (ONE,)))) == 2
    # What was pushed to the earlier opening no longer fills the window.
    connection.push(D, [Record(S, 1, b"x" * 10)])
    assert connection.fits(messages.Welcome().window_bytes - 10)
    assert not connection.fits(messages.Welcome().window_bytes - 9)


def test_what_comes_for_a_closed_document_is_ignored() -> None:
    connection = live()
    connection.close(D)
    assert hear(connection, Records(D, 1, (ONE,))) == []
    connection.open(D, "yjs", None)
    connection.close(D)
    assert hear(connection, messages.Opened(D, messages.RESET, EMPTY, 0)) == []
    with pytest.raises(MalformedFrame):
        hear(connection, messages.Opened(D, messages.RESET, EMPTY, 0))


@pytest.mark.parametrize("code", [ErrorCode.WRONG_KIND, ErrorCode.TOO_MANY_DOCUMENTS, 41, 1000])
def test_a_refused_opening_is_no_opening(code: int) -> None:
    connection = Connection()
    connection.open(D, "yjs", EMPTY)
    connection.open(D, "yjs", None)
    error = Error(code, "no", D)
    assert hear(connection, messages.Welcome(), error)[1:] == []
    assert hear(connection, error) == [Refused(error)]
    assert not connection.is_open(D)
    with pytest.raises(MalformedFrame):
        hear(connection, messages.Opened(D, messages.RESET, EMPTY, 0))


def test_the_window_counts_records_and_bytes() -> None:
    connection = Connection()
    connection.open(D, "yjs", EMPTY)
    hear(
        connection, messages.Welcome(window_records=3, window_bytes=10), messages.Opened(D, messages.RESUMED, EMPTY, 0)
    )
    assert connection.fits(1000)
    assert not connection.fits(11, more=1)
    connection.push(D, [Record(S, 1, b"12345"), Record(S, 2, b"1234")])
    assert connection.fits(1)
    assert not connection.fits(2)
    assert not connection.fits(1, more=1)
    hear(connection, Ack(D, S, 1, 1, 1))
    assert connection.fits(6)
    assert connection.fits(1, more=1)


logs = st.lists(st.sampled_from([ONE, TWO, THREE]), min_size=1).map(tuple)
any_message = st.one_of(
    st.builds(Records, st.just(D), st.integers(1, 4), logs),
    st.builds(Ack, st.just(D), st.sampled_from([S, T]), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4)),
    st.sampled_from([messages.Opened(D, messages.RESET, head, 0) for head in (EMPTY, cursor_after(ONE))]),
    st.builds(Error, st.integers(1, 45), st.just(""), st.sampled_from([None, D]), st.sampled_from([None, S])),
    st.sampled_from([messages.Welcome(), messages.Reached(1), messages.Hello()]),
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(any_message.map(codec.encode) | st.binary(max_size=40), max_size=12))
def test_no_relay_can_make_a_follower_fail_in_another_way(frames: list[bytes]) -> None:
    """MalformedFrame and RelayRefused end a connection; nothing else comes out, and nothing local is lost."""
    name = document_id(D)
    local = BlobDocuments(1)
    local.follow(name)
    local.put(name, b"mine")
    synchronizer = Synchronizer(local, lambda: 0.5)
    synchronizer.connected()
    for frame in [codec.encode(messages.Welcome()), *frames]:
        try:
            synchronizer.receive(frame)
        except (MalformedFrame, RelayRefused):
            break
        synchronizer.drain_frames()
        for _, document, opening in synchronizer.drain_timers():
            synchronizer.timer_expired(document, opening)
    assert b"mine" in local.blobs(name)


def part(n: int = 1, count: int = 1, data: bytes = b"abc", offset: int = 0, size: int = 0, **other: object) -> Message:
    whole = messages.Snapshot(D, 3, cursor_after(ONE, TWO, THREE).chain, S, n, count, size or len(data), offset, data)
    return dataclasses.replace(whole, **other)  # type: ignore[arg-type]


def test_a_snapshot_comes_in_parts_and_moves_the_cursor_at_its_end() -> None:
    head = cursor_after(ONE, TWO, THREE)
    connection = live(cursor_after(ONE), head)
    assert hear(connection, part(1, 2, b"ab", 0, 3), part(1, 2, b"c", 2, 3)) == []
    assert connection.cursor(D) == cursor_after(ONE)
    records = (Record(S, 1, b"abc"), Record(S, 2, b"d"))
    assert hear(connection, part(2, 2, b"d")) == [Arrived(D, records, head), CaughtUp(D)]
    assert connection.cursor(D) == head


def test_a_newer_snapshot_takes_the_place_of_one_under_way() -> None:
    connection = live(None, cursor_after(ONE, TWO, THREE))
    hear(connection, part(1, 2, b"ab", 0, 3))
    (arrived, _) = hear(connection, part(1, 1, b"new", session=T))
    assert isinstance(arrived, Arrived)
    assert arrived.records == (Record(T, 1, b"new"),)


def test_a_snapshot_past_the_head_of_the_opening_ends_the_catching_up() -> None:
    connection = live(EMPTY, cursor_after(ONE, TWO))
    assert hear(connection, part())[1:] == [CaughtUp(D)]


WRONG_PARTS = {
    "not behind the cursor": [part(position=1)],
    "the middle first": [part(1, 1, b"c", 2, 3)],
    "a record left out": [part(2, 2)],
    "a piece left out": [part(1, 1, b"a", 0, 3), part(1, 1, b"c", 2, 3)],
    "a record between the parts": [part(1, 1, b"a", 0, 3), Records(D, 2, (TWO,))],
    "another chain than the head's": [part(chain=bytes(32))],
}


@pytest.mark.parametrize("name", WRONG_PARTS)
def test_a_snapshot_that_can_not_be_ends_the_connection(name: str) -> None:
    connection = live(cursor_after(ONE), cursor_after(ONE, TWO, THREE))
    with pytest.raises(MalformedFrame):
        hear(connection, *WRONG_PARTS[name])


@pytest.mark.parametrize("code", [ErrorCode.READ_ONLY, ErrorCode.LOG_FULL, ErrorCode.SUBJECT_FULL])
def test_what_is_refused_for_good_takes_no_room_in_the_window(code: ErrorCode) -> None:
    connection = Connection("test")
    connection.open(D, "yjs", None)
    hear(connection, messages.Welcome(window_records=2), messages.Opened(D, messages.RESET, EMPTY, 0))
    connection.push(D, [Record(S, 1, b"a"), Record(S, 2, b"b")])
    assert not connection.fits(1)
    hear(connection, Error(code, "", D, S, 1))
    assert connection.fits(1)
