"""Updates of which much waits, and how often they are looked at."""

from __future__ import annotations

import random

import pycrdt
import pytest

from llmcrdt.crdt.yjs import intake
from llmcrdt.crdt.yjs.backend import YjsBackend
from llmcrdt.crdt.yjs.update import read_state_vector
from llmcrdt.varint import write_uint as u


def first(client: int) -> bytes:
    """The first letter of a client."""
    return b"\x01\x01" + u(client) + u(0) + b"\x04\x01\x01t\x01y\x00"


def of_many_clients(count: int) -> bytes:
    """A letter of each of many clients, each behind that of another one."""
    letters = (u(1) + u(n) + u(0) + b"\x84" + u(10_000 + n) + u(0) + b"\x01x" for n in range(count))
    return u(count) + b"".join(letters) + b"\x00"


def of_one_client(count: int) -> bytes:
    letters = (b"\x84" + u(10_000 + n) + u(0) + b"\x01x" for n in range(count))
    return b"\x01" + u(count) + u(5) + u(0) + b"".join(letters) + b"\x00"


def of_deletes(count: int) -> bytes:
    return b"\x00" + u(count) + b"".join(u(10_000 + n) + u(1) + u(0) + u(1) for n in range(count))


@pytest.mark.parametrize("in_turn", [False, True])
def test_updates_that_wait_for_parts_of_each_other_are_all_taken(in_turn: bool) -> None:
    """As where somebody merged updates while some were still on their way."""
    one, two = pycrdt.Doc(client_id=1), pycrdt.Doc(client_id=2)
    words = [doc.get("t", type=pycrdt.Text) for doc in (one, two)]
    updates: list[bytes] = []
    seen = b"\x00"
    for turn in (1, 0, 0):  # the first writes after what the second wrote, twice
        words[turn] += f"word {len(updates)} "
        updates.append(bytes((one, two)[turn].get_update(seen)))
        one.apply_update(updates[-1])
        two.apply_update(updates[-1])
        seen = one.get_state()
    both = [updates[1], bytes(pycrdt.merge_updates(updates[0], updates[2]))]
    replica = YjsBackend().make_replica(("entries",))
    if in_turn:
        for update in both:
            replica.apply(update)
    else:
        replica.load(None, both)
    assert replica.snapshot() == (one.get_update(), [])


def text_of(whole: bytes) -> str:
    doc = pycrdt.Doc()
    doc.apply_update(whole)
    return str(doc.get("t", type=pycrdt.Text))


@pytest.mark.parametrize("make", [of_many_clients, of_one_client, of_deletes])
@pytest.mark.parametrize("seed", range(3))
def test_an_update_whose_parts_wait_for_many_is_not_read_anew_for_each(
    monkeypatch: pytest.MonkeyPatch, make: object, seed: int
) -> None:
    count, read = 400, 0
    update = make(count)  # type: ignore[operator]
    real = intake.read_update

    def counted(data: bytes) -> object:
        nonlocal read
        read += len(data)
        return real(data)

    monkeypatch.setattr(intake, "read_update", counted)
    backend = YjsBackend()
    replica, other = backend.make_replica(["t"]), backend.make_replica(["t"])
    replica.apply(update)
    clients = [10_000 + n for n in range(count)]
    random.Random(seed).shuffle(clients)
    for client in clients:
        replica.apply(first(client))
    assert read < 400 * 1_000 and read < count * len(update) / 3
    whole, waiting = replica.snapshot()
    assert not waiting
    for client in clients:
        other.apply(first(client))
    other.apply(update)
    assert text_of(other.snapshot()[0]) == text_of(whole)
    assert read_state_vector(other.version()) == read_state_vector(replica.version())


def test_what_waits_in_pieces_is_the_same_when_it_comes_again() -> None:
    replica = YjsBackend().make_replica(["t"])
    replica.apply(of_many_clients(50))
    before = sorted(replica.snapshot()[1])
    replica.apply(of_many_clients(50))
    assert sorted(replica.snapshot()[1]) == before and len(before) == 50
