"""When a relay is asked to delete a document: not before it has all that says so."""

from __future__ import annotations

import pytest

from llmcrdt.exceptions import RelayRefused
from llmcrdt.ids import DocumentId, document_bytes, document_id
from llmcrdt.sync import codec
from llmcrdt.sync.chain import START
from llmcrdt.sync.deletion_requests import MAX_UNDER_WAY, DeletionRequests
from llmcrdt.sync.messages import (
    DELETE_DONE,
    DELETE_REFUSED,
    FEATURES,
    PRESENCE,
    RESET,
    RESUMED,
    Ack,
    Barrier,
    Close,
    Cursor,
    Delete,
    Deleted,
    Error,
    ErrorCode,
    Message,
    Open,
    Opened,
    Push,
    Reached,
    Welcome,
)
from llmcrdt.sync.protocol import Connection
from llmcrdt.sync.synchronizer import Synchronizer
from llmcrdt.testing.local_documents import BlobDocuments

LIBRARY, GONE = document_id(b"l" * 16), document_id(b"g" * 16)
CURSOR = Cursor(b"c" * 16, 1, bytes(32))
EMPTY = Cursor(b"c" * 16, 0, START)


def connected(features: int = FEATURES) -> Connection:
    connection = Connection()
    connection.receive(codec.encode(Welcome(features=features)))
    connection.drain_frames()
    return connection


def library() -> BlobDocuments:
    local = BlobDocuments(1)
    local.follow(LIBRARY)
    local.put(LIBRARY, b"it is deleted")
    return local


def asked(connection: Connection) -> list[Message]:
    return [codec.decode(frame) for frame in connection.drain_frames()]


def tell(synchronizer: Synchronizer, *messages: Message) -> list[Message]:
    """The relay says something. Returns what it gets for it."""
    for message in messages:
        synchronizer.receive(codec.encode(message))
    return [codec.decode(frame) for frame in synchronizer.drain_frames()]


def acknowledge_all(local: BlobDocuments) -> None:
    local.refill(LIBRARY, [w.record.data for w in local.outbox(LIBRARY)], CURSOR)


def test_it_waits_for_the_library_and_is_asked_once() -> None:
    local, connection, answers = library(), connected(), list[int]()
    deletions = DeletionRequests(local)
    deletions.add(GONE, LIBRARY, answers.append)
    deletions.ask(connection)
    assert asked(connection) == []
    acknowledge_all(local)
    deletions.ask(connection)
    deletions.ask(connection)
    assert asked(connection) == [Delete(document_bytes(GONE))]
    deletions.answered(GONE, DELETE_DONE)
    deletions.start_over()
    deletions.ask(connection)
    assert asked(connection) == [] and answers == [DELETE_DONE]


def test_one_record_in_the_place_of_those_that_waited_has_to_be_acknowledged_too() -> None:
    local, connection = library(), connected()
    deletions = DeletionRequests(local)
    deletions.add(GONE, LIBRARY, lambda outcome: None)
    local.refill(LIBRARY, [], CURSOR)
    assert local.outbox(LIBRARY), "the refill waits"
    deletions.ask(connection)
    assert asked(connection) == []
    acknowledge_all(local)
    deletions.ask(connection)
    assert asked(connection) == [Delete(document_bytes(GONE))]


def test_it_waits_until_the_relay_has_what_was_durable_before() -> None:
    """A relay that went back to an old copy may lack the library's word; only its answer to OPEN tells."""
    local, connection = library(), connected()
    acknowledge_all(local)
    deletions = DeletionRequests(local)
    deletions.add(GONE, LIBRARY, lambda outcome: None)
    assert not deletions.ask(connection, {LIBRARY}) and deletions.held_back
    assert deletions.ask(connection, {DocumentId("another")}) and not deletions.held_back
    assert asked(connection) == [Delete(document_bytes(GONE))]


def test_what_was_not_answered_is_asked_for_on_the_next_connection() -> None:
    local, one, two = library(), connected(), connected()
    acknowledge_all(local)
    deletions = DeletionRequests(local)
    deletions.add(GONE, LIBRARY, lambda outcome: None)
    deletions.ask(one)
    deletions.start_over()
    deletions.ask(two)
    assert asked(one) == asked(two) == [Delete(document_bytes(GONE))]


def test_an_older_relay_is_not_asked_and_the_next_connection_is() -> None:
    local, old, new = library(), connected(features=PRESENCE), connected()
    acknowledge_all(local)
    deletions = DeletionRequests(local)
    deletions.add(GONE, LIBRARY, lambda outcome: None)
    deletions.ask(old)
    assert asked(old) == []
    deletions.start_over()
    deletions.ask(new)
    assert asked(new) == [Delete(document_bytes(GONE))]
    deletions.start_over()  # no answer came
    again = connected()
    deletions.ask(again)
    assert asked(again) == [Delete(document_bytes(GONE))]


def test_a_thousand_are_asked_for_a_few_at_a_time_and_who_waits_waits_for_all() -> None:
    """A relay drops whoever has more than 1,024 under way."""
    local, done, outcomes = library(), list[object](), list[int]()
    acknowledge_all(local)
    synchronizer = Synchronizer(local, lambda: 0.0)
    gone = [document_id(n.to_bytes(16, "big")) for n in range(1000)]
    for document in gone:
        synchronizer.request_deletion(document, LIBRARY, outcomes.append)
    synchronizer.connected()
    synchronizer.add_waiter(done.append)
    to_say: list[Message] = [Welcome(features=FEATURES)]
    to_say.append(Opened(document_bytes(LIBRARY), RESUMED, CURSOR, CURSOR.position))
    under_way: list[bytes] = []
    asked = 0
    while to_say:
        synchronizer.receive(codec.encode(to_say.pop(0)))
        for message in map(codec.decode, synchronizer.drain_frames()):
            if isinstance(message, Delete):
                under_way.append(message.document)
                asked += 1
            elif isinstance(message, Barrier):
                assert asked == len(gone), "before, there is nothing to be told"
                to_say.append(Reached(message.id))
        assert len(under_way) <= MAX_UNDER_WAY < 1024
        if under_way and not to_say:
            to_say.append(Deleted(under_way.pop(0), DELETE_DONE))
    assert outcomes == [DELETE_DONE] * len(gone) and done == [None]


def test_who_asks_twice_is_answered_twice_and_the_relay_is_asked_once() -> None:
    local, connection, answers = library(), connected(), list[int]()
    acknowledge_all(local)
    deletions = DeletionRequests(local)
    for _ in range(2):
        deletions.add(GONE, LIBRARY, answers.append)
        deletions.ask(connection)
    assert asked(connection) == [Delete(document_bytes(GONE))]
    deletions.answered(GONE, DELETE_REFUSED)
    assert answers == [DELETE_REFUSED] * 2


@pytest.mark.parametrize("reached_first", [True, False])
def test_who_waits_to_be_in_step_waits_until_the_relay_has_heard_of_it(reached_first: bool) -> None:
    local, done = library(), list[object]()
    raw = document_bytes(LIBRARY)
    synchronizer = Synchronizer(local, lambda: 0.0)
    synchronizer.connected()
    synchronizer.request_deletion(GONE, LIBRARY, done.append)
    tell(synchronizer, Welcome(features=FEATURES))
    synchronizer.add_waiter(done.append)
    *_, push, barrier = tell(synchronizer, Opened(raw, RESET, EMPTY, 0))
    assert isinstance(push, Push) and barrier == Barrier(1)
    ack, reached = Ack(raw, push.session, push.n, 1, 1), Reached(1)
    said = tell(synchronizer, *((reached, ack) if reached_first else (ack, reached)))
    assert said == [Delete(document_bytes(GONE)), Barrier(2)]
    assert done == []
    tell(synchronizer, Deleted(document_bytes(GONE), DELETE_REFUSED), Reached(2))
    assert done == [DELETE_REFUSED, None]


@pytest.mark.parametrize("explained", [True, False])
def test_gone_is_a_refusal_only_where_the_library_does_not_say_why(explained: bool) -> None:
    """The one who waits had heard all that there was, and waits for an ack. The library tells of it after GONE."""
    local, done = BlobDocuments(1), list[RelayRefused | None]()
    for document in (LIBRARY, GONE):
        local.follow(document)
    local.put(GONE, b"never acknowledged")
    synchronizer = Synchronizer(local, lambda: 0.0)
    synchronizer.connected()
    tell(synchronizer, Welcome(features=FEATURES))
    synchronizer.add_waiter(done.append)
    tell(synchronizer, *(Opened(document_bytes(document), RESET, EMPTY, 0) for document in (LIBRARY, GONE)))
    tell(synchronizer, Reached(1))
    said = tell(synchronizer, Error(ErrorCode.GONE, "It was deleted.", document_bytes(GONE)))
    assert said == [Barrier(2)] and done == []
    if explained:
        local.forget(GONE)
        synchronizer.local_changed()
    tell(synchronizer, Reached(2))
    assert [why and why.code for why in done] == [None if explained else ErrorCode.GONE]


@pytest.mark.parametrize(
    ("answer", "lost"),
    [
        (Opened(document_bytes(GONE), RESET, EMPTY, 0), 1),
        (Error(ErrorCode.WRONG_KIND, "", document_bytes(GONE)), 1),
        (Error(ErrorCode.GONE, "", document_bytes(GONE)), 0),
        (Error(ErrorCode.FORBIDDEN, "", document_bytes(GONE)), 0),
    ],
)
def test_a_relay_is_asked_whether_it_knows_what_it_deleted_last(
    monkeypatch: pytest.MonkeyPatch, answer: Message, lost: int
) -> None:
    local, noted = library(), list[None]()
    monkeypatch.setattr(local, "deleted_last", lambda: [GONE])
    monkeypatch.setattr(local, "lost", lambda: noted.append(None))
    synchronizer = Synchronizer(local, lambda: 0.0)
    for connection in (1, 2):
        synchronizer.connected()
        asked = [m for m in map(codec.decode, synchronizer.drain_frames()) if isinstance(m, Open)]
        assert asked[-1].document == document_bytes(GONE) and asked[-1].cursor is None
        said = tell(synchronizer, Welcome(features=FEATURES), answer)
        opened = isinstance(answer, Opened)
        assert [m for m in said if isinstance(m, Close)] == [Close(document_bytes(GONE))] * opened
        assert len(noted) == lost * connection and not synchronizer.refused
