"""A disk that is full, or read-only: what comes is refused, what was acknowledged stays, and it goes on after."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.exceptions import SyncError
from llmcrdt.sync.messages import ErrorCode
from sync_server.log.base import LogError
from sync_server.log.sqlite import SqliteStorage
from sync_server.thread import RelayThread

from ..waiting import eventually

OpenRepo = Callable[..., llmcrdt.Repo]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own. Needs to be allowed to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=60)


def remount(disk: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(disk)], check=True, capture_output=True, timeout=60)


def test_a_full_disk_refuses_and_loses_nothing(open_repo: OpenRepo, disk: Path) -> None:
    laptop = open_repo("laptop")
    conversation = laptop.create()
    with RelayThread(disk / "relay") as relay, laptop.connect(relay.url) as link:
        link.wait_synced(30)
        filler = disk / "filler"
        acknowledged: list[str] = []
        while True:  # until there is no room
            entry = conversation.append("user", os.urandom(30_000).hex())
            try:
                link.wait_synced(1.0)
                acknowledged.append(entry.id)
            except SyncError:
                break
            with filler.open("ab") as file:
                free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
                if free > 300_000:
                    file.write(bytes(free - 300_000))
        assert acknowledged
        eventually(lambda: getattr(link.last_error, "code", None) == ErrorCode.STORAGE)
        assert conversation.entry(entry.id).sync != "durable"
        filler.unlink()
        remount(disk, "size=8m")
        link.wait_synced(60)  # nobody had to do anything
        assert conversation.entry(entry.id).sync == "durable"
        phone = open_repo("phone", laptop.library)
        with phone.connect(relay.url) as other:
            other.wait_synced(60)
        assert phone.get(conversation.id).transcript().hash == conversation.transcript().hash


def test_a_disk_that_became_read_only_refuses_and_loses_nothing(open_repo: OpenRepo, disk: Path) -> None:
    laptop = open_repo("laptop")
    conversation = laptop.create()
    conversation.append("user", "before")
    with RelayThread(disk / "relay") as relay, laptop.connect(relay.url) as link:
        link.wait_synced(30)
    remount(disk, "ro")
    try:
        with pytest.raises(LogError, match="can be written"):
            SqliteStorage(disk / "relay" / "relay.db")
    finally:
        remount(disk, "rw")
    conversation.append("user", "after")
    with RelayThread(disk / "relay", port=relay.port) as relay, laptop.connect(relay.url) as link:
        link.wait_synced(60)
        phone = open_repo("phone", laptop.library)
        with phone.connect(relay.url) as other:
            other.wait_synced(60)
        assert [entry.text for entry in phone.get(conversation.id).transcript()] == ["before", "after"]
