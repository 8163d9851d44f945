"""Attachments at the relay's core: what is held, who gets it, what there is room for, and what goes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmcrdt.sync.messages import (
    MAX_PIECE,
    PLAIN,
    SEALED,
    AttachmentName,
    Data,
    Delete,
    Deleted,
    Discard,
    Error,
    ErrorCode,
    Fetch,
    Held,
    Message,
    Offer,
    Open,
    Outcome,
    Push,
)
from sync_server.core.events import Drop, Event, Greeted, Joined, Send, Sent
from sync_server.core.limits import Limits
from sync_server.core.rooms import Rooms
from sync_server.core.validation import Left, Received
from sync_server.log.base import LogError
from sync_server.log.file import DATABASE
from sync_server.log.operator import backup, inspect, restore, verify
from sync_server.log.sqlite import SqliteStorage

D, E, S = b"d" * 16, b"e" * 16, b"s" * 16
ANN, BOB, GUEST = 1, 2, 3
NOTHING = AttachmentName(PLAIN, b"?" * 32)


class Relay:
    """Rooms with ann and bob, who have tokens for their own, and a guest whose token names D."""

    def __init__(self, folder: Path, **limits: int) -> None:
        self.folder, self.limits = folder, Limits(**limits)
        self.open()

    def open(self) -> None:
        self.log = SqliteStorage(self.folder / DATABASE)
        self.rooms = Rooms(self.log, self.limits, random.Random(1).randbytes)
        self.inbox: dict[int, list[Message]] = {}
        self.dropped: dict[int, Error] = {}
        self.taken = 0
        self.join(ANN, "ann", lambda document: False)
        self.join(BOB, "bob", lambda document: False)
        self.join(GUEST, "eve", lambda document: document == D)

    def join(self, peer: int, subject: str, named: object = None) -> None:
        self.step(Joined(peer), Greeted(peer, 7, subject, False, named))  # type: ignore[arg-type]

    def restart(self) -> None:
        self.log.close()
        self.open()

    def step(self, *events: Event) -> None:
        for output in self.rooms.step(events):
            if isinstance(output, Drop):
                self.dropped[output.peer] = output.error
            elif isinstance(output, Send):
                for peer in output.peers:
                    self.inbox.setdefault(peer, []).append(output.message)  # type: ignore[arg-type]
        self.taken += sum(size for _, size in self.rooms.taken)

    def say(self, peer: int, *messages: Message, steps: int = 30) -> list[Message]:
        """These messages and as many steps as the relay asks for; what the peer got."""
        self.inbox.pop(peer, None)
        self.step(*(Received(peer, m, 1) for m in messages))  # type: ignore[arg-type]
        for _ in range(steps):
            if self.rooms.more:
                self.step()
        return self.inbox.pop(peer, [])

    def write(self, peer: int = ANN, document: bytes = D) -> None:
        self.say(peer, Open(document, "yjs"), Push(document, S, 1, (b"x",)))

    def bring(self, content: bytes, peer: int = ANN, name: AttachmentName | None = None) -> AttachmentName:
        name = name or name_of(content)
        held = self.say(peer, Offer(D, name, len(content)))
        assert held == [Held(D, name, Outcome.HELD, len(content), 0)] or not content
        if content:
            assert self.say(peer, *pieces(name, content))[-1] == whole(name, content)
        return name

    def get(self, name: AttachmentName, peer: int = ANN, document: bytes = D) -> bytes | Message:
        out, size = b"", 1
        while len(out) < size:
            (answer,) = self.say(peer, Fetch(document, name, len(out), MAX_PIECE))
            self.say(peer)
            self.step(Sent(peer, 1 << 20))
            if not isinstance(answer, Data):
                return answer
            assert answer.offset == len(out)
            out, size = out + answer.data, answer.size
        return out


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    made = Relay(tmp_path)
    made.write()
    yield made
    made.log.close()


def name_of(content: bytes) -> AttachmentName:
    return AttachmentName(PLAIN, hashlib.sha256(content).digest())


def pieces(name: AttachmentName, content: bytes, document: bytes = D) -> list[Message]:
    return [
        Data(document, name, len(content), at, content[at : at + MAX_PIECE]) for at in range(0, len(content), MAX_PIECE)
    ]


def whole(name: AttachmentName, content: bytes, document: bytes = D) -> Held:
    return Held(document, name, Outcome.HELD, len(content), len(content))


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, MAX_PIECE - 1, MAX_PIECE, MAX_PIECE + 1, 20 * MAX_PIECE + 7])
def test_what_was_brought_is_what_is_fetched(relay: Relay, size: int) -> None:
    content = noise(size)
    name = relay.bring(content)
    for _ in range(2):
        assert relay.get(name) == content and relay.get(name, GUEST) == content
        assert relay.say(ANN, Offer(D, name, size)) == [whole(name, content)]
        assert list(verify(relay.folder / DATABASE)) == []
        relay.restart()
    with inspect(relay.folder / DATABASE) as rows:
        assert [row[-2:] for row in rows] == [(1, size)]


@pytest.mark.parametrize("seed", range(6))
def test_any_cut_goes_on_from_what_is_held(relay: Relay, seed: int) -> None:
    """Pieces in any order, twice, from two devices, with restarts between: what is held is always the beginning."""
    rng = random.Random(seed)
    content = noise(5 * MAX_PIECE + rng.randrange(MAX_PIECE), seed)
    name, held = name_of(content), 0
    for _ in range(200):
        if held == len(content):
            break
        peer = rng.choice([ANN, GUEST])
        (answer,) = relay.say(peer, Offer(D, name, len(content)))
        assert isinstance(answer, Held) and answer.outcome == Outcome.HELD and answer.held >= held
        held = answer.held
        chosen = rng.choices(pieces(name, content), k=rng.randrange(4))
        for message in relay.say(peer, *chosen):
            assert isinstance(message, Held) and message.outcome in (Outcome.HELD, Outcome.GAP)
            held = max(held, message.held)
        if rng.random() < 0.2:
            relay.restart()
    assert relay.get(name) == content


def test_any_range_is_a_piece_of_the_whole(relay: Relay) -> None:
    content = noise(3 * MAX_PIECE + 5)
    name, rng = relay.bring(content), random.Random(1)
    for offset in (*(rng.randrange(len(content)) for _ in range(20)), len(content), 0):
        length = rng.randrange(1, MAX_PIECE + 1)
        (answer,) = relay.say(ANN, Fetch(D, name, offset, length))
        relay.step(Sent(ANN, 1 << 20))
        assert isinstance(answer, Data) and answer.size == len(content) and answer.offset == offset
        assert content[offset:].startswith(answer.data) and len(answer.data) <= length
        assert answer.data or offset == len(content)
    assert relay.say(ANN, Fetch(D, name, len(content) + 1, 1)) == [
        Held(D, name, Outcome.MISSING, len(content), len(content))
    ]


def test_nothing_of_a_half_attachment_is_sent(relay: Relay) -> None:
    content = noise(2 * MAX_PIECE)
    name = name_of(content)
    relay.say(ANN, Offer(D, name, len(content)), pieces(name, content)[0])
    for _ in range(2):
        assert relay.say(ANN, Fetch(D, name, 0, 1)) == [Held(D, name, Outcome.MISSING, len(content), MAX_PIECE)]
        relay.restart()


def test_what_is_not_what_its_name_says_is_taken_away(relay: Relay) -> None:
    content = noise(2 * MAX_PIECE)
    name = AttachmentName(PLAIN, hashlib.sha256(content + b"!").digest())
    relay.say(ANN, Offer(D, name, len(content)))
    assert relay.say(ANN, *pieces(name, content))[-1] == Held(D, name, Outcome.DAMAGED, 0, 0)
    assert relay.get(name) == Held(D, name, Outcome.MISSING, 0, 0)
    assert relay.log.quotas.used("ann") == 1
    # Of a sealed one the relay can't tell; the name belongs to its form.
    sealed = relay.bring(content, name=AttachmentName(SEALED, name.hash))
    assert relay.get(sealed) == content and relay.get(name) == Held(D, name, Outcome.MISSING, 0, 0)


def test_a_hash_alone_opens_nothing(relay: Relay) -> None:
    """Bob knows document and hash; his token is for neither. In a document of his own the name is not there."""
    content = noise(100)
    name = relay.bring(content)
    refused = [Error(ErrorCode.FORBIDDEN, "The token is not for this document.", D)]
    for message in (Fetch(D, name, 0, 100), Offer(D, name, 100), pieces(name, content)[0], Discard(D, name)):
        assert relay.say(BOB, message) == refused
    relay.write(BOB, E)
    assert relay.get(name, BOB, E) == Held(E, name, Outcome.MISSING, 0, 0)
    assert relay.say(GUEST, Fetch(E, name, 0, 1)) == [Error(ErrorCode.FORBIDDEN, refused[0].text, E)]
    assert relay.get(name) == content


def test_an_attachment_needs_a_document(relay: Relay) -> None:
    name = name_of(b"x")
    assert relay.say(ANN, Offer(E, name, 1)) == [Held(E, name, Outcome.NOT_BEGUN, 0, 0)]
    assert relay.say(ANN, Data(E, name, 1, 0, b"x")) == [Held(E, name, Outcome.NOT_BEGUN, 0, 0)]
    assert relay.say(ANN, Fetch(E, name, 0, 1)) == [Held(E, name, Outcome.MISSING, 0, 0)]
    assert relay.say(ANN, Data(D, name, 1, 0, b"x")) == [Held(D, name, Outcome.MISSING, 0, 0)]


def test_each_limit_has_its_answer(tmp_path: Path) -> None:
    relay = Relay(tmp_path, attachment=1000, attachment_bytes=2500, attachments=4, subject_log=2401)
    relay.write()

    def offer(size: int, seed: int) -> Message:
        (answer,) = relay.say(ANN, Offer(D, name_of(noise(size, seed)), size))
        return answer

    def outcome(size: int, seed: int) -> int:
        answer = offer(size, seed)
        assert isinstance(answer, Held)
        return answer.outcome

    assert outcome(1001, 0) == Outcome.TOO_LARGE
    relay.bring(noise(1000, 1))
    relay.bring(noise(1000, 2))
    assert outcome(501, 3) == Outcome.DOCUMENT_FULL
    assert outcome(500, 3) == Outcome.SUBJECT_FULL
    # Records and attachments share the quota.
    relay.bring(noise(400, 4))
    (*_, answer) = relay.say(ANN, Push(D, S, 2, (b"y",)))
    assert isinstance(answer, Error) and answer.code == ErrorCode.SUBJECT_FULL
    assert relay.say(ANN, Discard(D, name_of(noise(400, 4))))
    relay.bring(noise(1, 5))
    relay.bring(noise(1, 6))
    assert outcome(1, 7) == Outcome.DOCUMENT_FULL
    relay.log.close()


def test_the_oldest_unfinished_one_gives_way(tmp_path: Path) -> None:
    relay = Relay(tmp_path, attachments_unfinished=3)
    relay.write()
    names = [name_of(noise(10, seed)) for seed in range(5)]
    relay.bring(b"whole")
    for name in names:
        relay.say(ANN, Offer(D, name, 10))
    assert [found.name for found in relay.log.attachments.unfinished(D)] == names[-3:]
    assert relay.get(name_of(b"whole")) == b"whole"
    relay.log.close()


def test_another_size_begins_anew_unless_it_is_whole(relay: Relay) -> None:
    content = noise(MAX_PIECE + 1)
    name = name_of(content)
    relay.say(ANN, Offer(D, name, 3 * MAX_PIECE), Data(D, name, 3 * MAX_PIECE, 0, content[:MAX_PIECE]))
    relay.bring(content)
    assert relay.say(GUEST, Offer(D, name, 5)) == [whole(name, content)]
    assert relay.get(name) == content


def test_pieces_are_whole_pieces_in_their_order(relay: Relay) -> None:
    content = noise(3 * MAX_PIECE)
    name, size = name_of(content), 3 * MAX_PIECE
    first, second, _ = pieces(name, content)
    relay.say(ANN, Offer(D, name, size))
    assert relay.say(ANN, second) == [Held(D, name, Outcome.GAP, size, 0)]
    assert relay.say(ANN, Data(D, name, size, 0, b"small")) == [Held(D, name, Outcome.GAP, size, 0)]
    assert relay.say(ANN, first, first) == [Held(D, name, Outcome.HELD, size, MAX_PIECE)] * 2
    assert relay.log.attachments.piece(D, name, 1) == b""


def test_what_is_discarded_is_in_no_file(relay: Relay) -> None:
    content = b"what nobody may find again" * 9000
    name = relay.bring(content)
    assert relay.say(ANN, Discard(D, name), steps=100) == [Held(D, name, Outcome.MISSING, 0, 0)]
    assert all(b"nobody may find" not in file.read_bytes() for file in relay.folder.iterdir())
    assert relay.get(name) == Held(D, name, Outcome.MISSING, 0, 0) and relay.log.quotas.used("ann") == 1
    assert relay.say(ANN, Discard(D, NOTHING)) == [Held(D, NOTHING, Outcome.MISSING, 0, 0)]


def test_a_deleted_document_takes_its_attachments_along(relay: Relay) -> None:
    content = b"what nobody may find again" * 9000
    name = relay.bring(content)
    assert relay.say(ANN, Delete(D), steps=100)[-1] == Deleted(D, 0)
    assert all(b"nobody may find" not in file.read_bytes() for file in relay.folder.iterdir())
    for message in (Fetch(D, name, 0, 1), Offer(D, name, 1), Discard(D, name)):
        (answer,) = relay.say(GUEST, message)
        assert isinstance(answer, Error) and answer.code == ErrorCode.GONE
    assert list(verify(relay.folder / DATABASE)) == []


def test_a_copy_has_them_and_a_restored_one_brings_none_back_that_was_deleted(relay: Relay) -> None:
    """A document that was deleted since a copy was made stays deleted, also where it comes back with the copy."""
    content, copy = noise(3 * MAX_PIECE + 1), relay.folder / "copy.db"
    name = relay.bring(content)
    backup(relay.folder / DATABASE, copy)
    assert list(verify(copy)) == []
    relay.say(ANN, Discard(D, name), steps=100)
    relay.log.close()
    restore(copy, relay.folder / DATABASE)
    relay.open()
    assert relay.get(name) == content
    relay.say(ANN, Delete(D), steps=100)
    relay.log.close()
    restore(copy, relay.folder / DATABASE)
    relay.open()
    (answer,) = relay.say(ANN, Fetch(D, name, 0, 1))
    assert isinstance(answer, Error) and answer.code == ErrorCode.GONE
    assert content[:100] not in (relay.folder / DATABASE).read_bytes()


def test_a_reader_that_takes_nothing_is_sent_little(relay: Relay) -> None:
    content = noise(40 * MAX_PIECE)
    name = relay.bring(content)
    relay.taken = 0
    answers = relay.say(GUEST, *(Fetch(D, name, at, MAX_PIECE) for at in range(0, len(content), MAX_PIECE)))
    assert 0 < len(answers) < 5 and relay.taken == len(answers), "the rest is in progress still"
    assert relay.get(name) == content, "and keeps nobody else waiting"
    weight = sum(len(a.data) + 128 for a in answers if isinstance(a, Data))
    for _ in range(40):
        relay.inbox.clear()
        relay.step(Sent(GUEST, weight))
        more = relay.inbox.pop(GUEST, [])
        weight, answers = sum(len(a.data) + 128 for a in more if isinstance(a, Data)), answers + more
    assert b"".join(a.data for a in answers if isinstance(a, Data)) == content and relay.taken == 40 + 40
    relay.say(GUEST, *(Fetch(D, name, 0, MAX_PIECE) for _ in range(40)))
    relay.step(Left(GUEST))
    assert not relay.rooms.more


def test_a_disk_that_fails_acknowledges_nothing(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    content = noise(3 * MAX_PIECE)
    name = name_of(content)
    relay.say(ANN, Offer(D, name, len(content)), pieces(name, content)[0])
    failure = {D: LogError("The disk is full.")}

    def commit() -> dict[bytes, LogError]:
        relay.log.database.connection.rollback()
        relay.log.database._staged.clear()
        relay.log.database.forget()
        return failure

    with monkeypatch.context() as patch:
        patch.setattr(relay.log.records, "commit", commit)
        assert relay.say(ANN, *pieces(name, content)[1:]) == []
    assert relay.dropped[ANN].code == ErrorCode.STORAGE
    relay.join(ANN, "ann", lambda document: False)
    assert relay.say(ANN, Offer(D, name, len(content))) == [Held(D, name, Outcome.HELD, len(content), MAX_PIECE)]
    relay.say(ANN, *pieces(name, content)[1:])
    assert relay.get(name) == content


def test_a_damaged_file_is_told(relay: Relay) -> None:
    name = relay.bring(noise(2 * MAX_PIECE))
    db = relay.log.database.connection
    db.execute("UPDATE pieces SET data = ? WHERE key = (SELECT min(key) FROM pieces)", (b"!" * MAX_PIECE,))
    assert any("not what its name says" in fault for fault in verify(relay.folder / DATABASE))
    db.execute("DELETE FROM pieces WHERE key = (SELECT min(key) FROM pieces)")
    assert any(f"{name.hash.hex()}: 0 of" in fault for fault in verify(relay.folder / DATABASE))
