"""Presence of one conversation: clocks grow, the newest wins, silence ends it, and nobody can take it over for long."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcrdt.document.presence import MAX_STATE, RENEW, SILENCE, Announced, Presence, Present
from llmcrdt.exceptions import InvalidContent
from llmcrdt.sync import codec, messages
from llmcrdt.varint import MAX_UINT


class Person:
    def __init__(self, seed: int = 1, author: str = "") -> None:
        self.now = 100.0
        self.sent: list[Announced] = []
        self.presence = Presence(
            author, clock=lambda: self.now, random=random.Random(seed).randbytes, changed=self._changed
        )

    def _changed(self) -> None:
        self.sent += self.presence.announced()


@pytest.fixture
def ann() -> Person:
    return Person(1, "ann")


def test_a_state_is_sent_with_a_clock_that_grows_and_its_author(ann: Person) -> None:
    ann.presence.present({"typing": True})
    ann.presence.present({})
    ann.presence.present(None)
    (number,) = {client for client, _, _ in ann.sent}
    assert 0 <= number < 1 << 53
    assert [(clock, state) for _, clock, state in ann.sent] == [
        (1, '{"author":"ann","typing":true}'),
        (2, '{"author":"ann"}'),
        (3, ""),
    ]


def test_others_are_shown_until_they_are_gone(ann: Person) -> None:
    bob = Person(2, "bob")
    bob.presence.present({"typing": True, "generating": 7})
    ann.presence.heard(bob.sent)
    (other,) = ann.presence.others()
    assert (other.author, other.typing, other.generating) == ("bob", True, "")
    bob.presence.present(None)
    ann.presence.heard(bob.sent)
    assert ann.presence.others() == ()
    ann.presence.heard(bob.sent[:1])
    assert ann.presence.others() == (), "an old state brings nobody back"


def test_what_is_generated_stands_beside_the_state_and_goes_with_the_last(ann: Person) -> None:
    ann.presence.present({"typing": True})
    with ann.presence.generating("small"):
        with ann.presence.generating("large"):
            pass
        assert json.loads(ann.sent[-1][2])["generating"] == "small"
    states = [json.loads(state) for _, _, state in ann.sent]
    assert [state.get("generating") for state in states] == [None, "small", "large", "small", None]
    assert all(state["typing"] for state in states)


def test_a_state_is_renewed_in_time(ann: Person) -> None:
    ann.presence.present({})
    ann.now += RENEW - 0.1
    ann.presence.tick()
    assert len(ann.sent) == 1
    ann.now += 0.2
    ann.presence.tick()
    assert [clock for _, clock, _ in ann.sent] == [1, 2]


def test_who_falls_silent_is_gone_and_observers_hear_of_it(ann: Person) -> None:
    seen: list[tuple[Present, ...]] = []
    stop = ann.presence.observe(seen.append)
    ann.presence.heard([(5, 1, "{}")])
    ann.now += SILENCE - 1
    ann.presence.heard([(6, 1, "{}")])
    ann.presence.tick()
    ann.now += 1
    ann.presence.tick()
    assert [[other.client for other in others] for others in seen] == [[5], [5, 6], [6]]
    ann.presence.heard([(6, 2, "{}")])
    assert len(seen) == 3, "nothing that observers see has changed"
    stop()
    ann.presence.heard([(6, 3, "")])
    assert len(seen) == 3


def test_who_says_that_this_client_is_gone_is_contradicted(ann: Person) -> None:
    ann.presence.present({"typing": True})
    number, clock, state = ann.sent[-1]
    ann.presence.heard([(number, clock, state)])
    assert len(ann.sent) == 1, "the own entry came back as it was"
    ann.presence.heard([(number, clock, "")])
    assert ann.sent[-1] == (number, clock + 1, state)
    ann.presence.heard([(number, clock + 9, "{}")])
    assert ann.sent[-1] == (number, clock + 10, state)
    ann.presence.heard([(number, MAX_UINT, "{}")])
    assert ann.sent[-1][0] != number and ann.sent[-1][1:] == (1, state)
    assert ann.presence.others() == ()


def test_a_new_connection_gets_a_greater_clock_and_nothing_of_who_is_not_here(ann: Person) -> None:
    assert ann.presence.announced(anew=True) == ()
    ann.presence.present({})
    assert [clock for _, clock, _ in ann.presence.announced(anew=True)] == [2]
    ann.presence.present(None)
    assert ann.presence.announced(anew=True) == ()


@pytest.mark.parametrize("state", [{"a": object()}, {"a": float("nan")}, {"a": "\ud800"}, {"a": "x" * MAX_STATE}, [1]])
def test_what_can_not_be_announced_changes_nothing(ann: Person, state: object) -> None:
    with pytest.raises(InvalidContent):
        ann.presence.present(state)  # type: ignore[arg-type]
    assert ann.presence.announced() == ()


@given(st.text(), st.dictionaries(st.text(), st.integers() | st.text()), st.text())
def test_whatever_is_announced_can_be_sent(author: str, state: dict[str, object], model: str) -> None:
    ann = Person(1, author)
    try:
        ann.presence.present(state)
    except InvalidContent:
        return
    with ann.presence.generating(model):
        for _, _, text in ann.sent:
            message = messages.Presence(bytes(16), (messages.Announcement(1, 1, text),))
            assert codec.decode(codec.encode(message)) == message


def test_a_state_that_can_not_be_read_here_harms_nobody(ann: Person) -> None:
    ann.presence.heard([(5, 1, '{"a":' + "[" * 2_000 + "]" * 2_000 + "}"), (6, 1, '{"author":"bob"}')])
    assert [(other.client, other.author) for other in ann.presence.others()] == [(5, ""), (6, "bob")]


def test_strangers_fill_no_memory(ann: Person) -> None:
    ann.presence.heard((client, 0, "{}") for client in range(100_000))
    assert len(ann.presence.others()) < 2000
    ann.now += SILENCE
    assert not ann.presence.tick()
