"""The queues of readers: who gets what from memory or the log, when, and when a barrier is answered."""

from __future__ import annotations

from pathlib import Path

from llmcrdt.sync.messages import Barrier, ErrorCode, Open, Reached, Records
from sync_server.core.events import Send
from sync_server.core.validation import Received

from .rooms_relay import D, E, Relay, opened, push


def test_a_message_for_many_is_made_once(relay: Relay) -> None:
    for peer in (1, 2, 3):
        opened(relay, peer)
    outputs = relay.step(Received(1, push(b"a")))
    assert sorted(tuple(o.peers) for o in outputs if isinstance(o, Send)) == [(1,), (2, 3)]


def test_a_slow_reader_is_not_buffered_and_misses_nothing(relay: Relay) -> None:
    opened(relay, 1)
    opened(relay, 2)
    opened(relay, 3)
    relay.sent(1, 2, 3)
    relay.inbox.clear()
    for n in range(1, 201):
        relay.step(Received(1, push(b"x" * 50, n=n)))
        relay.sent(1, 3)
    assert len(relay.got(3)) == 200
    # One message more than the limit at most: it was below when that was queued.
    assert relay.weights[2] < 1000 + 128 + 100 + 2 * 24
    assert relay.rooms._subscriptions.peers[2].outstanding == relay.weights[2]
    assert not relay.rooms.more
    while relay.rooms._subscriptions.lagging:
        relay.sent(2)
        while relay.rooms.more:
            relay.step()
    positions = [m.position + i for m in relay.got(2) for i in range(len(m.records))]  # type: ignore[union-attr]
    assert positions == list(range(1, 201))


def test_the_queue_of_a_reader_is_one_for_all_its_documents(tmp_path: Path) -> None:
    relay = Relay(tmp_path, batch=1000, outgoing=2000)
    documents = [bytes([n]) * 16 for n in range(10)]
    relay.join(1, 2)
    for document in documents:
        relay.say(1, Open(document, "yjs"), push(b"x" * 900, document=document))
        relay.sent(1)
    relay.step(*(Received(2, Open(document, "yjs")) for document in documents))
    heard: list[bytes] = []
    while messages := [message for message in relay.got(2) if isinstance(message, Records)]:
        heard += [message.document for message in messages]
        assert len(messages) <= 2
        relay.sent(2)
    assert sorted(heard) == documents
    relay.log.close()


def test_a_long_log_does_not_hold_up_another_document(relay: Relay) -> None:
    opened(relay, 1, D)
    for n in range(1, 41):
        relay.step(Received(1, push(b"x" * 90, n=n)))
        relay.sent(1)
    opened(relay, 2, E)
    relay.say(2, Open(D, "yjs"))
    opened(relay, 1, E)
    relay.inbox[2] = []
    relay.sent(2)
    relay.step(Received(1, push(b"hello", document=E)))
    seen = [m.document for m in relay.got(2) if isinstance(m, Records)]
    assert E in seen
    assert seen.count(D) < 10


def test_a_barrier_is_answered_behind_all_that_was_there(relay: Relay) -> None:
    assert relay.say(1, Barrier(7)) == [Reached(7)]
    opened(relay, 1)
    for n in range(1, 31):
        relay.step(Received(1, push(b"x" * 90, n=n)))
        relay.sent(1)
    relay.say(2, Open(D, "yjs"))
    *stream, last = relay.say(2, Barrier(1))
    assert Reached(1) not in [*stream, last]
    relay.step(Received(1, push(b"later", n=31)))
    relay.inbox[2] = []
    while not any(isinstance(m, Reached) for m in relay.inbox[2]):
        relay.sent(2)
    before = relay.got(2)
    ends = [m.position + len(m.records) - 1 for m in before[: before.index(Reached(1))] if isinstance(m, Records)]
    assert ends[-1] >= 30


def test_too_many_barriers_end_the_connection(relay: Relay) -> None:
    opened(relay, 1)
    for n in range(1, 31):
        relay.step(Received(1, push(b"x" * 90, n=n)))
        relay.sent(1)
    relay.say(2, Open(D, "yjs"))
    relay.say(2, Barrier(1), Barrier(2), Barrier(3))
    assert relay.dropped[2].code == ErrorCode.WINDOW_EXCEEDED
