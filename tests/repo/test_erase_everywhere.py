"""O7 from end to end: after an erase no file of any device holds the words, in UTF-8 or as token ids."""

from __future__ import annotations

import random
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.ids import SessionId
from llmcrdt.repo.kv_caches import KVCaches
from llmcrdt.repo.sync_source import SyncSource
from llmcrdt.sync.local import Record
from llmcrdt.sync.synchronizer import Synchronizer
from llmcrdt.testing.models import write_model
from sync_server.thread import RelayThread

OpenRepo = Callable[..., llmcrdt.Repo]
SECRET = "Rumpelstilzchen lives behind the seventh hill, in the house with the crooked door"


def files_with(folder: Path, needles: list[bytes]) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(str(path.relative_to(folder)) for path in files if any(n in path.read_bytes() for n in needles))


def spellings(engine: llmcrdt.LlamaEngine) -> list[bytes]:
    """The words, and runs of eight of their token ids as chunk headers and token logs hold them."""
    ids = engine.tokenizer.encode(SECRET, special=False)
    runs = [ids[i : i + 8] for i in range(2, len(ids) - 8, 4)]
    leb = [b"".join(bytes([n & 127 | 128, n >> 7]) if n > 127 else bytes([n]) for n in run) for run in runs]
    packed = [struct.pack(f"{order}{len(run)}{kind}", *run) for run in runs for order in "<>" for kind in "IiH"]
    return [SECRET.encode(), SECRET.encode("utf-16-le"), *leb, *packed]


@pytest.mark.parametrize("where", ["here", "by a merge", "engine closed"])
def test_no_file_holds_the_words(open_repo: OpenRepo, tmp_path: Path, where: str) -> None:
    write_model(tmp_path / "m.gguf")
    laptop, phone = open_repo("laptop"), None
    conversation = laptop.create()
    conversation.append("user", "Where does he live? " * 10)
    conversation.append("assistant", "He told me.", frame=conversation.transcript())
    secret = conversation.append("user", SECRET)
    engine = llmcrdt.LlamaEngine(tmp_path / "m.gguf", cache=tmp_path / "kv")
    needles = spellings(engine)
    for n in range(2):
        llmcrdt.generate(conversation, engine, max_tokens=70, seed=n, warm=False).result(60)
        conversation.append("user", f"And then? {n}")
    engine.settled(60)
    assert any(name.startswith("kv") for name in files_with(tmp_path, needles))
    assert any(name.startswith("laptop.db") for name in files_with(tmp_path, needles))
    phone = open_repo("phone", laptop.library).join(conversation.id)
    phone.apply(conversation.diff())
    if where == "engine closed":
        engine.close()
    (phone if where == "by a merge" else conversation).erase(secret)
    for a, b in ((conversation, phone), (phone, conversation)):
        a.apply(b.diff(since=a.version()))
    if where != "engine closed":
        engine.settled(60)
    assert files_with(tmp_path, needles) == []
    if where != "engine closed":
        answer = llmcrdt.generate(conversation, engine, max_tokens=5, seed=1)
        answer.result(60)
        engine.settled(60)
        assert answer.stats["reused"] == 0
        assert files_with(tmp_path, needles) == []
        engine.close()


@pytest.mark.parametrize("online", [True, False])
def test_no_file_of_the_relay_holds_the_words(open_repo: OpenRepo, tmp_path: Path, online: bool) -> None:
    """Erased while connected, or while the relay is out of reach: then it folds at the next connection."""
    with RelayThread(tmp_path / "relay") as relay:
        laptop = open_repo("laptop")
        phone = open_repo("phone", laptop.library)
        conversation = laptop.create()
        secret = conversation.append("user", SECRET)
        conversation.append("user", "And on.")
        for repo in (laptop, phone):
            with repo.connect(relay.url) as link:
                link.wait_synced(20)
        assert files_with(tmp_path, [SECRET.encode()])
        if not online:
            conversation.erase(secret)
        with laptop.connect(relay.url) as one, phone.connect(relay.url) as two:
            one.wait_synced(20)
            if online:
                conversation.erase(secret)
            one.wait_synced(20)
            two.wait_synced(20)
            until = time.monotonic() + 30
            while files_with(tmp_path, [SECRET.encode()]) and time.monotonic() < until:
                time.sleep(0.1)
        assert files_with(tmp_path, [SECRET.encode(), SECRET.encode("utf-16-le")]) == []
        assert phone.get(conversation.id).transcript().hash == conversation.transcript().hash
        late = open_repo("tablet", laptop.library)
        with late.connect(relay.url) as link:
            link.wait_synced(20)
        assert [e.status for e in late.get(conversation.id).transcript()] == ["erased", "complete"]
        assert laptop._core.store.relay_tasks.compactions(relay.url) == []


def test_an_erase_that_a_cache_stands_in_the_way_of_is_made_up_for(
    open_repo: OpenRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every file, the relay's too: nothing is noted as done before the cache has forgotten."""
    with RelayThread(tmp_path / "relay") as relay:
        laptop = open_repo("laptop")
        conversation = laptop.create()
        secret = conversation.append("user", SECRET)
        with laptop.connect(relay.url) as link:
            link.wait_synced(20)
            with monkeypatch.context() as patch:
                patch.setattr(KVCaches, "forget", lambda *_: (_ for _ in ()).throw(OSError("full")))
                with pytest.raises(OSError, match="full"):
                    conversation.erase(secret)
        laptop.close()
        forgotten: list[str] = []
        monkeypatch.setattr(KVCaches, "forget", lambda _, id_: forgotten.append(id_))
        laptop = open_repo("laptop")
        assert laptop.get(conversation.id).entries()[0].status == "erased"
        assert forgotten == [conversation.id]
        with laptop.connect(relay.url) as link:
            link.wait_synced(20)
            until = time.monotonic() + 30
            while files_with(tmp_path, [SECRET.encode()]) and time.monotonic() < until:
                time.sleep(0.1)
        assert files_with(tmp_path, [SECRET.encode()]) == []


def test_a_cache_folder_that_is_gone_is_no_reason_to_fail(open_repo: OpenRepo, tmp_path: Path) -> None:
    write_model(tmp_path / "m.gguf")
    conversation = open_repo("laptop").create()
    secret = conversation.append("user", SECRET)
    with llmcrdt.LlamaEngine(tmp_path / "m.gguf", cache=tmp_path / "kv") as engine:
        llmcrdt.generate(conversation, engine, max_tokens=3).result(60)
    shutil.rmtree(tmp_path / "kv")
    conversation.erase(secret)
    assert files_with(tmp_path, [SECRET.encode()]) == []


@pytest.mark.parametrize("loaded", [True, False])
def test_a_record_that_repeats_what_was_erased_leaves_no_words(
    open_repo: OpenRepo, tmp_path: Path, loaded: bool
) -> None:
    """A device that fills a relay anew may not have heard of the erase."""
    repo = open_repo("mine")
    conv = repo.create()
    entry = conv.append("user", "a purple elephant")
    whole = conv.diff()
    conv.erase(entry)
    if not loaded:
        conv.close()
        repo._core.documents.forget(conv.id)
    local = SyncSource(repo._core, "ws://relay", None)
    local.received(conv.id, [Record(SessionId("s" * 22), 1, whole)], None)
    assert files_with(tmp_path, [b"purple elephant"]) == []
    assert repo._core.store.updates.purged(conv.id) == 1


def test_what_an_erase_puts_in_the_place_of_waiting_records_is_waited_for(open_repo: OpenRepo, tmp_path: Path) -> None:
    repo = open_repo("mine")
    conv = repo.create()
    with RelayThread(tmp_path / "relay") as relay:
        url = relay.url
        with repo.connect(url) as link:
            link.wait_synced(60)
    kept, gone = conv.append("user", "is kept"), conv.append("user", "is erased")
    follower = Synchronizer(SyncSource(repo._core, url, None), random.random)
    goal = follower.add_waiter(lambda why: None)
    follower.connected()
    assert (kept.sync, gone.sync) == ("local", "local")
    conv.erase(gone)
    follower.local_changed(conv.id)
    assert conv.entry(kept).sync == "local"
    assert goal.marks[conv.id].place == repo._core.store.outboxes.end(url, conv.id)
