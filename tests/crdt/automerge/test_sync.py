"""Answers in Automerge's sync protocol, to the core's own side of it."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest

from llmcrdt.automerge_sync import (
    NOTHING,
    Filter,
    Have,
    cut_chunks,
    make_filter,
    read_message,
    write_chunks,
    write_message,
)
from llmcrdt.crdt.automerge.backend import AutomergeBackend
from llmcrdt.crdt.automerge.package import installed, load_core
from llmcrdt.crdt.automerge.replica import AutomergeReplica
from llmcrdt.crdt.automerge.sync import LOAD_ANEW
from llmcrdt.exceptions import MalformedUpdate

sys.path.insert(0, str(Path(__file__).parent))
from needs_automerge import needs_automerge

pytestmark = needs_automerge
BACKEND = AutomergeBackend()
core: Any = load_core() if installed() else None


class Client:
    """A document of the core, and what it remembers of the relay."""

    def __init__(self, actor: int) -> None:
        self.doc = core.Document(bytes([actor]) * 8)
        self.connect()

    def connect(self) -> None:
        self.state = core.SyncState()

    def write(self, rng: random.Random) -> None:
        with self.doc.transaction() as transaction:
            transaction.put(b"\0", f"k{rng.randrange(50)}", core.ScalarType.Str, "v" * rng.randrange(30))

    @property
    def heads(self) -> list[bytes]:
        return sorted(self.doc.get_heads())


class Relay:
    """A replica that remembers nobody. ``readers`` are sent what is new, with its mark."""

    def __init__(self) -> None:
        self.replica = AutomergeReplica(())
        self.readers: list[Client] = []

    def talk(self, client: Client) -> int:
        """Until the client has nothing more to say: how many messages it sent."""
        for count in range(12):
            message = client.doc.generate_sync_message(client.state)
            if message is None:
                return count
            said = read_message(message.encode())
            if said.chunks:
                news = self.replica.apply(said.changes).update
                told = BACKEND.mark(self.replica) + write_chunks(cut_chunks(news))
                for reader in self.readers:
                    if reader is not client:
                        reader.doc.receive_sync_message(reader.state, core.Message.decode(told))
            answer = BACKEND.reply(self.replica, said.question)
            client.doc.receive_sync_message(client.state, core.Message.decode(answer))
        raise AssertionError("they talk without end")


@pytest.mark.parametrize("seed", range(8))
def test_clients_of_the_core_come_to_the_same_document(seed: int) -> None:
    """They write apart from each other, come and go, and forget."""
    rng, relay = random.Random(seed), Relay()
    clients = [Client(n + 1) for n in range(3)]
    for _ in range(12):
        client = rng.choice(clients)
        for _ in range(rng.choice((1, 2, 40))):
            client.write(rng)
        if rng.random() < 0.7:
            relay.talk(client)
            relay.readers = [*{*relay.readers, client}]
        if rng.random() < 0.3:
            client.connect()
            relay.readers = [reader for reader in relay.readers if reader is not client]
        if rng.random() < 0.2:
            relay.replica, before = AutomergeReplica(()), relay.replica
            relay.replica.load(None, [before.diff()])
    for client in clients:
        client.connect()
        relay.talk(client)
        relay.readers = [*{*relay.readers, client}]
    for client in clients:
        relay.talk(client)
    assert clients[0].heads == clients[1].heads == clients[2].heads
    assert relay.talk(clients[0]) == 0, "nobody has anything to say"
    assert read_message(BACKEND.mark(relay.replica) + b"\0").heads == clients[0].heads


def test_a_relay_that_lost_its_data_is_filled_again() -> None:
    rng, relay, client = random.Random(3), Relay(), Client(1)
    for _ in range(30):
        client.write(rng)
    relay.talk(client)
    relay.replica = AutomergeReplica(())
    client.state = core.SyncState()
    client.write(rng)
    relay.talk(client)
    assert read_message(BACKEND.mark(relay.replica) + b"\0").heads == client.heads


def test_what_follows_a_change_that_somebody_lacks_is_sent_too() -> None:
    """A filter may hold a change by accident: one that follows what is lacked can't be here."""
    client = Client(1)
    rng, replica = random.Random(1), AutomergeReplica(())
    for _ in range(20):
        client.write(rng)
    made = [change.raw_bytes for change in client.doc.get_changes([])]
    replica.apply(b"".join(made))
    hashes = [change.hash for change in client.doc.get_changes([])]
    asked = [Have([], make_filter([*hashes[:5], *hashes[12:]]))]
    said = read_message(BACKEND.reply(replica, write_message([b"n" * 32], [], asked, [])))
    sent = [*cut_chunks(said.changes)]
    assert set(made[5:]) >= set(sent) >= set(made[6:]) and said.need == [b"n" * 32]
    everything = write_message([b"n" * 32], [hashes[0]], [Have([], make_filter(hashes))], [])
    assert [*cut_chunks(read_message(BACKEND.reply(replica, everything)).changes)] == made[:1]


def test_who_has_a_part_gets_the_rest_and_who_has_little_the_whole() -> None:
    client, replica, rng = Client(1), AutomergeReplica(()), random.Random(2)
    for _ in range(30):
        client.write(rng)
    changes = client.doc.get_changes([])
    replica.apply(b"".join(change.raw_bytes for change in changes))
    count = len(changes)
    for had, sent in ((count - 5, 5), (5, 1), (count, 0)):
        question = write_message([changes[had - 1].hash], [], [Have([], Filter(0, b""))], [])
        assert read_message(BACKEND.reply(replica, question)).chunks == sent
    assert read_message(BACKEND.reply(replica, write_message([], [], [Have([], NOTHING)], []))).chunks == 1


def test_what_waits_is_asked_for_by_name_and_told_to_nobody_as_a_head() -> None:
    client, replica, rng = Client(1), AutomergeReplica(()), random.Random(2)
    for _ in range(3):
        client.write(rng)
    one, two, three = client.doc.get_changes([])
    replica.apply(one.raw_bytes)
    replica.apply(three.raw_bytes)
    told = read_message(BACKEND.mark(replica) + b"\0")
    assert (told.heads, told.need) == ([one.hash], [two.hash])
    asked = read_message(BACKEND.reply(replica, write_message([three.hash], [], [Have([], NOTHING)], [])))
    assert asked.need == [two.hash]
    replica.apply(two.raw_bytes)
    told = read_message(BACKEND.mark(replica) + b"\0")
    assert (told.heads, told.need) == ([three.hash], [])


def test_a_document_with_many_heads_has_no_mark() -> None:
    """It would go to every reader with every record."""
    replica, rng = AutomergeReplica(()), random.Random(1)
    for n in range(33):
        assert len(BACKEND.mark(replica)) < 3_000 and (n == 0 or BACKEND.mark(replica))
        client = Client(n + 1)
        client.write(rng)
        replica.apply(client.doc.get_changes([])[0].raw_bytes)
    assert BACKEND.mark(replica) == b""


@pytest.mark.parametrize("question", [b"", b"\x01", b"\x42", b"\x42\x01", b"\x42\0\0\x01\0\x03\x01\0\x07\0"])
def test_a_question_that_is_none_is_malformed(question: bytes) -> None:
    with pytest.raises(MalformedUpdate):
        BACKEND.reply(AutomergeReplica(()), question)


@pytest.mark.parametrize("loaded", [True, False])
def test_who_holds_the_history_of_before_an_erase_gives_what_he_wrote_and_is_told(loaded: bool) -> None:
    """Not even the relay that heard of no hash before the erase shows him a change that his core can't take."""
    roots = ("meta", "entries", "acts")
    replica = AutomergeReplica(roots)
    with replica.edit() as edit:
        edit.put_node("entries", "e", {"head": "h", "version:1": "the secret"})
    with replica.edit() as edit:
        edit.put_node("entries", "f", {"head": "stays"})
    old, ahead = Client(1), Client(2)
    old.doc = core.Document.load(replica.diff())
    with replica.edit() as edit:
        edit.erase_fields("entries", "e", ["version:"])
    ahead.doc = core.Document.load(bytes(replica._core.doc.save()))
    if loaded:
        whole, _ = replica.snapshot()
        replica = AutomergeReplica(roots)
        replica.load(whole, [])
    rng = random.Random(3)
    for client, actor in ((old, b"old"), (ahead, b"ahead")):
        client.doc.set_actor(actor)
        client.write(rng)
    assert _end(replica, old) == LOAD_ANEW
    assert read_message(_end(replica, ahead)).heads == ahead.heads
    kept = b"".join(change.raw for change in replica.changes())
    assert b"the secret" not in kept and b"stays" in kept
    assert len({change.actor for change in replica.changes()}) == len(roots) + 3


def _end(replica: AutomergeReplica, client: Client) -> bytes:
    """The last answer to a client, which is told no change before the relay has all of his."""
    for _ in range(6):
        message = client.doc.generate_sync_message(client.state)
        assert message is not None
        said = read_message(message.encode())
        if said.chunks:
            replica.apply(said.changes)
        answer = BACKEND.reply(replica, said.question)
        if answer == LOAD_ANEW or read_message(answer).heads == client.heads:
            return answer
        client.doc.receive_sync_message(client.state, core.Message.decode(answer))
    raise AssertionError("they talk without end")
