"""All that a person keeps on a device stays there: no relay gets a word, a title, an id or a key of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import llmcrdt
from llmcrdt.cli import main
from llmcrdt.exceptions import ConversationDeleted, InvalidContent, NeverSyncs, SyncError
from llmcrdt.ids import document_bytes
from llmcrdt.repo.importer import import_files
from sync_server.thread import RelayThread

from ..waiting import PATIENCE, eventually

OpenRepo = Callable[..., llmcrdt.Repo]
SECRET, TITLE, SHARED = "Schwarzwälderkirschtorte", "Weihnachtsplätzchenrezept", "Donaudampfschifffahrt"


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayThread]:
    with RelayThread(tmp_path / "relay") as relay:
        yield relay


def holds(folder: Path, *needles: bytes) -> set[bytes]:
    """Those of ``needles`` that stand in some file of a folder."""
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return {needle for needle in needles if any(needle in data for data in files)}


def traces(conversation: llmcrdt.Conversation, *words: str) -> list[bytes]:
    """All by which a conversation could be known."""
    ids = [conversation.id.encode(), document_bytes(conversation.id), *(e.id.encode() for e in conversation.entries())]
    return [*ids, *(word.encode() for word in words)]


def in_step(repo: llmcrdt.Repo, relay: RelayThread) -> None:
    with repo.connect(relay.url) as link:
        link.wait_synced(PATIENCE)


def test_the_relay_has_no_word_of_a_local_conversation(open_repo: OpenRepo, relay: RelayThread, tmp_path: Path) -> None:
    """All is done with it, while a link is open and after; a shared one shows that the search finds what is
    there."""
    laptop = open_repo("laptop")
    shared = laptop.create(SHARED)
    said = shared.append("user", SHARED)
    with laptop.connect(relay.url) as link:
        link.wait_synced(PATIENCE)
        local = laptop.create(TITLE, local=True)
        local.append("user", SECRET)
        attached = llmcrdt.Blob(SECRET.encode() * 100, name=f"{TITLE}.txt")
        named = local.append("user", [attached]).parts[0]
        assert isinstance(named, llmcrdt.Blob)
        with local.stream() as stream:
            stream.write(SECRET)
        local.append("assistant", "ok", hidden={"p/x": llmcrdt.HiddenField(SECRET.encode(), {}, sealed=True)})
        local.present({"typing": SECRET})
        erased = local.append("user", SECRET)
        secret = traces(local, SECRET, TITLE, named.hash)
        local.erase(erased)
        laptop.rename(local.id, f"{TITLE} 2")
        laptop.archive(local.id)
        fork = laptop.fork(local, at=local.transcript()[0])
        gone = laptop.create(TITLE, local=True)
        gone.append("user", SECRET)
        secret += [*traces(fork), *traces(gone)]
        laptop.delete(gone.id)
        link.wait_synced(PATIENCE)
        shared.append("user", [llmcrdt.Text(SHARED), llmcrdt.Blob(SHARED.encode() * 100)])
        link.wait_synced(PATIENCE)
        laptop.attachments.wait_sent(PATIENCE)
        laptop.attachments.fetch(local.id, named).wait(PATIENCE).unlink()
        with pytest.raises(NeverSyncs):
            laptop.attachments.fetch(local.id, named)
    in_step(laptop, relay)
    relay.close()
    assert holds(tmp_path / "relay", *secret) == set()
    assert holds(tmp_path / "relay", SHARED.encode(), said.id.encode()) == {SHARED.encode(), said.id.encode()}
    with pytest.raises(ConversationDeleted):
        gone.append("user", "more")


def test_what_is_local_is_used_and_found_as_any_other(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    local, shared = repo.create(TITLE, local=True), repo.create("Trip")
    local.append("user", SECRET)
    assert {row.title: row.local for row in repo.list()} == {TITLE: True, "Trip": False}
    assert repo.search(SECRET)[0].conversation == local.id and repo.get(local.id) is repo.join(local.id) is local
    repo.rename(local.id, "Cake")
    repo.archive(local.id)
    assert repo.fork(shared, at=shared.append("user", "x"), local=True).id in {r.id for r in repo.list() if r.local}
    repo.close()
    again = open_repo("laptop")
    row = next(row for row in again.list() if row.id == local.id)
    assert (row.title, row.archived, row.local) == ("Cake", True, True)
    assert again.get(local.id).title == "Cake" and again.get(local.id).transcript()[0].text == SECRET
    with again.observe() as changes:
        again.rename(local.id, "Pie")
        assert [line.title for line in next(changes).renamed] == ["Pie"]
    again.delete(local.id)
    assert local.id not in {row.id for row in again.list()} and not again.search(SECRET)
    with pytest.raises(ConversationDeleted):
        again.get(local.id)


def test_it_is_shared_on_purpose_and_for_good(open_repo: OpenRepo, relay: RelayThread) -> None:
    laptop = open_repo("laptop")
    local = laptop.create(TITLE, local=True)
    local.append("user", SECRET)
    laptop.archive(local.id)
    phone = open_repo("phone", laptop.library)
    with pytest.raises(NeverSyncs, match="on this device alone"):
        laptop.connect(relay.url, only=[local.id])
    with laptop.connect(relay.url) as one, phone.connect(relay.url) as two:
        one.wait_synced(PATIENCE)
        two.wait_synced(PATIENCE)
        assert list(phone.list()) == []
        laptop.share(local.id)
        laptop.share(local.id)
        one.wait_synced(PATIENCE)
        two.wait_synced(PATIENCE)
    (row,) = phone.list()
    assert (row.id, row.title, row.archived, row.local) == (local.id, TITLE, True, False)
    assert phone.get(local.id).transcript()[0].text == SECRET and not laptop.list()[0].local


def test_another_device_that_has_the_same_gets_nothing_of_it(
    open_repo: OpenRepo, relay: RelayThread, tmp_path: Path
) -> None:
    """An import has one id on all devices: the library of another one must not make it leave this one."""
    file = tmp_path / "talk.json"
    file.write_text(json.dumps({"messages": [{"role": "user", "content": "Hello"}]}))
    laptop, phone = open_repo("laptop"), open_repo("phone")
    phone.close()
    phone = open_repo("tablet", laptop.library)
    (mine,) = import_files(laptop, [file], local=True)
    (theirs,) = import_files(phone, [file], title="Theirs")
    assert isinstance(mine, llmcrdt.Imported) and isinstance(theirs, llmcrdt.Imported)
    assert mine.conversation == theirs.conversation
    laptop.get(mine.conversation).append("user", SECRET)
    for repo in (phone, laptop, phone):
        in_step(repo, relay)
    relay.close()
    assert holds(tmp_path / "relay", SECRET.encode()) == set()
    assert [(row.title, row.local) for row in laptop.list()] == [("talk", True)]
    (again,) = import_files(phone, [file], local=True)
    assert isinstance(again, llmcrdt.NotImported) and "shared" in again.error.message


def test_an_invite_has_no_keys_of_it(open_repo: OpenRepo, tmp_path: Path) -> None:
    laptop = open_repo("laptop")
    made = [laptop.create(local=local) for local in (True, False)]
    for conversation in made:
        conversation.append("assistant", "ok", hidden={"p/x": llmcrdt.HiddenField(b"x", {}, sealed=True)})
    with llmcrdt.open(tmp_path / "new.db", invite=laptop.invite("ws://127.0.0.1:9")) as phone:
        assert {key[0] for key in phone.keyring.everything()} == {made[1].id}


def test_a_database_that_never_syncs(open_repo: OpenRepo, relay: RelayThread, tmp_path: Path) -> None:
    """Links end, also those of other processes, and none begins until it may again."""
    repo = open_repo("laptop")
    link = repo.connect(relay.url)
    link.wait_synced(PATIENCE)
    code = f"import llmcrdt\nwith llmcrdt.open({str(tmp_path / 'laptop.db')!r}) as repo: repo.never_syncs = True"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)
    eventually(lambda: link.state == "closed")
    repo.create(TITLE).append("user", SECRET)
    with pytest.raises(NeverSyncs, match="never to sync") as error:
        repo.connect(relay.url)
    assert "llmcrdt syncing on" in str(error.value) and repo.never_syncs
    with pytest.raises(SyncError):
        link.wait_synced(1)
    assert holds(tmp_path / "relay", SECRET.encode(), TITLE.encode()) == set()
    repo.never_syncs = False
    with repo.connect(relay.url) as link:
        link.wait_synced(PATIENCE)
        repo.never_syncs = True
        eventually(lambda: link.state == "closed")
    assert holds(tmp_path / "relay", SECRET.encode()) == {SECRET.encode()}
    with pytest.raises(InvalidContent):
        repo.never_syncs = 1  # type: ignore[assignment]


def test_the_commands(tmp_path: Path, relay: RelayThread) -> None:
    db = str(tmp_path / "a.db")

    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, ["--db", db, *words])
        assert done.exit_code == code, done.output
        return done.output

    id_ = run("new", TITLE, "--local").strip()
    run("append", id_, SECRET)
    run("new", "Trip")
    run("sync", relay.url)
    lines = run("list").splitlines()
    assert [line.endswith("(local)") for line in lines] == [False, True]
    assert [row["local"] for row in json.loads(run("list", "--json"))["conversations"]] == [False, True]
    assert holds(tmp_path / "relay", SECRET.encode(), TITLE.encode()) == set()
    assert run("fork", id_) and sum("(local)" in line for line in run("list").splitlines()) == 2
    assert run("syncing").startswith("on")
    assert run("syncing", "off").startswith("off") and json.loads(run("syncing", "--json")) == {"never_syncs": True}
    assert "never to sync" in run("sync", relay.url, code=1)
    run("syncing", "on")
    run("share", id_)
    run("sync", relay.url)
    assert holds(tmp_path / "relay", SECRET.encode(), TITLE.encode()) == {SECRET.encode(), TITLE.encode()}
