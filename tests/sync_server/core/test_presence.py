"""Presence at the relay: whoever reads hears the newest of everybody else, and nothing of who has left."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.sync.messages import MAX_PRESENCE, MAX_PRESENT, MAX_STATE, Announcement
from sync_server.core.limits import Limits
from sync_server.core.presence import Presence

D, E = b"d" * 16, b"e" * 16
HERE = '{"typing":true}'


class Hall:
    """Presence, with what each peer makes of what it was told, as a client of y-protocols would."""

    def __init__(self, **limits: int) -> None:
        self.presence = Presence(Limits(**limits))
        self.seen: dict[tuple[int, bytes], dict[int, tuple[int, str]]] = {}
        self.full: set[int] = set()
        self.messages = 0

    def join(self, *peers: int, document: bytes = D) -> None:
        for peer in peers:
            self.presence.watch(peer, document)
            self.seen[peer, document] = {}

    def part(self, peer: int, document: bytes = D) -> None:
        self.presence.unwatch(peer, document)
        self.seen.pop((peer, document), None)
        if not any(other == peer for other, _ in self.seen):
            self.presence.leave(peer)

    def say(self, peer: int, *entries: tuple[int, int, str], document: bytes = D) -> str:
        return self.presence.announce(peer, document, [Announcement(*entry) for entry in entries])

    def tick(self) -> list[tuple[Sequence[int], tuple[Announcement, ...]]]:
        told = list(self.presence.tick(self.full.__contains__))
        self.messages += len(told)
        for peers, document, entries in told:
            assert 0 < len(entries) <= MAX_PRESENT
            assert sum(len(entry.state.encode()) for entry in entries) <= MAX_PRESENCE
            for peer in peers:
                seen = self.seen[peer, document]
                for client, clock, state in entries:
                    known, before = seen.get(client, (-1, ""))
                    if clock > known or (clock == known and before and not state):
                        seen[client] = (clock, state)
        return [(peers, entries) for peers, _, entries in told]

    def who(self, peer: int, document: bytes = D) -> dict[int, str]:
        return {client: state for client, (_, state) in self.seen[peer, document].items() if state}


@pytest.fixture
def hall() -> Hall:
    hall = Hall()
    hall.join(1, 2, 3)
    return hall


def test_what_a_peer_announces_goes_to_the_others_with_the_tick(hall: Hall) -> None:
    hall.say(1, (10, 0, HERE))
    assert hall.presence.waiting
    assert hall.tick() == [([2, 3], (Announcement(10, 0, HERE),))]
    assert not hall.presence.waiting and hall.tick() == []


def test_a_tick_tells_the_newest_once(hall: Hall) -> None:
    for clock in range(50):
        hall.say(1, (10, clock, json.dumps({"n": clock})))
    assert hall.tick() == [([2, 3], (Announcement(10, 49, '{"n": 49}'),))]


@pytest.mark.parametrize(
    ("before", "after", "wins"),
    [
        ((5, HERE), (6, "{}"), True),
        ((5, HERE), (5, "{}"), False),
        ((5, HERE), (4, "{}"), False),
        ((5, HERE), (5, ""), True),
        ((5, HERE), (4, ""), False),
        ((5, ""), (5, HERE), False),
        ((5, ""), (6, HERE), True),
    ],
)
def test_the_newer_clock_wins_and_gone_wins_at_the_same(
    hall: Hall, before: tuple[int, str], after: tuple[int, str], wins: bool
) -> None:
    hall.say(1, (10, 1, HERE))
    hall.tick()
    hall.say(1, (10, *before))
    hall.tick()
    hall.say(2, (10, *after))
    hall.tick()
    assert hall.seen[3, D][10] == (after if wins else before)


def test_a_newcomer_hears_all_that_is_here_and_not_what_is_gone(hall: Hall) -> None:
    hall.say(1, (10, 3, HERE), (11, 3, HERE))
    hall.say(1, (11, 4, ""))
    hall.tick()
    hall.join(4)
    assert hall.tick() == [([4], (Announcement(10, 3, HERE),))]


def test_who_leaves_is_gone_with_the_clock_it_had(hall: Hall) -> None:
    hall.say(1, (10, 3, HERE))
    hall.say(2, (20, 0, HERE))
    hall.tick()
    hall.part(1)
    assert [entries for _, entries in hall.tick()] == [(Announcement(10, 3, ""),)] * 2
    assert hall.who(3) == {20: HERE} and hall.who(2) == {}


def test_an_entry_that_another_connection_took_over_stays(hall: Hall) -> None:
    hall.say(1, (10, 3, HERE))
    hall.say(2, (10, 4, HERE))
    hall.part(1)
    hall.tick()
    assert hall.who(3) == {10: HERE}
    hall.part(2)
    hall.tick()
    assert hall.who(3) == {}


def test_an_old_state_that_comes_late_brings_nobody_back(hall: Hall) -> None:
    hall.say(1, (10, 3, HERE))
    hall.part(1)
    hall.say(2, (10, 2, HERE), (10, 3, HERE))
    hall.tick()
    assert hall.who(3) == {}


def test_a_full_reader_is_passed_over_and_gets_the_newest_later(hall: Hall) -> None:
    hall.full.add(3)
    for clock in range(20):
        hall.say(1, (10, clock, json.dumps({"n": clock})))
        assert [peers for peers, _ in hall.tick()] == [[2]]
    assert not hall.presence.waiting
    hall.full.clear()
    hall.presence.drained(3)
    assert hall.tick() == [([3], (Announcement(10, 19, '{"n": 19}'),))]


def test_documents_know_nothing_of_each_other(hall: Hall) -> None:
    hall.join(1, 4, document=E)
    hall.say(1, (10, 0, HERE), document=E)
    assert hall.tick() == [([4], (Announcement(10, 0, HERE),))]
    assert hall.say(2, (20, 0, HERE), document=E) == ""
    assert not hall.presence.waiting


def test_limits() -> None:
    hall = Hall(presence_entries=3, presence_bytes=60, presence_document=4)
    hall.join(1, 2, 3)
    hall.join(1, document=E)
    assert hall.say(1, (1, 0, HERE), (2, 0, HERE)) == ""
    assert hall.say(1, (3, 0, HERE), document=E) == ""
    assert "entries of one connection" in hall.say(1, (4, 0, "{}"), document=E)
    assert "bytes" in hall.say(1, (1, 1, json.dumps({"long": "x" * 40})))
    assert hall.say(1, (1, 2, "{}"), (2, 1, "")) == ""
    assert hall.say(2, (5, 0, "{}"), (6, 0, "{}"), (7, 0, "{}")) == ""
    assert "one document" in hall.say(3, (8, 0, "{}"))
    hall.part(2)
    assert hall.say(3, (8, 0, "{}")) == ""


def test_clocks_of_the_gone_are_forgotten_at_the_limit() -> None:
    hall = Hall(presence_document=10)
    hall.join(1, 2)
    for client in range(1000):
        hall.say(1, (client, 0, HERE))
        hall.say(1, (client, 1, ""))
    (document,) = hall.presence._documents.values()
    assert len(document.entries) == document.gone == 10


def test_nothing_is_held_for_an_empty_document(hall: Hall) -> None:
    hall.full.add(2)
    hall.say(1, (10, 0, HERE))
    hall.tick()
    for peer in (1, 2, 3):
        hall.part(peer)
    presence = hall.presence
    assert not (presence._documents or presence._owned or presence._passed_over or presence._changed)


peers, clients = st.integers(1, 3), st.integers(1, 3)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), peers, clients, st.integers(0, 5), st.sampled_from(["", "{}", HERE])),
        st.tuples(st.sampled_from(["join", "part", "full", "drain"]), peers),
        st.tuples(st.just("tick")),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(steps)
def test_in_the_end_all_readers_know_the_same(steps: list[tuple[object, ...]]) -> None:
    hall = Hall()
    hall.join(9)
    for name, *rest in steps:
        match name, rest:
            case "say", [peer, client, clock, state]:
                hall.say(peer, (client, clock, state))  # type: ignore[arg-type]
            case "join", [peer] if (peer, D) not in hall.seen:
                hall.join(peer)  # type: ignore[arg-type]
            case "part", [peer]:
                hall.full.discard(peer)  # type: ignore[arg-type]
                hall.part(peer)  # type: ignore[arg-type]
            case "full", [peer]:
                hall.full.add(peer)  # type: ignore[arg-type]
            case "drain", [peer]:
                hall.full.discard(peer)  # type: ignore[arg-type]
                hall.presence.drained(peer)  # type: ignore[arg-type]
            case "tick", _:
                hall.tick()
    for peer in tuple(hall.full):
        hall.full.discard(peer)
        hall.presence.drained(peer)
    hall.tick()
    entries = hall.presence._documents[D].entries
    live = {client: (entry.clock, entry.state) for client, entry in entries.items() if entry.state}
    owners = {peer: {client for client, entry in entries.items() if entry.by == peer} for peer, _ in hall.seen}
    assert all(entry.by in owners for entry in entries.values() if entry.state)
    for peer, own in owners.items():
        seen = {c: entry for c, entry in hall.seen[peer, D].items() if entry[1] and c not in own}
        assert seen == {c: entry for c, entry in live.items() if c not in own}


def test_what_is_told_comes_in_messages_that_a_reader_takes(hall: Hall) -> None:
    """Large states, some in letters of several bytes, in messages of a size that PRESENCE may have."""
    states = [json.dumps({"n": n, "text": "é" * (n * 137 % 2_000)}, ensure_ascii=False) for n in range(60)]
    states.append('{"a":"' + "x" * (MAX_STATE - 8) + '"}')
    for n, state in enumerate(states):
        peer = 10 + n
        hall.join(peer)
        assert hall.say(peer, (n, 0, state)) == ""
    hall.tick()
    assert hall.who(1) == dict(enumerate(states))
    assert hall.messages >= sum(len(state.encode()) for state in states) // MAX_PRESENCE
