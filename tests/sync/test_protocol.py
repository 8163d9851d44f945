"""A client's connection, frame by frame, against a relay that breaks the protocol."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.exceptions import MalformedFrame, RelayRefused
from llmcrdt.ids import document_id
from llmcrdt.sync import codec, messages
from llmcrdt.sync.events import CaughtUp, Opened, Refused, Welcomed
from llmcrdt.sync.messages import Ack, Error, ErrorCode, Message, Record, Records
from llmcrdt.sync.protocol import Connection
from llmcrdt.sync.synchronizer import Synchronizer
from llmcrdt.testing.local_documents import BlobDocuments
from tests.sync.one_document import EMPTY, ONE, THREE, TWO, D, S, T, cursor_after, hear, live, said


def test_hello_comes_first_and_openings_need_not_wait() -> None:
    connection = Connection("me", b"token")
    connection.open(D, "yjs", None)
    assert said(connection) == [messages.Hello("me", b"token", messages.FEATURES), messages.Open(D, "yjs", None)]
    assert not connection.fits(1)
    assert hear(connection, messages.Welcome()) == [Welcomed(messages.Welcome())]
    assert hear(connection, messages.Opened(D, messages.RESET, EMPTY, 0)) == [Opened(D, True), CaughtUp(D)]
    assert said(connection) == []


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
    # Pushes to the earlier opening no longer fill the window.
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


@pytest.mark.parametrize("code", [ErrorCode.READ_ONLY, ErrorCode.LOG_FULL, ErrorCode.SUBJECT_FULL])
def test_what_is_refused_for_good_takes_no_room_in_the_window(code: ErrorCode) -> None:
    connection = Connection("test")
    connection.open(D, "yjs", None)
    hear(connection, messages.Welcome(window_records=2), messages.Opened(D, messages.RESET, EMPTY, 0))
    connection.push(D, [Record(S, 1, b"a"), Record(S, 2, b"b")])
    assert not connection.fits(1)
    hear(connection, Error(code, "", D, S, 1))
    assert connection.fits(1)
