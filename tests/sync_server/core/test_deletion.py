"""A deleted document: its id takes no records any more, its bytes leave every file, and nothing brings it back."""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llmcrdt.ids import document_id
from llmcrdt.sync.messages import (
    DELETE_DONE,
    Ack,
    Delete,
    Deleted,
    Error,
    ErrorCode,
    Fold,
    Message,
    Open,
    Opened,
    Push,
    Records,
)
from sync_server.__main__ import main
from sync_server.core.events import CompactRequest, CompactResult, Drop, Event, Greeted, Joined, Sent, Tick
from sync_server.core.limits import Limits
from sync_server.core.rooms import Rooms
from sync_server.core.validation import Left, Received
from sync_server.log import operator, tombstones
from sync_server.log.base import LogError, Origin
from sync_server.log.file import DATABASE
from sync_server.log.sqlite import SqliteStorage
from sync_server.log.verify import faults

D, E, S, T = b"d" * 16, b"e" * 16, b"s" * 16, b"t" * 16
SECRET = b"what nobody may find again" * 40


class Relay:
    """Rooms, with what each peer was sent. Peer 1 is of subject ann, 2 of bob, 3 an admin, 4 nobody in particular."""

    def __init__(self, folder: Path, **limits: int) -> None:
        self.folder, self.limits = folder, Limits(**limits)
        self.open()

    def open(self) -> None:
        self.log = SqliteStorage(self.folder / DATABASE)
        self.rooms = Rooms(self.log, self.limits, random.Random(1).randbytes)
        self.inbox: dict[int, list[Message]] = {}
        self.to_fold: list[CompactRequest] = []
        self.step(*(Joined(peer) for peer in (1, 2, 3, 4)))
        self.step(Greeted(1, 0, "ann", False), Greeted(2, 0, "bob", False), Greeted(3, 0, "root", True))

    def restart(self) -> None:
        self.log.close()
        self.open()

    def step(self, *events: Event) -> None:
        for output in self.rooms.step(events):
            if isinstance(output, CompactRequest):
                self.to_fold.append(output)
            elif isinstance(output, Drop):
                self.inbox.setdefault(output.peer, []).append(output.error)
            else:
                for peer in output.peers:
                    self.inbox.setdefault(peer, []).append(output.message)
                    self.rooms.step([Sent(peer, output.weight)])

    def say(self, peer: int, *messages: Message) -> list[Message]:
        """One step with these messages, and all that follow from it; what the peer got."""
        self.inbox[peer] = []
        self.step(*(Received(peer, m) for m in messages))
        while self.rooms.more:
            self.step()
        return self.inbox[peer]

    def codes(self, peer: int, *messages: Message) -> list[int]:
        return [m.code for m in self.say(peer, *messages) if isinstance(m, Error)]

    def in_files(self, text: bytes) -> list[str]:
        return [path.name for path in self.folder.iterdir() if text in path.read_bytes()]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Relay]]:
    made: list[Relay] = []

    def make_(**limits: int) -> Relay:
        made.append(Relay(tmp_path, **limits))
        return made[-1]

    yield make_
    for relay in made:
        relay.log.close()


def test_streams_end_and_the_id_takes_nothing_any_more(make: Callable[..., Relay]) -> None:
    relay = make()
    relay.say(1, Open(D, "yjs"), Push(D, S, 1, (SECRET,)), Open(E, "yjs"), Push(E, S, 1, (b"e",)))
    relay.say(2, Open(D, "yjs"))
    assert relay.in_files(SECRET)
    assert relay.codes(1, Delete(D)) == [ErrorCode.GONE]
    assert relay.inbox[1][-1] == Deleted(D, DELETE_DONE)
    assert [m for m in relay.inbox[2] if isinstance(m, Error)] == [
        Error(ErrorCode.GONE, "This document was deleted.", D)
    ]
    assert not relay.in_files(SECRET)
    for again in range(2):
        for message in (Open(D, "yjs"), Open(D, "automerge"), Push(D, S, 2, (b"x",)), Push(D, T, 1, (b"x",)), Fold(D)):
            assert relay.codes(2, message) == [ErrorCode.GONE], message
        assert relay.say(4, Delete(D)) == [Deleted(D, DELETE_DONE)]
        assert isinstance(relay.say(4, Open(E, "yjs"))[0], Opened)
        assert list(faults(relay.log.database.connection)) == []
        if not again:
            relay.restart()


def test_an_id_that_the_relay_never_saw_can_be_deleted(make: Callable[..., Relay]) -> None:
    relay = make()
    assert relay.say(1, Delete(D)) == [Deleted(D, DELETE_DONE)]
    assert relay.codes(1, Open(D, "yjs")) == [ErrorCode.GONE]


def test_messages_of_the_same_step(make: Callable[..., Relay]) -> None:
    """A record before the deletion is acknowledged or not; one after it is refused."""
    relay = make()
    relay.say(1, Open(D, "yjs"))
    got = relay.say(1, Push(D, S, 1, (SECRET,)), Delete(D), Push(D, S, 2, (b"x",)), Open(D, "yjs"), Fold(D))
    assert all(isinstance(m, Error) and m.code == ErrorCode.GONE for m in got[:-1])
    assert len(got) >= 4 and got[-1] == Deleted(D, DELETE_DONE)
    assert not relay.in_files(SECRET)


@pytest.mark.parametrize(("peer", "outcome"), [(1, 0), (2, 1), (3, 0), (4, 0)])
def test_who_may_delete(make: Callable[..., Relay], peer: int, outcome: int) -> None:
    relay = make()
    relay.say(1, Open(D, "yjs"), Push(D, S, 1, (b"a",)))
    relay.say(2, Open(D, "yjs"), Push(D, T, 1, (b"b",)))
    assert relay.say(peer, Delete(D))[-1] == Deleted(D, outcome)
    assert (relay.log.records.head(D) is None) is (outcome == DELETE_DONE)


def test_a_long_log_goes_in_small_steps_also_over_a_restart(make: Callable[..., Relay]) -> None:
    relay = make(sweep=3, window_records=100)
    relay.say(1, Open(D, "yjs"), Push(D, S, 1, (SECRET,) * 20))
    relay.inbox[1] = []
    relay.step(Received(1, Delete(D)))
    assert Deleted(D, 0) not in relay.inbox[1]
    relay.restart()
    assert relay.in_files(SECRET)
    assert relay.codes(1, Open(D, "yjs")) == [ErrorCode.GONE]
    while relay.rooms.more or relay.rooms.stuck:
        relay.step()
    assert not relay.in_files(SECRET)
    assert list(faults(relay.log.database.connection)) == []


def test_a_fold_under_way_brings_nothing_back(make: Callable[..., Relay]) -> None:
    relay = make()
    relay.say(1, Open(D, "yjs"), Push(D, S, 1, (SECRET,)), Fold(D))
    (todo,) = relay.to_fold
    relay.say(1, Delete(D))
    relay.step(CompactResult(D, todo.upto, [SECRET]))
    assert relay.codes(2, Open(D, "yjs")) == [ErrorCode.GONE]
    assert not relay.in_files(SECRET)


def test_a_folded_document_goes_as_well(make: Callable[..., Relay]) -> None:
    relay = make()
    relay.say(1, Open(D, "yjs"), Push(D, S, 1, (b"a", b"b")), Fold(D))
    relay.step(CompactResult(D, relay.to_fold[0].upto, [SECRET]))
    assert relay.in_files(SECRET)
    assert relay.say(1, Delete(D))[-1] == Deleted(D, 0)
    assert not relay.in_files(SECRET)


def test_a_deletion_that_could_not_be_written_ends_no_stream(
    make: Callable[..., Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = make()
    relay.say(1, Open(D, "yjs"), Push(D, S, 1, (b"a",)))
    relay.say(2, Open(D, "yjs"))
    relay.inbox[2] = []

    def full() -> None:
        raise LogError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(relay.log.database, "_commit", full)
        assert relay.codes(1, Delete(D)) == [ErrorCode.STORAGE]
    assert relay.inbox[2] == []
    relay.step(Joined(5))
    assert isinstance(relay.say(5, Open(D, "yjs"), Push(D, T, 1, (b"b",)))[0], Opened)
    assert any(isinstance(m, Records) for m in relay.inbox[2])


def test_a_sweep_that_could_not_be_written_is_done_again_before_the_answer(
    make: Callable[..., Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tombstone is on disk; that its records go is not."""
    relay = make(sweep=3, window_records=100)
    relay.say(1, Open(D, "yjs"), Push(D, S, 1, (SECRET,) * 20))
    relay.inbox[1] = []
    database, fails, swept = relay.log.database, 2, False
    sweep, commit = tombstones.sweep, database._commit

    def last(*arguments: Any) -> bool:
        nonlocal swept
        more = sweep(*arguments)
        swept = not more
        return more

    def full() -> None:
        nonlocal fails
        if swept and fails:
            fails -= 1
            raise LogError("disk full")
        commit()

    monkeypatch.setattr(tombstones, "sweep", last)
    monkeypatch.setattr(database, "_commit", full)
    relay.step(Received(1, Delete(D)))
    while relay.rooms.more or relay.rooms.stuck:
        relay.step(Tick())
        assert (Deleted(D, 0) in relay.inbox[1]) is (not relay.in_files(SECRET))
    assert fails == 0 and Deleted(D, 0) in relay.inbox[1]


def test_only_so_many_deletions_wait(make: Callable[..., Relay]) -> None:
    relay = make(deletes=2)
    relay.step(Received(1, Delete(D)), Received(1, Delete(D)), Received(1, Delete(E)))
    assert [m.code for m in relay.inbox[1] if isinstance(m, Error)] == [ErrorCode.WINDOW_EXCEEDED]
    relay.step(Left(1))


def test_a_subject_has_room_for_so_many_bytes_in_all_its_logs(make: Callable[..., Relay]) -> None:
    relay = make(subject_log=100)
    relay.say(1, Open(D, "yjs"), Push(D, S, 1, (b"x" * 60,)), Open(E, "yjs"))
    assert relay.codes(1, Push(E, S, 1, (b"y" * 41,))) == [ErrorCode.SUBJECT_FULL]
    assert Ack(E, S, 1, 1, 1) in relay.say(1, Push(E, S, 1, (b"y" * 40,)))
    relay.restart()
    # It is ann's document, whoever writes to it; what bob begins is his own.
    relay.say(2, Open(D, "yjs"), Open(T, "yjs"))
    assert relay.codes(2, Push(D, T, 1, (b"z",))) == [ErrorCode.SUBJECT_FULL]
    assert Ack(T, T, 1, 1, 1) in relay.say(2, Push(T, T, 1, (b"z" * 100,)))
    relay.say(1, Open(D, "yjs"), Delete(E))
    assert Ack(D, T, 1, 1, 2) in relay.say(1, Push(D, T, 1, (b"z" * 40,)))
    assert relay.codes(1, Push(D, T, 2, (b"z",))) == [ErrorCode.SUBJECT_FULL]
    relay.say(1, Fold(D))
    relay.step(CompactResult(D, relay.to_fold[-1].upto, [b"f" * 50]))
    assert Ack(D, T, 2, 1, 3) in relay.say(1, Push(D, T, 2, (b"z" * 50,)))
    # An open relay knows no subjects.
    assert any(isinstance(m, Ack) for m in relay.say(4, Open(S, "yjs"), Push(S, S, 1, (b"z" * 500,))))


def test_a_log_of_before_is_brought_up_to_date(tmp_path: Path) -> None:
    """Tables as they were before documents could be deleted."""
    with closing(SqliteStorage(tmp_path / DATABASE)) as log:
        log.records.append(D, S, 1, [b"a"], Origin("yjs", b"l" * 16))
        assert not log.records.commit()
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db:
        db.executescript(
            "DROP INDEX documents_by_owner; DROP INDEX documents_to_sweep; DROP INDEX documents_unknown;"
            "ALTER TABLE documents DROP COLUMN owner; ALTER TABLE documents DROP COLUMN gone;"
            "DELETE FROM _sqlite_migrations WHERE name IN ('m003_tombstones', 'm005_unknown')"
        )
    with closing(SqliteStorage(tmp_path / DATABASE)) as log:
        assert (log.quotas.owner(D), log.tombstones.is_deleted(D)) == ("", False)
        log.tombstones.delete(D)
        assert not log.records.commit()
        assert (log.records.head(D), log.tombstones.is_deleted(D), log.documents()) == (None, True, [])


def test_an_old_copy_that_is_restored_brings_nothing_back(make: Callable[..., Relay], tmp_path: Path) -> None:
    relay = make()
    relay.say(1, Open(D, "yjs"), Push(D, S, 1, (SECRET,)), Open(E, "yjs"), Push(E, S, 1, (b"e",)))
    copy = tmp_path.parent / f"{tmp_path.name}.copy"
    assert main(["backup", "--data", str(tmp_path), str(copy)]) == 0
    relay.say(1, Delete(D), Delete(T))
    relay.log.close()
    assert main(["restore", "--data", str(tmp_path), str(copy)]) == 0
    relay.open()
    assert not relay.in_files(SECRET)
    for document, codes in ((D, [ErrorCode.GONE]), (T, [ErrorCode.GONE]), (E, [])):
        assert relay.codes(1, Open(document, "yjs")) == codes
    assert list(faults(relay.log.database.connection)) == []


def test_a_restore_that_is_killed_anywhere_brings_nothing_back(tmp_path: Path) -> None:
    """The files as they are at each call that it makes: those are what it leaves where it is killed there."""
    data, copy, seen = tmp_path / "data", tmp_path / "copy.db", tmp_path / "seen"
    data.mkdir()
    with closing(SqliteStorage(data / DATABASE)) as log:
        for document in (D, E):
            log.records.append(document, S, 1, [SECRET], Origin("yjs", b"l" * 16))
        assert not log.records.commit()
    assert main(["backup", "--data", str(data), str(copy)]) == 0
    with closing(SqliteStorage(data / DATABASE)) as log:
        log.tombstones.delete(D, "ann")
        log.tombstones.delete(T, "ann")
        log.records.append(E, S, 2, [b"e"], Origin("yjs", b"l" * 16))
        assert not log.records.commit()
    states: dict[bytes, Path] = {}

    def look(_: object, event: str, __: object) -> None:
        if event in ("c_return", "c_exception"):
            files = {file.name: file.read_bytes() for file in data.iterdir()}
            name = hashlib.sha256(repr(sorted(files.items())).encode()).digest()
            if name not in states:
                folder = states[name] = seen / str(len(states))
                folder.mkdir(parents=True)
                for file, content in files.items():
                    (folder / file).write_bytes(content)

    sys.setprofile(look)
    try:
        operator.restore(copy, data / DATABASE)
    finally:
        sys.setprofile(None)
    ends = set()
    for folder in (*states.values(), data):
        with closing(SqliteStorage(folder / DATABASE)) as log:
            assert log.tombstones.is_deleted(D) and log.tombstones.is_deleted(T), folder
            assert log.quotas.unknown_tombstones("ann") == 1
            head = log.records.head(E)
            assert head is not None and list(faults(log.database.connection)) == []
            ends.add(head.cursor.position)
        assert {file.name for file in folder.iterdir()} <= {DATABASE, f"{DATABASE}-lock"}
    assert ends == {1, 2} and len(states) > 10


def test_inspect_and_verify_can_be_read_by_programs(
    make: Callable[..., Relay], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relay = make()
    relay.say(1, Open(D, "yjs"), Push(D, S, 1, (b"abc",)), Open(E, "yjs"), Push(E, S, 1, (b"e",)))
    relay.say(1, Delete(E))
    assert main(["inspect", "--data", str(tmp_path), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "document": document_id(D), "kind": "yjs", "records": 1, "folded": 0, "tail_bytes": 3, "snapshot_bytes": 0,
        "owner": "ann", "refused": 0, "attachments": 0, "attachment_bytes": 0,
    }  # fmt: skip
    assert main(["verify", "--data", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"sound": True, "faults": []}
    relay.log.database.connection.execute("UPDATE documents SET gone = 2 WHERE gone = 0")
    relay.log.database.connection.commit()
    assert main(["verify", "--data", str(tmp_path), "--json"]) == 1
    assert "has records" in json.loads(capsys.readouterr().out)["faults"][0]
