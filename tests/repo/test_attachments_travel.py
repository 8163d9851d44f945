"""Attachments from device to device through a relay: they come when they are wanted, whole, and to nobody else."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt.document.sealed_blob import BlobCipher, sealed_size
from llmcrdt.exceptions import (
    BlobMissing,
    InvalidContent,
    LLMCRDTError,
    RelayRefused,
    RelayUnreachable,
    SyncError,
    SyncTimeout,
)
from llmcrdt.ids import DocumentId
from llmcrdt.sync.attachments import AttachmentConnection
from llmcrdt.sync.messages import MAX_PIECE, AttachmentName
from sync_server.auth.tokens import Tokens
from sync_server.core.limits import Limits
from sync_server.thread import RelayThread

WAIT = 60.0
Open = Callable[..., llmcrdt.Repo]


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayThread]:
    with RelayThread(tmp_path / "relay") as made:
        yield made


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Open]:
    repos: list[llmcrdt.Repo] = []

    def make(name: str, library: str | None = None) -> llmcrdt.Repo:
        repos.append(llmcrdt.open(tmp_path / f"{name}.db", library=library))
        return repos[-1]

    yield make
    for repo in repos:
        repo.close()


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def attach(repo: llmcrdt.Repo, *contents: bytes) -> tuple[llmcrdt.Conversation, llmcrdt.Entry]:
    conversation = repo.create(title="Trip")
    parts = [llmcrdt.Text("See"), *(llmcrdt.Blob(content, "image/png", "cat.png") for content in contents)]
    return conversation, conversation.append("user", parts)


def in_step(repo: llmcrdt.Repo, url: str, token: str | None = None) -> llmcrdt.Repo:
    link = repo.connect(url, token)
    link.wait_synced(WAIT)
    return repo


def sent(repo: llmcrdt.Repo) -> None:
    repo.attachments.wait_sent(WAIT)
    assert not repo.attachments.refused


def grep(folder: Path, *words: bytes) -> list[str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [file.name for file in files if any(word in file.read_bytes() for word in words)]


def test_what_is_attached_here_comes_there_when_it_is_wanted(device: Open, relay: RelayThread) -> None:
    contents = [noise(size, size) for size in (0, 1, MAX_PIECE, 5 * MAX_PIECE + 3)]
    laptop = device("laptop")
    conversation, entry = attach(laptop, *contents)
    in_step(laptop, relay.url)
    sent(laptop)
    phone = in_step(device("phone", laptop.library), relay.url)
    assert [each.present for each in phone.attachments.list(conversation.id)] == [False] * 4
    blobs = phone.get(conversation.id).entry(entry.id).parts[1:]
    for blob, content in zip(blobs, contents, strict=True):
        assert isinstance(blob, llmcrdt.Blob) and not blob.present
        transfer = phone.attachments.fetch(conversation.id, blob)
        assert transfer.wait(WAIT).read_bytes() == content == blob.read()
        assert transfer.done == transfer.size == len(content) and transfer.ended
    assert phone.attachments.transfers == [] and phone.attachments.fetch_all(conversation.id) == []
    assert phone.attachments.fetch(conversation.id, blobs[0].hash).wait(0)  # it is here


def test_an_entry_that_comes_later_is_fetched_by_itself_up_to_a_limit(device: Open, relay: RelayThread) -> None:
    laptop = device("laptop")
    conversation, _ = attach(laptop)
    in_step(laptop, relay.url)
    phone = device("phone", laptop.library)
    phone.attachments.limit = 1000
    in_step(phone, relay.url)
    there = phone.get(conversation.id)
    small, large = noise(1000), noise(1001)
    entry = conversation.append("user", [llmcrdt.Blob(small), llmcrdt.Blob(large)])
    sent(laptop)

    def small_is_here() -> bool:
        return phone.blobs.has(hashlib.sha256(small).hexdigest())

    until(small_is_here)
    assert [blob.present for blob in there.entry(entry.id).parts if isinstance(blob, llmcrdt.Blob)] == [True, False]
    with pytest.raises(InvalidContent):
        phone.attachments.limit = -1
    assert phone.attachments.limit == 1000


def until(done: Callable[[], bool]) -> None:
    async def look() -> None:
        async with asyncio.timeout(WAIT):
            while not done():
                await asyncio.sleep(0.02)

    asyncio.run(look())


def test_it_is_awaited_and_cancelled(device: Open, relay: RelayThread) -> None:
    content = noise(3 * MAX_PIECE)
    laptop = in_step(device("laptop"), relay.url)
    conversation, entry = attach(laptop, content)
    (blob,) = entry.parts[1:]
    assert isinstance(blob, llmcrdt.Blob)

    async def main() -> None:
        async with asyncio.timeout(WAIT):
            await laptop.attachments.sent()
            phone = device("phone", laptop.library)
            async with phone.connect(relay.url) as link:
                await link.synced()
                path = await phone.attachments.fetch(conversation.id, blob)
                assert path.read_bytes() == content
            tablet = device("tablet", laptop.library)
            in_step(tablet, relay.url)
            transfer = tablet.attachments.fetch(conversation.id, blob)
            transfer.cancel()
            if transfer._future.cancelled():
                with pytest.raises(SyncError):
                    transfer.wait(WAIT)
            assert (await tablet.attachments.fetch(conversation.id, blob)).read_bytes() == content

    asyncio.run(main())


@pytest.mark.parametrize("sealed", [False, True])
def test_it_goes_on_from_any_byte(device: Open, relay: RelayThread, sealed: bool) -> None:
    """The part that came so far is cut at any byte, as a crash would: the rest comes, and the whole is what it was."""
    content, rng = noise(3 * MAX_PIECE + 11), random.Random(sealed)
    laptop = in_step(device("laptop"), relay.url)
    conversation, entry = attach(laptop, content)
    if sealed:
        laptop.keyring.rotate(conversation.id)
        laptop.attachments.send_again(conversation.id)
    sent(laptop)
    phone = in_step(device("phone", laptop.library), relay.url)
    if sealed:
        phone.keyring.add(laptop.keyring.export(conversation.id))
    blob = entry.parts[1]
    assert isinstance(blob, llmcrdt.Blob)
    whole, name = b"", ""
    for cut in (*(rng.randrange(len(content)) for _ in range(8)), 0, len(content), len(content) + 10_000):
        coming = phone.blobs.folder / "coming"
        names = {file.name for file in coming.glob("*")}
        assert not names
        if whole:
            (coming / name).write_bytes((whole + bytes(10_000))[:cut])
        transfer = phone.attachments.fetch(conversation.id, blob)
        assert transfer.wait(WAIT).read_bytes() == content
        if not whole:
            if sealed:
                key = phone.keyring.keys(conversation.id)[-1]
                cipher = BlobCipher(key, DocumentId(conversation.id), blob.hash, len(content))
                with blob.open() as file:
                    whole = cipher.read_sealed(file, 0, sealed_size(len(content)))
                name = f"{blob.hash}.1{cipher.name.hex()[:16]}"
            else:
                whole, name = content, f"{blob.hash}.0{blob.hash[:16]}"
        transfer.wait(0).unlink()


def test_what_came_is_not_fetched_again(device: Open, relay: RelayThread) -> None:
    content = noise(3 * MAX_PIECE + 11)
    laptop = in_step(device("laptop"), relay.url)
    conversation, entry = attach(laptop, content)
    sent(laptop)
    phone = in_step(device("phone", laptop.library), relay.url)
    blob = entry.parts[1]
    assert isinstance(blob, llmcrdt.Blob)
    # All but a few bytes are here; what is fetched then is no more than these.
    phone.blobs.coming(blob.hash, f"0{blob.hash[:16]}").write_bytes(content[:-5])
    asked: list[int] = []
    fetch = AttachmentConnection.fetch

    def noting(
        self: AttachmentConnection, document: bytes, name: AttachmentName, size: int, offset: int, write: Any
    ) -> Any:
        asked.append(offset)
        return fetch(self, document, name, size, offset, write)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AttachmentConnection, "fetch", noting)
        assert phone.attachments.fetch(conversation.id, blob).wait(WAIT).read_bytes() == content
    assert asked == [len(content) - 5]


def test_a_beginning_that_is_wrong_is_found_out(device: Open, relay: RelayThread) -> None:
    content = noise(2 * MAX_PIECE)
    laptop = in_step(device("laptop"), relay.url)
    conversation, entry = attach(laptop, content)
    sent(laptop)
    phone = in_step(device("phone", laptop.library), relay.url)
    blob = entry.parts[1]
    assert isinstance(blob, llmcrdt.Blob)
    phone.blobs.coming(blob.hash, f"0{blob.hash[:16]}").write_bytes(b"!" * 100)
    with pytest.raises(BlobMissing, match="not what its hash says"):
        phone.attachments.fetch(conversation.id, blob).wait(WAIT)
    assert not phone.blobs.has(blob.hash)
    assert phone.attachments.fetch(conversation.id, blob).wait(WAIT).read_bytes() == content


def test_what_no_relay_has_is_said(device: Open, relay: RelayThread, tmp_path: Path) -> None:
    laptop = device("laptop")
    conversation, entry = attach(laptop, b"content")
    blob = entry.parts[1]
    assert isinstance(blob, llmcrdt.Blob)
    phone = device("phone", laptop.library)
    phone.join(conversation.id).apply(conversation.diff())
    with pytest.raises(RelayUnreachable):
        phone.attachments.fetch(conversation.id, blob)
    with pytest.raises(InvalidContent):
        phone.attachments.fetch(conversation.id, "0" * 64)
    with pytest.raises(InvalidContent):
        phone.attachments.fetch("no id", blob)
    in_step(phone, relay.url)
    with pytest.raises(BlobMissing, match="does not have"):
        phone.attachments.fetch(conversation.id, blob).wait(WAIT)
    with pytest.raises(SyncTimeout), phone.connect("ws://127.0.0.1:9"):
        phone.attachments.fetch(conversation.id, blob).wait(0.3)


def test_encrypted_where_there_is_a_key(device: Open, relay: RelayThread, tmp_path: Path) -> None:
    content = b"what the relay must not read " * 9000
    laptop = device("laptop")
    conversation, entry = attach(laptop)
    laptop.keyring.rotate(conversation.id)
    entry = conversation.append("user", [llmcrdt.Blob(content, "image/png", "cat.png")])
    blob = entry.parts[0]
    assert isinstance(blob, llmcrdt.Blob)
    in_step(laptop, relay.url)
    sent(laptop)
    # The document names the hash; what is kept of the attachment shows neither its words nor its name.
    assert grep(tmp_path / "relay", b"must not read") == []
    phone = in_step(device("phone", laptop.library), relay.url)
    with pytest.raises(BlobMissing, match="key"):
        phone.attachments.fetch(conversation.id, blob).wait(WAIT)
    phone.keyring.add(laptop.keyring.export(conversation.id))
    assert phone.attachments.fetch(conversation.id, blob).wait(WAIT).read_bytes() == content
    # After another key came, what was sent under the old one opens still.
    laptop.keyring.rotate(conversation.id)
    tablet = in_step(device("tablet", laptop.library), relay.url)
    tablet.keyring.add(laptop.keyring.export(conversation.id))
    assert tablet.attachments.fetch(conversation.id, blob).wait(WAIT).read_bytes() == content


def test_an_erase_takes_it_from_devices_and_relay(device: Open, relay: RelayThread, tmp_path: Path) -> None:
    content, other = b"what nobody may find again " * 9000, b"what stays " * 9000
    laptop = in_step(device("laptop"), relay.url)
    conversation, entry = attach(laptop, content, other)
    conversation.append("user", [llmcrdt.Blob(other)])
    sent(laptop)
    phone = in_step(device("phone", laptop.library), relay.url)
    there = phone.get(conversation.id)
    for transfer in phone.attachments.fetch_all(conversation.id):
        transfer.wait(WAIT)
    assert grep(tmp_path / "relay", b"nobody may find") and grep(tmp_path / "phone.db.blobs", b"nobody may find")
    conversation.erase(entry)
    sent(laptop)
    until(lambda: there.entry(entry.id).status == "erased")
    for folder in ("relay", "phone.db.blobs", "laptop.db.blobs"):
        until(lambda folder=folder: grep(tmp_path / folder, b"nobody may find") == [])
        assert grep(tmp_path / folder, b"what stays")
    sent(phone)
    tablet = in_step(device("tablet", laptop.library), relay.url)
    for transfer in tablet.attachments.fetch_all(conversation.id):
        assert transfer.wait(WAIT).read_bytes() == other


def test_a_relay_that_was_wiped_gets_them_again(device: Open, tmp_path: Path) -> None:
    laptop = device("laptop")
    conversation, _ = attach(laptop, b"content")
    with RelayThread(tmp_path / "relay") as first:
        in_step(laptop, first.url)
        sent(laptop)
        port = first.port
    for file in (tmp_path / "relay").iterdir():
        file.unlink()
    with RelayThread(tmp_path / "relay", port) as second:
        in_step(laptop, second.url)
        sent(laptop)
        phone = in_step(device("phone", laptop.library), second.url)
        (transfer,) = phone.attachments.fetch_all(conversation.id)
        assert transfer.wait(WAIT).read_bytes() == b"content"


def test_a_fork_has_them_too(device: Open, relay: RelayThread) -> None:
    laptop = in_step(device("laptop"), relay.url)
    conversation, entry = attach(laptop, b"content")
    fork = laptop.fork(conversation, at=entry)
    fork.append("user", [llmcrdt.Blob(b"more")])
    conversation.adopt(fork)
    sent(laptop)
    phone = device("phone", laptop.library)
    link = phone.connect(relay.url, only=[laptop.library, fork.id])
    link.wait_synced(WAIT)
    contents = sorted([b"content", b"more"])
    assert sorted(transfer.wait(WAIT).read_bytes() for transfer in phone.attachments.fetch_all(fork.id)) == contents
    tablet = in_step(device("tablet", laptop.library), relay.url)
    came = [transfer.wait(WAIT).read_bytes() for transfer in tablet.attachments.fetch_all(conversation.id)]
    assert sorted(came) == contents, "also what the fork brought"


def test_limits_are_told_and_nothing_else_is_held_up(device: Open, tmp_path: Path) -> None:
    with RelayThread(tmp_path / "relay", limits=Limits(attachment=1000)) as relay:
        laptop = in_step(device("laptop"), relay.url)
        conversation, _ = attach(laptop, noise(1001), noise(1000))
        laptop.attachments.wait_sent(WAIT)
        ((which, error),) = laptop.attachments.refused.items()
        assert which == (conversation.id, hashlib.sha256(noise(1001)).hexdigest()) and "larger" in str(error)
        phone = in_step(device("phone", laptop.library), relay.url)
        ended: list[bytes | LLMCRDTError] = []
        for transfer in phone.attachments.fetch_all(conversation.id):
            try:
                ended.append(transfer.wait(WAIT).read_bytes())
            except BlobMissing as e:
                ended.append(e)
        assert noise(1000) in ended and any(isinstance(e, BlobMissing) for e in ended)


def test_only_whoever_may_read_gets_them_and_whoever_may_write_brings_them(device: Open, tmp_path: Path) -> None:
    folder = tmp_path / "relay"
    folder.mkdir()
    tokens = Tokens(folder)
    ann, reader = (tokens.make("ann", "append", ["own"]), tokens.make("ann", "read", ["own"]))
    bob = tokens.make("bob", "append", ["own"])
    with RelayThread(folder) as relay:
        laptop = in_step(device("laptop"), relay.url, ann)
        conversation, entry = attach(laptop, b"content")
        sent(laptop)
        (blob,) = entry.parts[1:]
        assert isinstance(blob, llmcrdt.Blob)
        phone = device("phone", laptop.library)
        with phone.connect(relay.url, reader) as link:
            link.wait_synced(WAIT)
            assert phone.attachments.fetch(conversation.id, blob).wait(WAIT).read_bytes() == b"content"
            phone.get(conversation.id).append("user", [llmcrdt.Blob(b"mine")])
            until(lambda: bool(phone.attachments.refused))
            assert isinstance(next(iter(phone.attachments.refused.values())), SyncError)
        stranger = device("stranger")
        stranger.join(conversation.id).apply(conversation.diff())
        with stranger.connect(relay.url, bob), pytest.raises(RelayRefused, match="not for this document"):
            stranger.attachments.fetch(conversation.id, blob).wait(WAIT)
        assert not stranger.blobs.has(blob.hash)


def test_nothing_runs_when_all_is_done(device: Open, relay: RelayThread) -> None:
    import threading

    laptop = in_step(device("laptop"), relay.url)
    attach(laptop, b"content")
    sent(laptop)
    until(lambda: not any(thread.name == "llmcrdt-attachments" for thread in threading.enumerate()))
    assert os.path.isdir(laptop.blobs.folder)
