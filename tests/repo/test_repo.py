"""A repo from the outside: several processes on one file, copies, backups, crashes."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pycrdt
import pytest

import llmcrdt
from llmcrdt.exceptions import (
    ConversationDeleted,
    ConversationNotFound,
    InvalidContent,
    LibraryMismatch,
    StoreError,
)
from llmcrdt.ids import DocumentId
from llmcrdt.repo.sync_source import SyncSource
from llmcrdt.store.updates import SqliteUpdates
from llmcrdt.sync.messages import Cursor
from sync_server.thread import RelayThread

from ..waiting import eventually

OpenRepo = Callable[..., llmcrdt.Repo]


def texts(conversation: llmcrdt.Conversation) -> list[str]:
    return [entry.text for entry in conversation.transcript()]


def test_a_library_is_joined_by_its_id(open_repo: OpenRepo) -> None:
    laptop = open_repo("laptop")
    phone = open_repo("phone", laptop.library)
    assert phone.library == laptop.library
    phone.close()
    with pytest.raises(LibraryMismatch, match="belongs to library"):
        open_repo("phone", open_repo("other").library)
    with pytest.raises(InvalidContent):
        open_repo("third", "not an id")


def test_list_rename_delete(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    made = [repo.create(f"title {n}") for n in range(3)]
    assert [row.title for row in repo.list()] == ["title 2", "title 1", "title 0"]
    repo.rename(made[0].id, "another")
    repo.archive(made[2].id)
    assert [row.archived for row in repo.list()] == [True, False, False]
    repo.archive(made[2].id, False)
    assert not any(row.archived for row in repo.list())
    assert made[0].title == "another"
    repo.delete(made[1].id)
    assert [row.title for row in repo.list()] == ["title 2", "another"]
    with pytest.raises(ConversationNotFound, match=r"was deleted.* A deleted id never comes back") as gone:
        repo.get(made[1].id)
    assert "join" not in str(gone.value), "a deleted conversation can't be joined"
    with pytest.raises(ConversationDeleted):
        made[1].append("user", "x")
    repo.close()
    assert [row.title for row in open_repo("laptop").list()] == ["title 2", "another"]


def test_a_deleted_conversation_stays_deleted_whatever_else_is_said_of_it(open_repo: OpenRepo) -> None:
    laptop = open_repo("laptop")
    conversation = laptop.create("x")
    phone = open_repo("phone", laptop.library)
    phone._core.library.document.apply(laptop._core.library.document.diff())
    laptop.delete(conversation.id)
    for n in range(5):
        phone._core.library.put(conversation.id, title=f"renamed {n}", deleted=False)
    laptop._core.library.document.apply(phone._core.library.document.diff())
    phone._core.library.document.apply(laptop._core.library.document.diff())
    assert list(laptop.list()) == list(phone.list()) == []


def test_list_loads_no_document(open_repo: OpenRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = open_repo("laptop")
    for n in range(5):
        repo.create(str(n)).close()
    repo.close()
    repo = open_repo("laptop")
    loaded: list[str] = []
    original = SqliteUpdates.since
    monkeypatch.setattr(
        SqliteUpdates,
        "since",
        lambda self, document, *rest: (loaded.append(document), original(self, document, *rest))[1],
    )
    assert len(repo.list()) == 5
    assert set(loaded) <= {repo.library}


def test_two_processes_write_one_conversation_and_see_each_other(open_repo: OpenRepo, tmp_path: Path) -> None:
    repo = open_repo("laptop")
    conversation = repo.create("shared")
    heard = threading.Event()
    conversation.observe(lambda change: heard.set() if any(e.text == "theirs 19" for e in change.added) else None)
    script = textwrap.dedent(f"""
        import llmcrdt
        with llmcrdt.open({str(tmp_path / "laptop.db")!r}, author="other") as repo:
            conversation = repo.get({conversation.id!r})
            for n in range(20):
                conversation.append("user", f"theirs {{n}}")
    """)
    process = subprocess.Popen([sys.executable, "-c", script])
    for n in range(20):
        conversation.append("user", f"mine {n}")
    assert process.wait(30) == 0
    assert heard.wait(10), "an observer hears of another process's writes without asking"
    assert sorted(texts(conversation)) == sorted([f"mine {n}" for n in range(20)] + [f"theirs {n}" for n in range(20)])
    before = conversation.transcript().hash
    repo.close()
    assert open_repo("laptop").get(conversation.id).transcript().hash == before


@pytest.mark.parametrize("then", ["append", "erase"])
def test_what_another_process_wrote_and_compacted_during_a_write_is_lost_by_nobody(
    open_repo: OpenRepo, tmp_path: Path, then: str
) -> None:
    """Its updates are gone by then: only its snapshot says that there is something that was not read yet."""
    repo = open_repo("laptop")
    here = repo.create()
    first = here.append("user", "first")
    with llmcrdt.open(tmp_path / "laptop.db") as other:
        there = other.get(here.id)
        with here.batch():
            if then == "append":
                here.append("user", "mine")
            else:
                here.erase(first)
            with there.batch():
                for n in range(30):
                    there.append("user", f"{n} " + "theirs " * 3000)
            db, query = other._core.store._connection, "SELECT count(*) FROM updates WHERE document = ?"
            eventually(lambda: db.one(query, here.id) == 0)
        here.append("user", "later " * 50_000)
        here.erase(here.append("user", "gone"))
    here.close()
    transcript = repo.get(here.id).transcript()
    assert {str(n) for n in range(30)} <= {entry.text.split()[0] for entry in transcript if "theirs" in entry.text}
    assert not transcript.malformed


def test_a_copied_file_and_its_original_both_go_on(open_repo: OpenRepo, tmp_path: Path) -> None:
    """Two writers under one CRDT identity corrupt a document without a word; here every open draws its own."""
    repo = open_repo("laptop")
    conversation = repo.create()
    conversation.append("user", "before")
    repo.close()
    shutil.copy(tmp_path / "laptop.db", tmp_path / "copy.db")
    a, b = open_repo("laptop").get(conversation.id), open_repo("copy").get(conversation.id)
    a.append("user", "in the original")
    b.append("user", "in the copy")
    a.apply(b.diff(since=a.version()))
    b.apply(a.diff(since=b.version()))
    assert sorted(texts(a)) == ["before", "in the copy", "in the original"]
    assert a.transcript().hash == b.transcript().hash


def test_a_restored_backup_goes_on_and_gets_back_what_it_lost(open_repo: OpenRepo, tmp_path: Path) -> None:
    repo = open_repo("laptop")
    conversation = repo.create()
    conversation.append("user", "one")
    repo.close()
    shutil.copy(tmp_path / "laptop.db", tmp_path / "backup.db")
    repo = open_repo("laptop")
    repo.get(conversation.id).append("user", "after the backup")
    elsewhere = open_repo("phone").join(conversation.id)
    elsewhere.apply(repo.get(conversation.id).diff())
    repo.close()
    shutil.copy(tmp_path / "backup.db", tmp_path / "laptop.db")
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"laptop.db{suffix}").unlink(missing_ok=True)
    restored = open_repo("laptop").get(conversation.id)
    restored.append("user", "written after the restore")
    restored.apply(elsewhere.diff(since=restored.version()))
    elsewhere.apply(restored.diff(since=elsewhere.version()))
    assert sorted(texts(restored)) == ["after the backup", "one", "written after the restore"]
    assert restored.transcript().hash == elsewhere.transcript().hash


def test_kill_9_in_the_middle_of_writing_loses_nothing_that_append_returned(
    open_repo: OpenRepo, tmp_path: Path
) -> None:
    repo = open_repo("laptop")
    conversation = repo.create()
    repo.close()
    script = textwrap.dedent(f"""
        import llmcrdt
        conversation = llmcrdt.open({str(tmp_path / "laptop.db")!r}).get({conversation.id!r})
        n = 0
        while True:
            conversation.append("user", str(n))
            print(n, flush=True)
            n += 1
    """)
    told = -1
    for round_ in range(4):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.02 * round_)
        process.kill()
        lines = process.stdout.read().splitlines()
        process.wait()
        process.stdout.close()
        told = int(lines[-1]) if lines else 0
        with llmcrdt.open(tmp_path / "laptop.db") as again:
            found = texts(again.get(conversation.id))
            assert found[-1] in (str(told), str(told + 1))
            assert again.get(conversation.id).verify() == []
            again.get(conversation.id).append("user", "-")


def test_a_disk_that_refuses_changes_nothing(open_repo: OpenRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = open_repo("laptop")
    conversation = repo.create()
    conversation.append("user", "kept")

    def full(*_: object, **__: object) -> None:
        raise StoreError("disk full", hint="free some")

    with monkeypatch.context() as patch, pytest.raises(StoreError):
        patch.setattr(SqliteUpdates, "append", full)
        conversation.append("user", "lost")
    assert texts(conversation) == ["kept"]
    conversation.append("user", "after")
    repo.close()
    assert texts(open_repo("laptop").get(conversation.id)) == ["kept", "after"]


def test_a_long_conversation_is_folded_and_stays_the_same(open_repo: OpenRepo, tmp_path: Path) -> None:
    repo = open_repo("laptop")
    conversation = repo.create()
    for n in range(260):
        conversation.append("user", f"{n} " + "words " * 200)
    before = conversation.transcript().hash
    connection = repo._core.store._connection.db
    assert connection.execute("SELECT count(*) FROM snapshots WHERE document = ?", [conversation.id]).fetchone()[0] == 1
    assert connection.execute("SELECT count(*) FROM updates WHERE document = ?", [conversation.id]).fetchone()[0] < 260
    repo.close()
    again = open_repo("laptop").get(conversation.id)
    assert again.transcript().hash == before
    again.append("user", "and on")
    assert texts(again)[-1] == "and on"


def test_an_update_that_breaks_the_core_at_loading_is_set_aside(
    open_repo: OpenRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = open_repo("laptop")
    conversation = repo.create()
    conversation.append("user", "good")
    repo._core.store.outboxes.receive("ws://r", conversation.id, [("R" * 22, 1, b"\x01\x02nonsense")], [], None)
    repo.close()
    repo = open_repo("laptop")
    again = repo.get(conversation.id)
    assert texts(again) == ["good"]
    assert repo._core.store.updates.set_aside_count(conversation.id) == 1
    again.append("user", "more")
    repo.close()
    assert texts(open_repo("laptop").get(conversation.id)) == ["good", "more"]


def test_any_thread_may_write(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create()
    threads = [
        threading.Thread(target=lambda k=k: [conversation.append("user", f"{k}.{n}") for n in range(10)])
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts(conversation)) == sorted(f"{k}.{n}" for k in range(4) for n in range(10))
    assert conversation.transcript().malformed == {}


def test_what_another_process_writes_is_pushed_by_the_link_that_is_open(open_repo: OpenRepo, tmp_path: Path) -> None:
    with RelayThread(tmp_path / "relay") as relay:
        laptop = open_repo("laptop")
        conversation = laptop.create()
        conversation.append("user", "mine")
        phone = open_repo("phone", laptop.library)
        with laptop.connect(relay.url) as one, phone.connect(relay.url) as two:
            one.wait_synced(20)
            two.wait_synced(20)
            there = phone.get(conversation.id)
            came = threading.Event()
            there.observe(lambda change: came.set() if any(e.text == "theirs" for e in change.added) else None)
            with llmcrdt.open(tmp_path / "laptop.db") as other:  # as another process would
                other.get(conversation.id).append("user", "theirs")
            assert came.wait(20)


def test_two_links_on_one_file_both_get_in_step(open_repo: OpenRepo, tmp_path: Path) -> None:
    """The one that did not push hears of no ack: it has to look."""
    with RelayThread(tmp_path / "relay") as relay:
        one, two = open_repo("laptop"), open_repo("laptop")
        conversation = one.create()
        with one.connect(relay.url) as a, two.connect(relay.url) as b:
            for n in range(10):
                conversation.append("user", str(n))
                b.wait_synced(20)
                a.wait_synced(20)


@pytest.mark.parametrize("known", [False, True])
def test_a_refill_holds_what_another_process_wrote_meanwhile(
    open_repo: OpenRepo, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    repo = open_repo("mine")
    conv = repo.create()
    conv.append("user", "before")
    log, cursor = [conv.diff()], Cursor(b"l" * 16, 1, b"c" * 32)
    local = SyncSource(repo._core, "ws://relay", None)
    if known:
        local.refill(conv.id, log, cursor)
    with llmcrdt.open(repo._core.store.path) as process:
        theirs, lacking = process.get(conv.id), repo._core.missing_from

        def slow(document: DocumentId, log: Sequence[bytes]) -> object:
            found = lacking(document, log)
            monkeypatch.undo()
            theirs.append("user", "meanwhile")
            return found

        monkeypatch.setattr(repo._core, "missing_from", slow)
        local.refill(conv.id, log, cursor)
        theirs.append("user", "after")
    relay = pycrdt.Doc()
    for update in [*log, *(waiting.record.data for waiting in local.outbox(conv.id))]:
        relay.apply_update(update)
    entries = relay.get("entries", type=pycrdt.Map)
    assert set(entries) == {entry.id for entry in conv.transcript()} and len(entries) == 3


def test_a_refill_holds_what_was_only_deleted(open_repo: OpenRepo) -> None:
    """Such an update moves no clock: by their versions, a document and a log that lacks it look the same."""
    repo = open_repo("mine")
    conv = repo.create()
    entry = conv.append("user", "text")
    log = conv.diff()
    doc = pycrdt.Doc()
    doc.apply_update(log)
    before = doc.get_state()
    entries = doc.get("entries", type=pycrdt.Map)
    del entries[entry.id]
    assert doc.get_state() == before
    conv.apply(doc.get_update(before))
    local = SyncSource(repo._core, "ws://relay", None)
    local.refill(conv.id, [log], Cursor(b"l" * 16, 1, b"c" * 32))
    (waiting,) = local.outbox(conv.id)
    theirs = pycrdt.Doc()
    theirs.apply_update(log)
    theirs.apply_update(waiting.record.data)
    assert list(theirs.get("entries", type=pycrdt.Map)) == []
