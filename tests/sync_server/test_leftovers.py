"""Peers that came and went leave nothing in the relay's memory, or no more than a number says. Entries are counted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from llmcrdt.sync import codec
from llmcrdt.sync.messages import (
    DELETE_DONE,
    DELETE_REFUSED,
    FEATURES,
    Ack,
    Barrier,
    Close,
    Delete,
    Deleted,
    Hello,
    Open,
    Opened,
    Push,
    Reached,
    Record,
    Welcome,
)
from sync_server import thread
from sync_server.auth.tokens import Tokens
from sync_server.core.limits import Limits
from sync_server.log.base import Origin
from sync_server.log.generational_cache import GenerationalCache
from sync_server.log.sqlite import SqliteStorage
from sync_server.server import Relay
from sync_server.thread import RelayThread

from ..waiting import eventually
from .core.test_limits import connected, until

S = b"s" * 16


@pytest.fixture
def relays(monkeypatch: pytest.MonkeyPatch) -> list[Relay]:
    found: list[Relay] = []

    class Noted(Relay):
        async def start(self) -> None:
            found.append(self)
            await super().start()

    monkeypatch.setattr(thread, "Relay", Noted)
    return found


def entries(thing: object, seen: set[int] | None = None) -> int:
    """How many things the containers in an object of the relay hold, and those in them."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, dict):
        own = len(thing) + sum(entries(value, seen) for value in thing.values())
        return own + (entries(thing._old, seen) if isinstance(thing, GenerationalCache) else 0)
    if isinstance(thing, list | set | frozenset) or type(thing).__name__ == "deque":
        return len(thing) + sum(entries(one, seen) for one in thing)  # type: ignore[arg-type, attr-defined]
    if not type(thing).__module__.startswith("sync_server"):
        return 0
    slots = getattr(type(thing), "__slots__", ())
    values = [getattr(thing, name, None) for name in slots] + list(getattr(thing, "__dict__", {}).values())
    return sum(entries(value, seen) for value in values)


def visit(url: str, documents: Sequence[bytes]) -> None:
    """Open, write and close documents."""
    with connected(url) as client:
        until(client, Welcome, Hello("t", features=FEATURES))
        for document in documents:
            until(client, Ack, Open(document, "yjs"), Push(document, os.urandom(16), 1, (b"\x00\x00",)))
            client.send(codec.encode(Close(document)))
        until(client, Reached, Barrier(1))


def test_documents_that_came_and_went_leave_no_more_than_the_limits_say(tmp_path: Path, relays: list[Relay]) -> None:
    limits = Limits(cached=20, keep=20 * (4 << 10))
    with RelayThread(tmp_path, limits=limits) as relay:
        held = []
        for count in (50, 250):
            visit(relay.url, [os.urandom(16) for _ in range(count)])
            parts = relays[0]._steps.rooms, relays[0]._storage, relays[0]._workers, relays[0]._connections
            eventually(lambda: relays[0]._connections.by_peer, lambda left: not left)
            held.append(sum(map(entries, parts)))
        assert relays[0]._workers.validator.held <= 21
        assert relays[0]._storage.database.cached <= 3 * limits.cached
        assert held[1] <= held[0] + 40, "each of the caches may hold some of its number, or all"


def test_a_log_holds_the_ends_of_some_documents_and_knows_all(tmp_path: Path) -> None:
    log = SqliteStorage(tmp_path / "relay.db", cached=10)
    documents = [os.urandom(16) for _ in range(100)]
    for n in (1, 2, 3):
        for document in documents:
            (stored,) = log.records.append(document, S, n, [b"x"], Origin("sealed", b"l" * 16, document.hex()))
            assert stored == (n, Record(S, n, b"x"))
            assert log.quotas.used(document.hex()) == n
            assert not log.records.commit()
            assert log.database.cached <= 3 * 10
    assert [log.records.last(document, S) for document in documents] == [3] * 100
    log.close()


def test_what_was_used_last_stays(tmp_path: Path) -> None:
    cache: GenerationalCache[int, int] = GenerationalCache(10)
    for n in range(1000):
        assert n == 0 or cache.get(0) == 0 or cache.revive(0) == 0
        cache[n] = n
        cache.trim()
        assert cache.total <= 10
    cache.forget(0)
    assert cache.get(0) is None and cache.revive(0) is None


def test_the_rate_of_a_subject_that_left_is_forgotten_when_it_makes_no_difference(
    tmp_path: Path, relays: list[Relay]
) -> None:
    tokens = Tokens(tmp_path)
    made = [tokens.make(f"subject-{n}", "append", ["*"]).encode() for n in range(20)]
    with RelayThread(tmp_path, limits=Limits(rate=10_000, burst=20_000)) as relay:
        with connected(relay.url) as stays:
            until(stays, Welcome, Hello("t", made[0]))
            for token in made[1:]:
                with connected(relay.url) as client:
                    until(client, Welcome, Hello("t", token))
            eventually(lambda: [*relays[0]._subjects.rates], lambda rates: rates == ["subject-0"])
        eventually(lambda: relays[0]._subjects.rates, lambda rates: not rates)


def test_tombstones_of_documents_that_never_were_have_a_number(tmp_path: Path) -> None:
    """And those of documents that are, or were, have none."""
    tokens = Tokens(tmp_path)
    ann, bob = (tokens.make(subject, "append", ["*"]).encode() for subject in ("ann", "bob"))
    limits = Limits(max_unknown_tombstones=3)
    ids = [bytes([n]) * 16 for n in range(20)]
    for first in (True, False):  # also after a restart
        with RelayThread(tmp_path, limits=limits) as relay, connected(relay.url) as client, connected(relay.url) as two:
            until(client, Welcome, Hello("t", ann))
            until(two, Welcome, Hello("t", bob))
            outcomes = [DELETE_DONE] * 3 + [DELETE_REFUSED] * 2
            for document, outcome in zip(ids, outcomes, strict=False):
                assert until(client, Deleted, Delete(document)) == Deleted(document, outcome)
            there = ids[10 + first]
            until(client, Ack, Open(there, "sealed"), Push(there, S, 1, (b"x",)))
            assert until(client, Deleted, Delete(there)) == Deleted(there, DELETE_DONE)
            assert until(two, Deleted, Delete(ids[15 + first])) == Deleted(ids[15 + first], DELETE_DONE)
            assert isinstance(until(client, Opened, Open(ids[4], "sealed")), Opened), "it was not deleted"
