"""One log on one connection: positions, the chain, acks and snapshots, against a relay that breaks the protocol."""

from __future__ import annotations

import dataclasses

import pytest

from llmcrdt.exceptions import MalformedFrame
from llmcrdt.sync import messages
from llmcrdt.sync.chain import START
from llmcrdt.sync.events import Acked, Arrived, CaughtUp, Reached
from llmcrdt.sync.messages import Ack, Cursor, Message, Record, Records
from llmcrdt.sync.protocol import Connection
from tests.sync.one_document import EMPTY, ONE, THREE, TWO, D, S, T, cursor_after, hear, live, said


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
