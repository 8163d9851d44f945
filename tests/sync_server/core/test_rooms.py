"""The rooms, without sockets: what each peer is sent, in which order, and what it is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.sync.messages import (
    PRESENCE,
    RESET,
    RESUMED,
    Ack,
    Announcement,
    Barrier,
    Close,
    Error,
    ErrorCode,
    Open,
    Opened,
    Presence,
    Reached,
    Record,
    Records,
)
from llmcrdt.varint import MAX_UINT
from sync_server.core.events import Event, Greeted, Joined, Sent, Tick
from sync_server.core.limits import Limits
from sync_server.core.validation import Left, Received

from .rooms_relay import D, E, Relay, S, T, end, opened, push


def test_a_push_is_acknowledged_to_its_peer_and_sent_to_the_others(relay: Relay) -> None:
    for peer in (1, 2, 3):
        assert opened(relay, peer).how == RESET
    assert relay.say(1, push(b"a", b"b")) == [Ack(D, S, 1, 2, 1)]
    assert relay.got(2)[1:] == relay.got(3)[1:] == [Records(D, 1, (Record(S, 1, b"a"), Record(S, 2, b"b")))]


def test_acks_and_records_come_in_the_order_of_the_log(relay: Relay) -> None:
    opened(relay, 1)
    opened(relay, 2)
    relay.inbox.clear()
    relay.step(
        Received(1, push(b"a", b"b")), Received(2, push(b"c", session=T)), Received(1, push(b"d", n=3)),
    )  # fmt: skip
    assert relay.got(1) == [Ack(D, S, 1, 2, 1), Records(D, 3, (Record(T, 1, b"c"),)), Ack(D, S, 3, 1, 4)]
    ours, ack, rest = relay.got(2)
    assert (ours, ack) == (Records(D, 1, (Record(S, 1, b"a"), Record(S, 2, b"b"))), Ack(D, T, 1, 1, 3))
    assert rest == Records(D, 4, (Record(S, 3, b"d"),))


def test_an_opening_says_where_the_log_is_and_sends_what_lies_behind(relay: Relay) -> None:
    opened(relay, 1)
    relay.say(1, push(b"a"))
    middle = end(relay)
    relay.say(1, push(b"b", n=2))
    first, *stream = relay.say(2, Open(D, "yjs", middle))
    assert first == Opened(D, RESUMED, end(relay), 1)
    assert stream == [Records(D, 2, (Record(S, 2, b"b"),))]
    assert relay.say(3, Open(D, "yjs", end(relay))) == [Opened(D, RESUMED, end(relay), 2)]


@pytest.mark.parametrize(
    "change",
    [
        {"log": b"?" * 16},
        {"position": 3},
        {"position": 1},
        {"position": 0},
        {"chain": b"?" * 32},
        {"position": MAX_UINT},
    ],
)
def test_a_cursor_that_is_no_place_in_the_log_starts_over(relay: Relay, change: dict) -> None:
    opened(relay, 1)
    relay.say(1, push(b"a", b"b"))
    first, *stream = relay.say(2, Open(D, "yjs", end(relay)._replace(**change)))
    assert first == Opened(D, RESET, end(relay), 0)
    assert stream == [Records(D, 1, (Record(S, 1, b"a"), Record(S, 2, b"b")))]


def test_to_open_writes_nothing_and_closing_forgets(relay: Relay) -> None:
    log_id = opened(relay, 1).head.log
    assert opened(relay, 2).head.log == log_id
    assert relay.log.records.head(D) is None
    relay.say(1, Close(D))
    assert relay.rooms.documents == 1
    relay.step(Left(2))
    assert relay.rooms.documents == 0
    assert relay.say(1, push(b"a")) == [Error(ErrorCode.NOT_OPEN, "Open the document first.", D, S, 1)]
    assert opened(relay, 1).head.log != log_id


def test_a_document_has_one_kind(relay: Relay) -> None:
    opened(relay, 1)
    (refused,) = relay.say(2, Open(D, "automerge"))
    assert isinstance(refused, Error)
    assert refused.code == ErrorCode.WRONG_KIND
    relay.say(1, push(b"a"), Close(D))
    (refused,) = relay.say(2, Open(D, "automerge"))
    assert isinstance(refused, Error)
    assert refused.code == ErrorCode.WRONG_KIND


def test_a_connection_opens_only_so_many_documents(relay: Relay) -> None:
    opened(relay, 1, D)
    opened(relay, 1, E)
    opened(relay, 1, E)
    (refused,) = relay.say(1, Open(b"f" * 16, "yjs"))
    assert isinstance(refused, Error)
    assert (refused.code, refused.document) == (ErrorCode.TOO_MANY_DOCUMENTS, b"f" * 16)
    relay.say(1, Close(D))
    opened(relay, 1, b"f" * 16)


def test_who_does_not_wait_for_acks_is_dropped(relay: Relay) -> None:
    opened(relay, 1)
    opened(relay, 2)
    relay.step(Received(1, push(*[b"x" * 60] * 20)))
    assert not relay.dropped
    relay.step(*(Received(1, push(*[b"x"] * 7, n=n)) for n in (21, 28, 35)))
    assert relay.dropped[1].code == ErrorCode.WINDOW_EXCEEDED
    assert relay.say(1, push(b"late")) == []
    assert relay.say(2, push(b"y", session=T))


def test_opening_again_empties_the_window(relay: Relay) -> None:
    opened(relay, 1)
    relay.step(Received(1, push(*[b"x" * 60] * 20)))
    for _ in range(3):
        # A push is acknowledged only after what the queue has no room for.
        relay.step(Received(1, Open(D, "yjs")), Received(1, push(*[b"x" * 60] * 20)))
    assert relay.rooms._subscriptions.peers[1].unacked <= 20
    assert not relay.dropped


def test_when_the_disk_is_full_nothing_is_acknowledged_and_nothing_else_breaks(relay: Relay) -> None:
    for peer in (1, 2, 3):
        opened(relay, peer)
    relay.say(1, push(b"a"))
    relay.inbox.clear()
    connection = relay.log.database.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    events = [Received(1, push(b"x" * 400, n=n)) for n in range(2, 21)]
    relay.step(*events, Left(3), Joined(4), Received(2, push(b"y", session=T)))
    assert relay.inbox == {}
    assert {peer: e.code for peer, e in relay.dropped.items()} == {1: ErrorCode.STORAGE, 2: ErrorCode.STORAGE}
    assert relay.dropped[1].retry_after == 1000
    connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
    assert [m.position for m in relay.say(4, Open(D, "yjs")) if isinstance(m, Records)] == [1]
    assert relay.say(4, push(b"b", n=2)) == [Ack(D, S, 2, 1, 2)]
    relay.join(1)
    opened(relay, 1, cursor=end(relay))


def test_readers_keep_their_place_when_a_step_fails(relay: Relay) -> None:
    """Peer 3 only reads: a step that was undone must not move it."""
    opened(relay, 1)
    opened(relay, 3)
    connection = relay.log.database.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    relay.step(*(Received(1, push(b"x" * 400, n=n)) for n in range(1, 20)))
    assert set(relay.dropped) == {1}
    connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
    relay.got(3)
    assert opened(relay, 2).head.position == 0
    relay.say(2, push(b"a"))
    assert relay.got(3) == [Records(D, 1, (Record(S, 1, b"a"),))]


peers = st.integers(1, 3)
actions = st.one_of(
    st.tuples(st.just("push"), peers, st.integers(1, 4), st.integers(1, 60)),
    st.tuples(st.just("sent"), peers),
    st.tuples(st.just("barrier"), peers),
    st.tuples(st.just("reopen"), peers),
    st.tuples(st.just("step")),
)


@settings(deadline=None, max_examples=80)
@given(plan=st.lists(st.lists(actions, max_size=5), max_size=12))
def test_every_peer_can_follow_the_chain(tmp_path_factory: pytest.TempPathFactory, plan: list) -> None:
    """Positions without holes, acks in their place, barriers behind what they cover; for any schedule."""
    relay = Relay(tmp_path_factory.mktemp("rooms"), batch=100, outgoing=500, window_records=10_000, barriers=1000)
    relay.join(1, 2, 3)
    sessions = {p: bytes([p]) * 16 for p in (1, 2, 3)}
    n = dict.fromkeys(sessions, 1)
    barriers: dict[int, tuple[int, int]] = {}
    relay.step(*(Received(p, Open(D, "yjs")) for p in sessions))
    for group in plan:
        events: list[Event] = []
        for name, *arguments in group:
            if name == "push":
                peer, count, size = arguments
                events.append(Received(peer, push(*[b"x" * size] * count, n=n[peer], session=sessions[peer])))
                n[peer] += count
            elif name == "sent":
                events.append(Sent(arguments[0], relay.weights.pop(arguments[0], 0)))
            elif name == "barrier":
                number = len(barriers) + 1
                head = relay.log.records.head(D)
                barriers[number] = (arguments[0], head.cursor.position if head else 0)
                events.append(Received(arguments[0], Barrier(number)))
            elif name == "reopen":
                # All that a barrier covers was queued to the opening before.
                barriers |= {k: (peer, 0) for k, (peer, _) in barriers.items() if peer == arguments[0]}
                events.append(Received(arguments[0], Open(D, "yjs")))
        relay.step(*events)
    while relay.rooms._subscriptions.lagging or relay.rooms.more:
        relay.sent(1, 2, 3)
    head = relay.log.records.head(D)
    reached = set()
    for messages in relay.inbox.values():
        at = 0
        for m in messages:
            if isinstance(m, Opened):
                at = m.position
            elif isinstance(m, Records):
                assert m.position == at + 1
                at += len(m.records)
            elif isinstance(m, Ack):
                assert m.position == at + 1
                at += m.count
            elif isinstance(m, Reached):
                assert at >= barriers[m.id][1]
                reached.add(m.id)
            else:
                raise AssertionError(m)
        assert at == (head.cursor.position if head else 0)
    assert reached == set(barriers)
    relay.log.close()


# ---------------------------------------------------------------- presence


HERE = Announcement(7, 0, '{"typing":true}')


def test_presence_goes_to_readers_that_know_it_with_a_tick(relay: Relay) -> None:
    relay.step(Greeted(1, PRESENCE), Greeted(2, PRESENCE))
    for peer in (1, 2, 3):
        opened(relay, peer)
    relay.inbox.clear()
    relay.step(Received(1, Presence(D, (HERE,))))
    assert not relay.inbox and relay.rooms.announces
    relay.step(Tick())
    assert relay.inbox == {2: [Presence(D, (HERE,))]} and not relay.rooms.announces


def test_presence_comes_behind_opened_and_goes_with_its_connection(relay: Relay) -> None:
    relay.step(Greeted(1, PRESENCE), Greeted(2, PRESENCE))
    opened(relay, 1)
    relay.step(Received(1, Presence(D, (HERE,))))
    relay.step(Received(2, Open(D, "yjs", None)), Tick())
    assert [type(m) for m in relay.got(2)] == [Opened, Presence]
    relay.step(Left(1))
    relay.step(Tick())
    assert relay.got(2) == [Presence(D, (Announcement(7, 0, ""),))]


def test_presence_past_a_limit_is_refused_and_the_rest_goes_on(relay: Relay) -> None:
    relay.step(Greeted(1, PRESENCE))
    opened(relay, 1)
    many = tuple(Announcement(n, 0, "{}") for n in range(Limits().presence_entries + 1))
    (error,) = relay.say(1, Presence(D, many))
    assert isinstance(error, Error) and (error.code, error.document) == (ErrorCode.PRESENCE_REFUSED, D)
    assert relay.say(1, push(b"a")) == [Ack(D, S, 1, 1, 1)]


def test_a_reader_with_a_full_queue_gets_the_newest_presence_when_it_has_drained(relay: Relay) -> None:
    relay.step(Greeted(1, PRESENCE), Greeted(2, PRESENCE))
    opened(relay, 1)
    opened(relay, 2)
    relay.step(Received(1, push(*([b"x" * 100] * 19))))
    for _ in range(10):
        relay.step()
    for clock in range(10):
        relay.step(Received(1, Presence(D, (HERE._replace(clock=clock),))), Tick())
    assert not [m for m in relay.got(2) if isinstance(m, Presence)]
    for _ in range(10):
        relay.sent(2)
    relay.step(Tick())
    assert [m for m in relay.got(2) if isinstance(m, Presence)] == [Presence(D, (HERE._replace(clock=9),))]
