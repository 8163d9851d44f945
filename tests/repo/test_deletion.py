"""A deleted conversation is gone everywhere, on every device and at the relay, and does not come back."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import pytest

import llmcrdt
from llmcrdt.cli import main
from llmcrdt.exceptions import ConversationDeleted, ConversationNotFound, RelayRefused, StoreError
from llmcrdt.ids import document_bytes
from llmcrdt.store.deletions import SqliteDeletions
from llmcrdt.store.relay_tasks import SqliteRelayTasks
from llmcrdt.sync.link import control_of
from llmcrdt.sync.messages import Ack, Error, ErrorCode, Open, Opened, Push
from llmcrdt.sync.protocol import Connection
from sync_server.auth.tokens import Tokens
from sync_server.log.sqlite import SqliteStorage
from sync_server.thread import RelayThread

from ..sync_server.core.test_validation import ask, native
from ..waiting import eventually

OpenRepo = Callable[..., llmcrdt.Repo]
SECRET = "Schwarzwälderkirschtorte"


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayThread]:
    with RelayThread(tmp_path / "relay") as relay:
        yield relay


def holds(folder: Path, word: str = SECRET) -> list[str]:
    """The files that have a word in them."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if word.encode() in path.read_bytes()]


def test_nothing_of_it_stays_on_the_device(open_repo: OpenRepo, tmp_path: Path) -> None:
    repo = open_repo("laptop")
    kept, gone = repo.create("Kept"), repo.create("Gone")
    kept.append("user", "Hello")
    picture, both = llmcrdt.Blob(b"only there", name="a.bin"), llmcrdt.Blob(b"in both", name="b.bin")
    gone.append("user", [llmcrdt.Text(SECRET), picture, both])
    kept.append("user", [llmcrdt.Text("and"), both])
    assert holds(tmp_path) and repo.search(SECRET)
    names = {blob.hash: blob for entry in gone.transcript() for blob in entry.parts if isinstance(blob, llmcrdt.Blob)}
    repo.delete(gone.id)
    assert holds(tmp_path) == []
    assert {blob.name for hash_, blob in names.items() if repo.blobs.has(hash_)} == {"b.bin"}
    assert [row.title for row in repo.list()] == ["Kept"] and kept.transcript()[0].text == "Hello"
    with pytest.raises(ConversationNotFound):
        repo.get(gone.id)
    with pytest.raises(ConversationDeleted, match="was deleted from the library"):
        gone.append("user", "more")


def test_what_another_process_still_wrote_goes_at_the_next_start(open_repo: OpenRepo, tmp_path: Path) -> None:
    repo = open_repo("laptop")
    conversation = repo.create("Gone")
    conversation.append("user", "Hello")
    update = conversation.diff() + SECRET.encode()
    repo.delete(conversation.id)
    repo.close()
    with sqlite3.connect(tmp_path / "laptop.db") as db:  # as a process would that had not heard of it yet
        insert = "INSERT INTO updates (document, writer, keys, data) VALUES (?, 'x', '', ?)"
        db.execute(insert, [conversation.id, update])
    db.close()
    assert holds(tmp_path)
    llmcrdt.open(tmp_path / "laptop.db").close()
    assert holds(tmp_path) == []


@pytest.mark.parametrize("when", ["deleted", "opened"])
def test_what_could_not_be_dropped_is_dropped_in_a_while_by_itself(
    open_repo: OpenRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr("llmcrdt.repo.watcher._POLL", 0.01)
    drop, tries = SqliteDeletions.drop, list[str]()

    def full(store: SqliteDeletions, document: str) -> None:
        tries.append(document)
        if len(tries) < (4 if when == "deleted" else 5):
            raise StoreError("disk full")
        drop(store, document)

    monkeypatch.setattr(SqliteDeletions, "drop", full)
    repo = open_repo("laptop")
    conversation = repo.create("Gone")
    conversation.append("user", SECRET)
    with pytest.raises(StoreError):
        repo.delete(conversation.id)
    assert repo.list() == [] and holds(tmp_path)
    if when == "opened":
        repo.close()
        repo = open_repo("laptop")
    eventually(lambda: holds(tmp_path), lambda found: found == [])
    made = len(tries)
    assert made == (4 if when == "deleted" else 5) and repo._core.deletion.looks_left == 0


def test_what_somebody_still_reads_is_scrubbed_in_a_while_by_itself(
    open_repo: OpenRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmcrdt.repo.watcher._POLL", 0.01)
    repo = open_repo("laptop")
    conversation = repo.create("Gone")
    conversation.append("user", SECRET)
    with closing(sqlite3.connect(tmp_path / "laptop.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM updates").fetchone()
        repo.delete(conversation.id)
        assert holds(tmp_path)
        reader.execute("COMMIT")
    eventually(lambda: holds(tmp_path), lambda found: found == [])


def test_who_writes_in_it_just_then_is_told_at_the_next_word(open_repo: OpenRepo, relay: RelayThread) -> None:
    laptop = open_repo("laptop", clock=lambda: 1_700_000_000.0)  # it stands still: nothing is due to be shown
    conversation = laptop.create("Gone")
    phone = open_repo("phone", laptop.library)
    with laptop.connect(relay.url) as one, phone.connect(relay.url) as two:
        one.wait_synced(30)
        two.wait_synced(30)
        stream, other = conversation.stream("assistant"), conversation.stream("assistant")
        stream.write("The first words are shown at once, ")
        stream.write("the next wait. ")
        assert stream.waiting
        phone.delete(conversation.id)
        two.wait_synced(30)
        one.wait_synced(30)
    for speak in (lambda: stream.write("more"), lambda: other.call("c", "trains"), stream.seal):
        with pytest.raises(ConversationDeleted, match="was deleted from the library"):
            speak()
    assert stream.text == "The first words are shown at once, the next wait. ", "what was refused is not in it"


def test_every_device_and_the_relay_delete_it(open_repo: OpenRepo, relay: RelayThread, tmp_path: Path) -> None:
    laptop = open_repo("laptop")
    conversation = laptop.create("Gone")
    conversation.append("user", SECRET)
    phone = open_repo("phone", laptop.library)
    with laptop.connect(relay.url) as one, phone.connect(relay.url) as two:
        one.wait_synced(30)
        two.wait_synced(30)
        assert len(holds(tmp_path)) >= 3
        laptop.delete(conversation.id)
        eventually(lambda: not holds(tmp_path))
        assert [row.id for row in phone.list()] == []
        eventually(
            lambda: (
                not laptop._core.store.relay_tasks.deletions(relay.url)
                and not phone._core.store.relay_tasks.deletions(relay.url)
            )
        )
        one.wait_synced(30)
        two.wait_synced(30)


def test_it_is_asked_for_again_until_the_relay_has_answered(
    open_repo: OpenRepo, relay: RelayThread, tmp_path: Path
) -> None:
    laptop = open_repo("laptop")
    conversation = laptop.create("Gone")
    conversation.append("user", SECRET)
    with laptop.connect(relay.url) as link:
        link.wait_synced(30)
    laptop.delete(conversation.id)  # offline
    laptop.close()
    assert SECRET.encode() in (tmp_path / "relay" / "relay.db-wal").read_bytes()
    again = llmcrdt.open(tmp_path / "laptop.db")
    assert again._core.store.relay_tasks.deletions(relay.url) == [conversation.id]
    with again.connect(relay.url):
        eventually(lambda: not holds(tmp_path) and not again._core.store.relay_tasks.deletions(relay.url))
    again.close()


def test_a_process_with_a_link_asks_for_what_another_one_deleted(
    open_repo: OpenRepo, relay: RelayThread, tmp_path: Path
) -> None:
    linked, other = open_repo("laptop"), open_repo("laptop")
    conversation = linked.create("Gone")
    conversation.append("user", SECRET)
    with linked.connect(relay.url) as link:
        link.wait_synced(30)
        other.delete(conversation.id)
        eventually(lambda: not holds(tmp_path) and not linked._core.store.relay_tasks.deletions(relay.url))


def test_a_file_put_back_to_before_it_was_sent_has_it_deleted_all_the_same(
    open_repo: OpenRepo, relay: RelayThread, tmp_path: Path
) -> None:
    laptop = open_repo("laptop")
    laptop.create("Kept")
    with laptop.connect(relay.url) as link:
        link.wait_synced(30)
    conversation = laptop.create("Gone")
    conversation.append("user", SECRET)
    laptop.close()
    shutil.copyfile(tmp_path / "laptop.db", tmp_path / "backup")
    with llmcrdt.open(tmp_path / "laptop.db") as again, again.connect(relay.url) as link:
        link.wait_synced(30)
    (tmp_path / "backup").replace(tmp_path / "laptop.db")
    with llmcrdt.open(tmp_path / "laptop.db") as restored:
        restored.delete(conversation.id)  # nothing here says that the relay has it
        with restored.connect(relay.url):
            eventually(lambda: not holds(tmp_path) and not restored._core.store.relay_tasks.deletions(relay.url))


def test_a_stale_device_deletes_its_copy_and_can_t_bring_it_back(
    open_repo: OpenRepo, relay: RelayThread, tmp_path: Path
) -> None:
    laptop = open_repo("laptop")
    conversation = laptop.create("Gone")
    conversation.append("user", "Hello")
    phone = open_repo("phone", laptop.library)
    with laptop.connect(relay.url) as one, phone.connect(relay.url) as two:
        one.wait_synced(30)
        two.wait_synced(30)
    phone.get(conversation.id).append("user", SECRET)  # offline, and never acknowledged
    with laptop.connect(relay.url) as one:
        laptop.delete(conversation.id)
        eventually(lambda: not laptop._core.store.relay_tasks.deletions(relay.url))
        one.wait_synced(30)
    with phone.connect(relay.url) as two:
        two.wait_synced(30)  # that the document is gone is no error, for the library says why
        eventually(lambda: not holds(tmp_path))
    assert phone.list() == [] and phone._core.store.outboxes.documents(relay.url) == []


def test_without_a_word_of_the_library_nothing_local_is_touched(open_repo: OpenRepo, relay: RelayThread) -> None:
    """Somebody who may append deletes it at the relay: the devices keep what they have, and say that it is refused."""
    laptop, friend = open_repo("laptop"), open_repo("friend")
    conversation = laptop.create("Shared")
    conversation.append("user", "Hello")
    with laptop.connect(relay.url) as link:
        link.wait_synced(30)
        with friend.connect(relay.url, only=[conversation.id]) as other:
            other.wait_synced(30)
            control_of(other).request_deletion(conversation.id, friend.library).result(30)
        conversation.append("user", SECRET)
        with pytest.raises(RelayRefused, match="was deleted") as refused:
            link.wait_synced(30)
        assert refused.value.code == ErrorCode.GONE
    assert [entry.text for entry in laptop.get(conversation.id).transcript()] == ["Hello", SECRET]
    assert [row.title for row in laptop.list()] == ["Shared"]


def test_a_deletion_that_the_relay_refuses_is_told_once_and_asked_again_with_another_token(
    open_repo: OpenRepo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = Tokens(tmp_path / "relay")
    ann, bob, other, root = (
        tokens.make(who, may, ["*"])
        for who, may in (("ann", "append"), ("bob", "append"), ("bob", "append"), ("root", "admin"))
    )
    laptop = open_repo("laptop")
    conversation = laptop.create("Gone")
    conversation.append("user", SECRET)
    phone = open_repo("phone", laptop.library)
    with RelayThread(tmp_path / "relay") as relay:
        asked: list[object] = []
        delete = Connection.delete

        def count(self: Connection, document: bytes) -> None:
            if document == document_bytes(conversation.id):
                asked.append(document)
            delete(self, document)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Connection, "delete", count)
            for repo, token in ((laptop, ann), (phone, bob)):
                with repo.connect(relay.url, token) as link:
                    link.wait_synced(30)
            phone.delete(conversation.id)  # offline
            with phone.connect(relay.url, bob) as link:
                link.wait_synced(30)  # it is in step all the same, and knows by now
                assert [str(why.args[0]) for why in link.kept_there.values()] == [
                    link.last_error and link.last_error.message
                ]
                assert list(link.kept_there) == [conversation.id] and "another subject" in str(link.last_error)
                phone.create("Another").append("user", "x")
                phone.delete(phone.create("Short-lived").id)
                link.wait_synced(30)
                assert len(asked) == 1, "not again on this connection"
            with phone.connect(relay.url, bob) as link:
                link.wait_synced(30)
                assert (len(asked), dict(link.kept_there), link.last_error) == (1, {}, None)
                phone.delete(conversation.id)  # once more, by hand
                eventually(lambda: list(link.kept_there) == [conversation.id])
            phone.close()
            for times, kept in ((3, [conversation.id]), (3, [])):
                with pytest.raises(SystemExit) as ended:
                    command = ["--db", str(tmp_path / "phone.db"), "sync", relay.url, "--json", "--timeout", "30"]
                    main([*command, "--token", other])  # the same subject, but who knows
                assert ended.value.code == 0
                assert (json.loads(capsys.readouterr().out)["kept_there"], len(asked)) == (kept, times)
            again = llmcrdt.open(tmp_path / "phone.db")
            assert again._core.store.relay_tasks.deletions(relay.url) == [conversation.id], "it is not forgotten"
            with again.connect(relay.url, root) as link:
                link.wait_synced(30)
                eventually(lambda: not again._core.store.relay_tasks.deletions(relay.url))
                assert not link.kept_there
            with pytest.raises(ConversationNotFound):
                again.delete(conversation.id)
            again.close()


def test_who_is_in_step_has_had_deletions_taken(open_repo: OpenRepo, tmp_path: Path) -> None:
    """One ``llmcrdt sync`` after a deletion is enough: it ends when it is in step."""
    for attempt in range(5):
        with RelayThread(tmp_path / f"relay{attempt}") as relay:
            laptop = open_repo(f"laptop{attempt}")
            conversation = laptop.create("Gone")
            with laptop.connect(relay.url) as link:
                link.wait_synced(30)
            laptop.delete(conversation.id)
            with laptop.connect(relay.url) as link:
                link.wait_synced(30)
        log = SqliteStorage(tmp_path / f"relay{attempt}" / "relay.db")
        assert log.tombstones.is_deleted(document_bytes(conversation.id))
        log.close()


def test_a_relay_that_went_back_to_an_old_copy_is_told_again(open_repo: OpenRepo, tmp_path: Path) -> None:
    laptop = open_repo("laptop")
    conversation = laptop.create("Gone")
    conversation.append("user", SECRET)
    with RelayThread(tmp_path / "relay") as relay:
        port = relay.port
        with laptop.connect(relay.url) as link:
            link.wait_synced(30)
    shutil.copytree(tmp_path / "relay", tmp_path / "backup")
    with RelayThread(tmp_path / "relay", port=port) as relay, laptop.connect(relay.url):
        laptop.delete(conversation.id)
        eventually(lambda: not laptop._core.store.relay_tasks.deletions(relay.url))
    shutil.rmtree(tmp_path / "relay")
    shutil.copytree(tmp_path / "backup", tmp_path / "relay")
    assert holds(tmp_path / "relay")
    with RelayThread(tmp_path / "relay", port=port) as relay, laptop.connect(relay.url):
        eventually(lambda: not holds(tmp_path / "relay"))
    log = SqliteStorage(tmp_path / "relay" / "relay.db")
    assert log.tombstones.is_deleted(document_bytes(conversation.id))
    log.close()


def test_a_relay_that_lost_the_tombstone_but_not_the_word_of_it_is_told_again(
    open_repo: OpenRepo, tmp_path: Path
) -> None:
    """The copy was made between the library's record and the deletion: only another log shows that it went back."""
    laptop = open_repo("laptop")
    kept, gone = laptop.create("Kept"), laptop.create("Gone")
    gone.append("user", SECRET)
    with RelayThread(tmp_path / "relay") as relay:
        port = relay.port
        with laptop.connect(relay.url) as link:
            link.wait_synced(30)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Connection, "delete", lambda *_: None)
                laptop.delete(gone.id)
                link.wait_synced(30)
    shutil.copytree(tmp_path / "relay", tmp_path / "backup")
    with RelayThread(tmp_path / "relay", port=port) as relay, laptop.connect(relay.url) as link:
        kept.append("user", "Hello")
        link.wait_synced(30)
        eventually(lambda: not laptop._core.store.relay_tasks.deletions(relay.url))
    shutil.rmtree(tmp_path / "relay")
    shutil.move(tmp_path / "backup", tmp_path / "relay")
    assert holds(tmp_path / "relay")
    with RelayThread(tmp_path / "relay", port=port) as relay, laptop.connect(relay.url):
        eventually(lambda: not holds(tmp_path / "relay"))


def test_a_deleted_id_can_not_be_joined_or_written_to_again(open_repo: OpenRepo, tmp_path: Path) -> None:
    """Words that were taken and dropped later would be lost without a word."""
    laptop = open_repo("laptop")
    conversation = laptop.create("Gone")
    with llmcrdt.open(tmp_path / "laptop.db") as other:
        same = other.get(conversation.id)
        same.transcript()
        laptop.delete(conversation.id)
        with pytest.raises(ConversationNotFound):
            same.append("user", SECRET)
    with pytest.raises(ConversationNotFound):
        laptop.join(conversation.id)
    laptop.close()
    assert not holds(tmp_path)


def forget_tombstones(folder: Path) -> list[bytes]:
    """All that a copy of the relay's file lacks that was made before the tombstones, and after all else."""
    with closing(sqlite3.connect(folder / "relay.db", isolation_level=None)) as db:
        ids = [id_ for (id_,) in db.execute("SELECT id FROM documents WHERE gone > 0 ORDER BY id")]
        db.execute("DELETE FROM documents WHERE gone > 0")
        return ids


@pytest.mark.parametrize("stale", [False, True])
def test_a_relay_that_lost_nothing_but_tombstones_is_told_again(
    open_repo: OpenRepo, tmp_path: Path, stale: bool
) -> None:
    folder = tmp_path / "relay"
    laptop = open_repo("laptop")
    gone, kept = [laptop.create(f"Gone {n}") for n in range(3)], laptop.create("Kept")
    for conversation in (*gone, kept):
        conversation.append("user", "words")
    with RelayThread(folder) as relay:
        with laptop.connect(relay.url) as link:
            link.wait_synced(30)
            for conversation in gone:
                laptop.delete(conversation.id)
            link.wait_synced(30)
            # Else what is still owed would be told again anyway: to be in step, the relay need only have heard of it.
            eventually(lambda: laptop._core.store.relay_tasks.deletions(relay.url), lambda owed: owed == [])
        port = relay.port
    lost = forget_tombstones(folder)
    assert lost == sorted(document_bytes(conversation.id) for conversation in gone)
    with RelayThread(folder, port=port) as relay:
        if stale:  # somebody who knows no library fills them in again
            with native(relay.url) as page:
                for n, document in enumerate(lost):
                    kind = "yjs" if n else "other"
                    assert isinstance(ask(page, Open(document, kind)), Opened)
                    assert isinstance(ask(page, Push(document, b"s" * 16, 1, (b"\x00\x00",))), Ack)
        with laptop.connect(relay.url) as link:
            link.wait_synced(30)
            eventually(lambda: laptop._core.store.relay_tasks.deletions(relay.url), lambda owed: owed == [])
            assert link.last_error is None
        with native(relay.url) as page:
            for document in lost:
                answer = ask(page, Open(document, "yjs"))
                assert isinstance(answer, Error) and answer.code == ErrorCode.GONE


def test_a_relay_that_knows_what_it_deleted_is_asked_for_nothing_again(open_repo: OpenRepo, relay: RelayThread) -> None:
    laptop = open_repo("laptop")
    conversations = [laptop.create() for _ in range(3)]
    with laptop.connect(relay.url) as link:
        link.wait_synced(30)
        for conversation in conversations:
            laptop.delete(conversation.id)
        link.wait_synced(30)
        first = link.bytes_sent
    with patch.object(SqliteRelayTasks, "delete_all_again") as owed, laptop.connect(relay.url) as link:
        link.wait_synced(30)
        assert not owed.called and link.bytes_sent < first and link.last_error is None
