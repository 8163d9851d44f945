"""The events of frames that come together: what is kept in one transaction, and what is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcrdt.exceptions import MalformedFrame
from llmcrdt.ids import document_id
from llmcrdt.sync import chain, codec
from llmcrdt.sync.events import Acked, Arrived, CaughtUp, Deleted, Event, Opened, Reached
from llmcrdt.sync.group_commit import GroupCommit
from llmcrdt.sync.messages import RESET, RESUMED, Cursor, Message, Push, Record, Records, Welcome
from llmcrdt.sync.messages import Opened as OpenedMessage
from llmcrdt.sync.synchronizer import Synchronizer
from llmcrdt.testing.local_documents import BlobDocuments, pack

D, LOG = b"d" * 16, b"l" * 16
CURSOR = Cursor(LOG, 1, b"c" * 32)
documents = st.sampled_from([b"a" * 16, b"b" * 16])
events: st.SearchStrategy[Event] = st.one_of(
    documents.map(lambda d: Opened(d, False)),
    documents.map(lambda d: Arrived(d, (), CURSOR)),
    documents.map(lambda d: Acked(d, (), CURSOR)),
    documents.map(CaughtUp),
    st.just(Reached(1)),
    documents.map(lambda d: Deleted(d, 0)),
)


class Noting(BlobDocuments):
    """Notes what is kept together."""

    def __init__(self) -> None:
        super().__init__(1)
        self.kept: list[list[Event]] = []
        self.within = False

    @contextmanager
    def transaction(self) -> Iterator[None]:
        assert not self.within
        self.within = True
        self.kept.append([])
        with super().transaction():
            try:
                yield
            finally:
                self.within = False


@given(st.lists(events))
def test_what_is_said_of_logs_is_kept_together_and_nothing_else(said: list[Event]) -> None:
    local, ends = Noting(), list[int]()
    with GroupCommit(local, lambda: ends.append(len(local.kept))) as kept:
        for event in said:
            kept.before(event)
            assert local.within is isinstance(event, Opened | Arrived | Acked | CaughtUp)
            if local.within:
                local.kept[-1].append(event)
        kept.end()
        assert not local.within
    assert [event for group in local.kept for event in group] == [
        e for e in said if not isinstance(e, Reached | Deleted)
    ]
    assert ends == list(range(1, len(local.kept) + 1)), "whoever waits for the end was not called once for each"
    for group in local.kept:
        for at, event in enumerate(group):
            later = [e for e in group[at:] if isinstance(e, Arrived) and e.document == event.document]
            assert not (isinstance(event, Acked) and later), "read before what the acknowledgement decides"


def _following() -> tuple[BlobDocuments, Synchronizer]:
    local = BlobDocuments(1)
    local.follow(document_id(D))
    synchronizer = Synchronizer(local, lambda: 0.5)
    synchronizer.connected()
    synchronizer.receive(codec.encode(Welcome()), codec.encode(OpenedMessage(D, RESET, Cursor(LOG, 0, chain.START), 0)))
    return local, synchronizer


def _records(position: int, blob: bytes) -> Message:
    return Records(D, position, (Record(b"s" * 16, position, pack([blob])),))


def test_frames_before_a_malformed_one_are_kept() -> None:
    local, synchronizer = _following()
    with pytest.raises(MalformedFrame):
        synchronizer.receive(codec.encode(_records(1, b"one")), codec.encode(_records(2, b"two")), b"\xff")
    assert local.blobs(document_id(D)) == {b"one", b"two"}
    assert local[document_id(D)].cursor is not None and local[document_id(D)].cursor.position == 2  # type: ignore[union-attr]


def test_where_one_can_not_be_kept_none_is_and_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    local, synchronizer = _following()
    real = local.received

    def full(document: str, records: list[Record], cursor: Cursor | None) -> bool:
        if cursor is not None and cursor.position == 2:
            raise OSError("the disk is full")
        return real(document, records, cursor)  # type: ignore[arg-type]

    monkeypatch.setattr(local, "received", full)
    local.put(document_id(D), b"said here")
    synchronizer.local_changed(document_id(D))
    with pytest.raises(OSError, match="full"):
        synchronizer.receive(codec.encode(_records(1, b"one")), codec.encode(_records(2, b"two")))
    assert local.blobs(document_id(D)) == {b"said here"} and not synchronizer.drain_frames()
    assert local[document_id(D)].cursor == Cursor(LOG, 0, chain.START)


def test_what_is_said_while_a_document_is_opened_leaves_when_it_is_open() -> None:
    """With a cursor and nothing in its outbox, nobody looks there again, unless something was told of."""
    local, synchronizer = _following()
    for told in (False, True):
        synchronizer.connected()
        synchronizer.receive(codec.encode(Welcome()))
        if told:
            local.put(document_id(D), b"said meanwhile")
            synchronizer.local_changed(document_id(D))
        synchronizer.receive(codec.encode(OpenedMessage(D, RESUMED, Cursor(LOG, 0, chain.START), 0)))
        sent = [codec.decode(frame) for frame in synchronizer.drain_frames()]
        assert any(isinstance(message, Push) for message in sent) is told
