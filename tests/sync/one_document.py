"""A connection with one document open, and records for it."""

from __future__ import annotations

from llmcrdt.sync import codec, messages
from llmcrdt.sync.chain import START, advance, digest
from llmcrdt.sync.events import Event
from llmcrdt.sync.messages import Cursor, Message, Record
from llmcrdt.sync.protocol import Connection

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
