"""Pushes: repeats, gaps, conflicts, and records that are too large."""

from __future__ import annotations

from llmcrdt.sync.messages import RESET, Ack, Error, ErrorCode, Open, Opened, Record, Records

from .rooms_relay import D, Relay, S, end, opened, push


def test_repeats_are_acknowledged_where_they_stand(relay: Relay) -> None:
    opened(relay, 1)
    relay.say(1, push(b"a", b"b", b"c"))
    opened(relay, 2, cursor=end(relay))
    assert relay.say(2, push(b"b", b"c", n=2)) == [Ack(D, S, 2, 2, 2)]
    assert relay.say(2, push(b"a", b"b", b"c", b"d")) == [Ack(D, S, 1, 3, 1), Ack(D, S, 4, 1, 4)]
    assert relay.got(1)[-1] == Records(D, 4, (Record(S, 4, b"d"),))


def test_a_repeat_beyond_what_was_sent_waits_for_its_turn(relay: Relay) -> None:
    opened(relay, 1)
    relay.say(1, push(b"a", b"b", b"c"))
    # Peer 2 knows nothing; it opens and repeats record 2 in one step.
    assert relay.say(2, Open(D, "yjs"), push(b"b", n=2)) == [
        Opened(D, RESET, end(relay), 0),
        Records(D, 1, (Record(S, 1, b"a"),)),
        Ack(D, S, 2, 1, 2),
        Records(D, 3, (Record(S, 3, b"c"),)),
    ]


def test_refusals_name_what_is_expected_and_leave_the_rest_alone(relay: Relay) -> None:
    opened(relay, 1)
    opened(relay, 2)
    relay.say(1, push(b"a"))
    (gap,) = relay.say(1, push(b"c", n=3))
    assert isinstance(gap, Error)
    assert (gap.code, gap.document, gap.session, gap.n) == (ErrorCode.GAP, D, S, 2)
    ack, conflict = sorted(relay.say(1, push(b"b", n=2), push(b"x")), key=lambda m: isinstance(m, Error))
    assert ack == Ack(D, S, 2, 1, 2)
    assert isinstance(conflict, Error)
    assert (conflict.code, conflict.n) == (ErrorCode.CONFLICT, 1)
    large, ok = relay.say(1, push(b"c", b"x" * 501, n=3))
    assert isinstance(large, Error)
    assert (large.code, large.n, ok) == (ErrorCode.RECORD_TOO_LARGE, 4, Ack(D, S, 3, 1, 3))
    assert [m.position for m in relay.got(2) if isinstance(m, Records)] == [1, 2, 3]
    assert not relay.dropped
